//! The panels of `lbd top`: VIPs, nodes, events; `servers` is the fourth. Pure.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::draw::{Looks, panel};
use super::state::{Panel, Top};
use crate::admin::status::short_time;
use crate::ipc::event::Event;
use crate::ipc::message::{PeerStatus, VipStatus, VrrpState};
use crate::log::{escape, wall_time};

/// A rule and a line of headings.
const FRAME_LINES: u16 = 2;
/// Rows of VIPs and of nodes; further ones are counted.
const ROWS_MAX: usize = 4;

pub(super) fn vips_height(top: &Top) -> u16 {
    height(top.vips().len() + routes(top))
}

pub(super) fn nodes_height(top: &Top) -> u16 {
    height(top.vips().iter().map(|vip| vip.peers.len() + 1).sum())
}

fn height(rows: usize) -> u16 {
    match rows {
        0 => 0,
        rows => FRAME_LINES + u16::try_from(rows.min(ROWS_MAX)).unwrap_or_default(),
    }
}

/// What servers leave of `rest` lines; three at least.
pub(super) fn events_height(top: &Top, rest: u16) -> u16 {
    let servers = u16::try_from(top.servers().len()).unwrap_or(u16::MAX);
    // With the line about the chosen one.
    let wanted = servers.saturating_add(FRAME_LINES + 1);
    rest.saturating_sub(wanted)
        .clamp(4.min(rest), rest.max(1))
        .min(rest)
}

fn routes(top: &Top) -> usize {
    top.status.vrrp.as_ref().map_or(0, |vrrp| vrrp.routes.len())
}

pub(super) fn heads(names: &[&'static str], looks: &Looks) -> Row<'static> {
    Row::new(names.iter().copied().map(Cell::from)).style(looks.faint)
}

/// How many of `count` rows stand above the window of `shown` that holds the `chosen` one.
pub(super) fn skipped(chosen: usize, count: usize, shown: usize) -> usize {
    let middle = chosen.saturating_sub(shown / 2);
    middle.min(count.saturating_sub(shown))
}

fn state_word(state: VrrpState, looks: &Looks) -> (&'static str, Style) {
    match state {
        VrrpState::Active => ("active (MASTER)", looks.good),
        VrrpState::Backup => ("backup", Style::new()),
        VrrpState::Leaving => ("leaving", looks.warn),
        VrrpState::Initialize => ("initialize", looks.warn),
    }
}

fn peer_name(peer: &PeerStatus) -> String {
    let name = peer.name.as_ref();
    name.map_or_else(|| peer.address.to_string(), |name| escape(name))
}

fn holder(top: &Top, vip: &VipStatus) -> String {
    match vip.active {
        _ if vip.holds => own_name(top),
        Some(active) => {
            let peer = vip.peers.iter().find(|peer| peer.address == active);
            peer.map_or_else(|| active.to_string(), peer_name)
        }
        None => "nobody heard".to_owned(),
    }
}

fn own_name(top: &Top) -> String {
    let process = &top.status.process;
    let name = process.name.as_ref().or(process.node.as_ref());
    name.map_or_else(|| "this node".to_owned(), |name| escape(name))
}

/// The virtual IPs, who holds them, and why.
pub(super) fn vips(frame: &mut Frame<'_>, area: Rect, top: &Top, looks: &Looks) {
    if area.height == 0 {
        return;
    }
    let held_back = top.vips().iter().any(|vip| vip.held_back.is_some());
    let about = if !top.status.keeper_speaks() {
        "last known: the keeper is silent"
    } else if held_back {
        "held back after a failover: c ends that"
    } else {
        ""
    };
    let inside = panel(frame, area, ("VIPs", Some(Panel::Vips)), about, top);
    let mut rows = Vec::new();
    for (at, vip) in top.vips().iter().enumerate() {
        let has_focus = top.panel == Panel::Vips && at == top.chosen_vip();
        let holder = Cell::from(holder(top, vip)).style(match (vip.holds, vip.active) {
            (true, _) | (false, Some(_)) => looks.strong,
            (false, None) => looks.bad,
        });
        let row = Row::new(vec![
            Cell::from(escape(&vip.name)),
            Cell::from(vip.addresses.join(", ")),
            holder,
            Cell::from(short_time(vip.since_ms)),
            Cell::from(escape(&vip.reason)),
        ]);
        rows.push(if has_focus {
            row.style(looks.chosen)
        } else {
            row
        });
    }
    for route in top.status.vrrp.iter().flat_map(|vrrp| &vrrp.routes) {
        let word = if route.announced {
            "announced"
        } else {
            "withdrawn"
        };
        rows.push(Row::new(vec![
            Cell::from(escape(&route.name)),
            Cell::from(route.addresses.join(", ")),
            Cell::from(word).style(if route.announced {
                looks.good
            } else {
                looks.bad
            }),
            Cell::from(short_time(route.since_ms)),
            Cell::from(escape(&route.reason)),
        ]));
    }
    let shown = usize::from(inside.height).saturating_sub(1);
    let hidden = skipped(top.chosen_vip(), rows.len(), shown);
    let addresses = top.vips().iter().map(|vip| vip.addresses.join(", "));
    let longest = addresses.map(|text| text.chars().count()).max();
    let longest = u16::try_from(longest.unwrap_or(18)).unwrap_or(u16::MAX);
    let widest = (area.width / 4).max(18);
    let table = Table::new(
        rows.into_iter().skip(hidden).collect::<Vec<_>>(),
        [
            Constraint::Length(14),
            Constraint::Length(longest.clamp(7, widest)),
            Constraint::Length(10),
            Constraint::Length(6),
            Constraint::Fill(1),
        ],
    );
    let heads = heads(&["VIP", "ADDRESS", "HELD BY", "FOR", "WHY"], looks);
    frame.render_widget(table.header(heads), inside);
}

/// This node and the others, for each virtual router: as they say themselves, else as their adverts
/// tell.
pub(super) fn nodes(frame: &mut Frame<'_>, area: Rect, top: &Top, looks: &Looks) {
    let Some(vrrp) = top.status.vrrp.as_ref().filter(|_| area.height > 0) else {
        return;
    };
    let about = match &vrrp.channel {
        Some(channel) => channel.fault.as_ref().map_or_else(String::new, |fault| {
            format!("OUT OF ORDER: {}", escape(fault))
        }),
        None => "what adverts tell; more with [peer] in lb.toml".to_owned(),
    };
    let inside = panel(frame, area, ("Nodes", None), &about, top);
    let several = vrrp.vips.len() > 1;
    let mut rows = Vec::new();
    for vip in &vrrp.vips {
        let of = if several {
            format!(" {}", escape(&vip.name))
        } else {
            String::new()
        };
        rows.push(own_row(top, vip, &of, looks));
        rows.extend(
            vip.peers
                .iter()
                .map(|peer| peer_row(top, vip, peer, &of, looks)),
        );
    }
    let table = Table::new(
        rows,
        [
            Constraint::Length(16),
            Constraint::Length(15),
            Constraint::Length(8),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(9),
            Constraint::Fill(1),
        ],
    );
    let names = [
        "NODE", "STATE", "PRIORITY", "SERVES", "CLIENTS", "VERSION", "HEARD",
    ];
    frame.render_widget(table.header(heads(&names, looks)), inside);
}

fn serves(can: bool, looks: &Looks) -> Cell<'static> {
    if can {
        Cell::from("yes").style(looks.good)
    } else {
        Cell::from("NO").style(looks.bad)
    }
}

fn own_row(top: &Top, vip: &VipStatus, of: &str, looks: &Looks) -> Row<'static> {
    let (word, look) = state_word(vip.state, looks);
    let process = &top.status.process;
    Row::new(vec![
        Cell::from(format!("{}{of}", own_name(top))).style(looks.strong),
        Cell::from(word).style(look),
        Cell::from(vip.effective_priority.to_string()),
        serves(top.status.not_ready().is_none(), looks),
        Cell::from(process.connections.to_string()),
        Cell::from(escape(&process.version)),
        Cell::from("this node"),
    ])
}

fn peer_row(
    top: &Top,
    vip: &VipStatus,
    peer: &PeerStatus,
    of: &str,
    looks: &Looks,
) -> Row<'static> {
    let address = peer.address.to_string();
    let channel = top
        .status
        .vrrp
        .as_ref()
        .and_then(|vrrp| vrrp.channel.as_ref());
    let told =
        channel.and_then(|channel| channel.nodes.iter().find(|node| node.address == address));
    let view = told
        .filter(|node| node.reachable)
        .and_then(|node| Some((node, node.routers.iter().find(|view| view.vip == vip.name)?)));
    let name = Cell::from(format!("{}{of}", peer_name(peer)));
    let ago = |ms: Option<u64>| {
        ms.map_or_else(
            || "never".to_owned(),
            |ms| format!("{} ago", short_time(ms)),
        )
    };
    let Some((node, view)) = view else {
        let silent = told.is_some_and(|node| node.heard_ms.is_some());
        let (word, look) = if vip.active == Some(peer.address) {
            state_word(VrrpState::Active, looks)
        } else if silent {
            ("SILENT", looks.bad)
        } else {
            ("–", Style::new())
        };
        let priority = peer
            .priority
            .map_or_else(|| "–".to_owned(), |priority| priority.to_string());
        let heard = told
            .and_then(|node| node.heard_ms)
            .or(peer.last_advert_age_ms);
        return Row::new(vec![
            name,
            Cell::from(word).style(look),
            Cell::from(priority),
            Cell::from("–"),
            Cell::from("–"),
            Cell::from("–"),
            Cell::from(ago(heard)),
        ]);
    };
    let (word, look) = state_word(view.state, looks);
    let heard = if view.unheard {
        Cell::from(format!("{}; DOES NOT HEAR US", ago(node.heard_ms))).style(looks.bad)
    } else {
        Cell::from(ago(node.heard_ms))
    };
    Row::new(vec![
        name,
        Cell::from(word).style(look),
        Cell::from(view.priority.to_string()),
        serves(node.can_serve, looks),
        Cell::from(node.clients.to_string()),
        Cell::from(escape(&node.version)),
        heard,
    ])
}

/// What happened, the newest on top.
pub(super) fn events(frame: &mut Frame<'_>, area: Rect, top: &Top, looks: &Looks) {
    if area.height == 0 {
        return;
    }
    let about = match top.back {
        0 => "newest first, UTC".to_owned(),
        back => format!("{back} newer ones above, UTC"),
    };
    let inside = panel(frame, area, ("Events", Some(Panel::Events)), &about, top);
    let shown = usize::from(inside.height);
    let lines = top.events.iter().rev().skip(top.back).take(shown);
    let text: Vec<Line<'_>> = lines.map(|event| event_line(event, looks)).collect();
    let text = if text.is_empty() {
        Text::from("nothing has happened yet")
    } else {
        Text::from(text)
    };
    frame.render_widget(Paragraph::new(text), inside);
}

fn event_line(event: &Event, looks: &Looks) -> Line<'static> {
    // `2026-11-22T15:25:09.123000Z`: the day is of no interest here, nor the microseconds.
    let time: String = wall_time(event.at_ms).chars().skip(11).take(8).collect();
    let mut text = format!(" {}", event.kind.name());
    for part in [&event.vip, &event.subject].into_iter().flatten() {
        text.push(' ');
        text.push_str(part);
    }
    if let (Some(from), Some(to)) = (&event.from, &event.to) {
        text.push_str(&format!(": {from} → {to}"));
    }
    if !event.reason.is_empty() {
        text.push_str(&format!(": {}", event.reason));
    }
    Line::from(vec![
        Span::styled(time, looks.faint),
        Span::raw(escape(&text)),
    ])
}
