//! `lbd events`: what happened on this node and why, from its admin socket.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::reach::{FAILURE, Reach, complain};
use crate::admin::protocol::{AskError, ask_events};
use crate::ipc::event::Event;
use crate::log::{escape, wall_time};
use crate::net::clock;

/// A follower tries this long to reach a daemon that went away: its proxy process may be replaced.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `lbd events`.
#[derive(Debug, Clone, Args)]
pub(super) struct EventsArgs {
    /// Go on with each further event as it happens
    #[arg(short, long)]
    follow: bool,
    /// How many of the past ones
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: u32,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The daemon's admin socket [default: as for `lbd status`]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The daemon's configuration [default: /etc/lbd/lb.toml, if it can be read]
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people: one line each
    Text,
    /// For programs: one JSON object a line; the format is stable
    Json,
}

/// Asks and prints. Exit codes: 0, 1, 69 (nobody answers) or 77 (not allowed).
#[must_use]
pub(super) fn run(args: &EventsArgs) -> u8 {
    let reach = Reach::new(args.socket.clone(), args.config.clone());
    let path = match reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let mut printed: Option<u64> = None;
    // One at least, to know from where on to follow.
    let mut lines = args.lines.max(1);
    let mut lost: Option<Instant> = None;
    loop {
        let mut unwritable = false;
        let asked = ask_events(&path, lines, args.follow, |events| {
            lost = None;
            // Behind a reconnection the past comes again.
            for event in events {
                let new = printed.is_none_or(|last| event.seq > last);
                let wanted = args.lines > 0 || printed.is_some();
                if new && wanted {
                    unwritable |= super::out(&line(&event, args.output)).is_err();
                }
                printed = printed.max(Some(event.seq));
            }
            !unwritable
        });
        if unwritable {
            return FAILURE;
        }
        let error = match asked {
            Ok(()) if !args.follow => return 0,
            Ok(()) => None,
            Err(error @ (AskError::Unreachable { .. } | AskError::Broken { .. })) => Some(error),
            Err(error) => return complain("lbd events", &error),
        };
        let now = clock::now();
        let since = *lost.get_or_insert(now);
        let started = printed.is_some();
        let patient = args.follow && started && now.saturating_duration_since(since) < PATIENCE;
        match error {
            Some(error) if !patient => return complain("lbd events", &error),
            Some(_) | None => thread::sleep(TRY_EVERY),
        }
        lines = u32::MAX;
    }
}

fn line(event: &Event, output: Output) -> String {
    let text = match output {
        Output::Json => serde_json::to_string(event).unwrap_or_default(),
        Output::Text => escape(&words(event)),
    };
    text + "\n"
}

/// `2026-11-22T15:25:09.123000Z state kube: backup → active (the active node fell silent)`.
fn words(event: &Event) -> String {
    let mut text = format!("{} {}", wall_time(event.at_ms), event.kind.name());
    for part in [&event.vip, &event.subject].into_iter().flatten() {
        text.push(' ');
        text.push_str(part);
    }
    text.push(':');
    if let (Some(from), Some(to)) = (&event.from, &event.to) {
        text.push_str(&format!(" {from} → {to}"));
        if !event.reason.is_empty() {
            text.push_str(&format!(" ({})", event.reason));
        }
    } else {
        text.push(' ');
        text.push_str(&event.reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::event::EventKind;

    fn event() -> Event {
        Event {
            seq: 7,
            at_ms: 1_795_361_109_123,
            kind: EventKind::Track,
            vip: Some("kube".into()),
            subject: Some("script:check".into()),
            from: Some("ok".into()),
            to: Some("failed".into()),
            reason: "exit code 3".into(),
        }
    }

    #[test]
    fn a_change_reads_as_one_line() {
        let expected =
            "2026-11-22T15:25:09.123000Z track kube script:check: ok → failed (exit code 3)\n";
        assert_eq!(line(&event(), Output::Text), expected);
        let stopping = Event {
            kind: EventKind::Keeper,
            vip: None,
            subject: None,
            from: None,
            to: None,
            reason: "stop\nping".into(),
            ..event()
        };
        let expected = "2026-11-22T15:25:09.123000Z keeper: stop\\nping\n";
        assert_eq!(line(&stopping, Output::Text), expected);
    }

    #[test]
    fn programs_get_every_field() {
        let expected = "{\"seq\":7,\"at_ms\":1795361109123,\"kind\":\"track\",\"vip\":\"kube\",\
            \"subject\":\"script:check\",\"from\":\"ok\",\"to\":\"failed\",\"reason\":\"exit code 3\"}\n";
        assert_eq!(line(&event(), Output::Json), expected);
    }
}
