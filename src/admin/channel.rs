//! The peer channel as text for people: a part of the table. Pure.

use super::status::short_time;
use super::table::{push_columns, push_line, reasons, row};
use crate::ipc::message::{ChannelStatus, VrrpState};

/// What the other nodes say of themselves, and what was not believed.
pub(super) fn channel(out: &mut String, channel: &ChannelStatus) {
    let keys = match channel.keys {
        1 => "1 key".to_owned(),
        n => format!("{n} keys"),
    };
    push_line(
        out,
        &format!(
            "PEERS  {keys}  clients shared {}  clients woken {}",
            channel.clients, channel.tickles
        ),
    );
    if let Some(fault) = &channel.fault {
        push_line(out, &format!("  OUT OF ORDER: {fault}"));
    }
    let header = [
        "NODE", "HEARD", "VERSION", "SERVES", "CLIENTS", "VIP", "STATE", "PRIORITY", "HEARS US",
    ];
    let mut rows = vec![row(&header)];
    for node in &channel.nodes {
        let heard = match (node.reachable, node.heard_ms) {
            (_, None) => "never".to_owned(),
            (true, Some(ms)) => format!("{} ago", short_time(ms)),
            (false, Some(ms)) => format!("SILENT for {}", short_time(ms)),
        };
        let own = [
            node.name.clone(),
            heard,
            node.version.clone(),
            if node.can_serve { "yes" } else { "no" }.to_owned(),
            node.clients.to_string(),
        ];
        if node.routers.is_empty() {
            rows.push(own.to_vec());
        }
        rows.extend(node.routers.iter().map(|view| {
            let hears = match (view.unheard, view.state) {
                (true, _) => format!("NO, for {}", short_time(view.silence_ms)),
                (false, VrrpState::Initialize) => "–".to_owned(),
                (false, VrrpState::Backup | VrrpState::Active | VrrpState::Leaving) => {
                    format!("{} ago", short_time(view.silence_ms))
                }
            };
            let about = [
                view.vip.clone(),
                word(view.state).to_owned(),
                view.priority.to_string(),
                hears,
            ];
            own.iter().cloned().chain(about).collect()
        }));
    }
    push_columns(out, &rows);
    let reasons = reasons(&channel.rejected);
    if !reasons.is_empty() {
        push_line(
            out,
            &format!("  messages not believed: {}", reasons.join(", ")),
        );
    }
}

fn word(state: VrrpState) -> &'static str {
    match state {
        VrrpState::Initialize => "initialize",
        VrrpState::Backup => "backup",
        VrrpState::Active => "active",
        VrrpState::Leaving => "leaving",
    }
}
