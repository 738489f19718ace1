//! The panel of servers: those of all proxies, in the order chosen. Pure.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use super::draw::{Looks, panel};
use super::panels::{heads, skipped};
use super::rates::{Counter, Of, curve, short_rate};
use super::state::{Panel, Top};
use crate::admin::status::{ProxyStatus, ServerState, ServerStatus, short_bytes, short_time};
use crate::log::escape;

/// From this width on there is room for reasons and a long curve.
const WIDE: u16 = 110;

/// What stands in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Address,
    State,
    Since,
    Connections,
    New,
    BytesIn,
    BytesOut,
    Trend,
}

const COLUMNS: [Column; 9] = [
    Column::Name,
    Column::Address,
    Column::State,
    Column::Since,
    Column::Connections,
    Column::New,
    Column::BytesIn,
    Column::BytesOut,
    Column::Trend,
];

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Self::Name => "SERVER",
            Self::Address => "ADDRESS",
            Self::State => "STATE",
            Self::Since => "FOR",
            Self::Connections => "CONNS",
            Self::New => "NEW/S",
            Self::BytesIn => "IN/S",
            Self::BytesOut => "OUT/S",
            Self::Trend => "TREND",
        }
    }

    /// Its width on a terminal of this width; `None`: no room.
    fn width(self, terminal: u16) -> Option<Constraint> {
        let wide = terminal >= WIDE;
        Some(match self {
            Self::Name => Constraint::Fill(1),
            Self::Address if wide => Constraint::Length(20),
            Self::BytesIn if terminal < 90 => return None,
            Self::Address => return None,
            Self::State => Constraint::Length(if wide { 22 } else { 9 }),
            Self::Since => Constraint::Length(6),
            Self::Connections | Self::BytesIn | Self::BytesOut => Constraint::Length(9),
            Self::New => Constraint::Length(5),
            Self::Trend => Constraint::Length(if wide { 20 } else { 10 }),
        })
    }
}

/// A server and its proxy, and what its curve is drawn of.
struct Shown<'a> {
    proxy: &'a ProxyStatus,
    server: &'a ServerStatus,
    curve: Vec<u64>,
}

/// Draws them.
pub(super) fn servers(frame: &mut Frame<'_>, area: Rect, top: &Top, looks: &Looks) {
    let servers = top.servers();
    let up = servers.iter();
    let up = up.filter(|(_, server)| server.state == ServerState::Up);
    let queue: u64 = top.status.proxies.iter().map(|proxy| proxy.queue).sum();
    let waiting = if queue > 0 {
        format!("  {queue} WAIT")
    } else {
        String::new()
    };
    let about = format!(
        "{} of {} up{waiting}  sorted by {}",
        up.count(),
        servers.len(),
        top.sort.word()
    );
    let inside = panel(frame, area, ("Servers", Some(Panel::Servers)), &about, top);
    let [list, detail] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(inside);
    let chosen = top.chosen_server();
    let room = usize::from(list.height).saturating_sub(1);
    let points = if area.width >= WIDE { 20 } else { 10 };
    let all: Vec<Shown<'_>> = servers
        .iter()
        .map(|(proxy, server)| Shown {
            proxy,
            server,
            curve: top.rates.recent(&connections(proxy, server), points),
        })
        .collect();
    let curves = all.iter().flat_map(|one| &one.curve);
    let highest = curves.copied().max().unwrap_or_default();
    let hidden = skipped(chosen, all.len(), room);
    let columns = || {
        let columns = COLUMNS.iter();
        columns.filter_map(|column| Some((*column, column.width(area.width)?)))
    };
    let rows = all.iter().enumerate().skip(hidden).take(room);
    let rows = rows.map(|(at, shown)| {
        let cells = columns().map(|(column, _)| cell(column, top, shown, highest, looks));
        let row = Row::new(cells.collect::<Vec<_>>());
        if at == chosen && top.panel == Panel::Servers {
            row.style(looks.chosen)
        } else {
            row
        }
    });
    let names: Vec<&str> = columns().map(|(column, _)| column.name()).collect();
    let table = Table::new(rows, columns().map(|(_, width)| width));
    frame.render_widget(table.header(heads(&names, looks)), list);
    if let Some(shown) = all.get(chosen) {
        frame.render_widget(about_server(shown.server, looks), detail);
    }
}

fn connections(proxy: &ProxyStatus, server: &ServerStatus) -> Counter {
    Counter::of_server(&proxy.name, &server.name, Of::Connections)
}

fn cell(
    column: Column,
    top: &Top,
    shown: &Shown<'_>,
    highest: u64,
    looks: &Looks,
) -> Cell<'static> {
    let (proxy, server) = (shown.proxy, shown.server);
    let bytes = |of| {
        let counter = Counter::of_server(&proxy.name, &server.name, of);
        let tenths = top.rates.last(&counter);
        tenths.map_or_else(|| "–".to_owned(), |tenths| short_bytes(tenths / 10))
    };
    match column {
        Column::Name if top.status.proxies.len() > 1 => {
            Cell::from(escape(&format!("{}/{}", proxy.name, server.name)))
        }
        Column::Name => Cell::from(escape(&server.name)),
        Column::Address => Cell::from(escape(&server.address)),
        Column::State => {
            let (word, look) = state(server, looks);
            Cell::from(word).style(look)
        }
        Column::Since => Cell::from(short_time(server.since_ms)),
        Column::Connections => {
            let limit = server.max_connections;
            let limit = limit.map_or_else(String::new, |max| format!("/{max}"));
            Cell::from(format!("{}{limit}", server.connections))
        }
        Column::New => Cell::from(short_rate(top.rates.last(&connections(proxy, server)))),
        Column::BytesIn => Cell::from(bytes(Of::BytesIn)),
        Column::BytesOut => Cell::from(bytes(Of::BytesOut)),
        Column::Trend => Cell::from(curve(&shown.curve, highest)),
    }
}

/// In a word; the reasons stand under the table.
fn state(server: &ServerStatus, looks: &Looks) -> (&'static str, Style) {
    match server.state {
        ServerState::Up if server.standing.held_back().is_some() => ("held back", looks.warn),
        ServerState::Up if server.ramp_ms.is_some() => ("slowstart", looks.good),
        ServerState::Up => ("up", looks.good),
        ServerState::Down => ("DOWN", looks.bad),
        ServerState::Unknown | ServerState::Drain | ServerState::Maint => {
            (server.state.word(), looks.warn)
        }
    }
}

/// What the table has no room for, about the chosen one.
fn about_server(server: &ServerStatus, looks: &Looks) -> Line<'static> {
    let check = match (&server.reason, server.check_micros) {
        (Some(reason), _) => escape(reason),
        (None, Some(micros)) => format!("ok in {}.{}ms", micros / 1_000, micros % 1_000 / 100),
        (None, None) => "none yet".to_owned(),
    };
    let held = server.standing.held_back();
    let held = held.map_or_else(String::new, |why| format!("  {why}"));
    let errors = server.connect_errors + server.connect_timeouts + server.aborts;
    let text = format!(
        "› {}  weight {}  errors {errors}  check: {check}{held}",
        escape(&server.address),
        server.weight,
    );
    Line::styled(text, looks.faint)
}
