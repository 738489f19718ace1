//! `lbd events`: what happened on this node and why, from its admin socket.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use super::reach::{FAILURE, Reach, complain};
use crate::admin::protocol::{AskError, ask_wanted_events};
use crate::ipc::event::{Event, EventKind, Wanted};
use crate::log::{escape, parse_wall_time, wall_time};
use crate::net::clock;

/// A follower tries this long to reach a daemon that went away: its proxy process may be replaced.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Each line: when, what kind, about what, from where to where, why; below it, behind `because`, what led
to it. Kinds: keeper, state (moves of a VIP), conflict, failover, peer, track, proxy, server (orders),
runner, notify, health, ejection, limit, discovery, reload, log.

Examples:
  lbd events                          the last 100
  lbd events -f                       go on with each further one
  lbd events --since 1h               of the last hour
  lbd events --kind state,failover    only why the VIP moved
  lbd events -o json | jq .reason

Exit codes: 0 done, 1 failure, 2 usage, 69 no daemon, 77 no permission, 78 unreadable configuration.";

/// Arguments of `lbd events`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EventsArgs {
    /// Go on with each further event as it happens
    #[arg(short, long)]
    follow: bool,
    /// How many of the past ones
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: u32,
    /// Only those of so long ago and later (`90s`, `10m`, `2h`, `1d`), or since a moment
    /// (`2026-11-22T15:25:09Z`)
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<u64>,
    /// Only these kinds, separated by commas
    #[arg(short, long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kind: Vec<EventKind>,
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
    let wanted = Wanted {
        since_ms: args.since,
        kinds: args.kind.clone(),
    };
    // One at least, to know from where on to follow.
    let mut lines = args.lines.max(1);
    let mut lost: Option<Instant> = None;
    loop {
        let mut unwritable = false;
        let asked = ask_wanted_events(&path, (lines, args.follow), &wanted, |events| {
            lost = None;
            // Behind a reconnection the past comes again.
            for event in events {
                let new = printed.is_none_or(|last| event.seq > last);
                let asked = args.lines > 0 || printed.is_some();
                if new && asked && wanted.matches(&event) {
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
        Output::Text => {
            let because = event.cause.as_deref();
            let because = because.map(|cause| format!("\n    because {}", escape(cause)));
            escape(&words(event)) + &because.unwrap_or_default()
        }
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

fn kind(text: &str) -> Result<EventKind, String> {
    EventKind::named(text).ok_or_else(|| {
        let names = EventKind::ALL.map(EventKind::name);
        format!("one of {}", names.join(", "))
    })
}

/// A moment, in milliseconds since 1970.
fn since(text: &str) -> Result<u64, String> {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
    let days = days.map(|days: u32| Duration::from_secs(u64::from(days) * 86_400));
    if let Some(age) = days.or_else(|| crate::config::plain_duration(text)) {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        return Ok(now.saturating_sub(age));
    }
    parse_wall_time(text).ok_or_else(|| {
        "so long ago, as `10m` or `2h`, or a moment, as `2026-11-22T15:25:09Z`".into()
    })
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
            cause: None,
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
    fn what_led_to_it_stands_below() {
        let moved = Event {
            cause: Some("kube/a up → down (re\nfused)".into()),
            ..event()
        };
        let expected = "2026-11-22T15:25:09.123000Z track kube script:check: ok → failed (exit code 3)\n    \
                        because kube/a up → down (re\\nfused)\n";
        assert_eq!(line(&moved, Output::Text), expected);
    }

    #[test]
    fn a_moment_is_a_span_or_a_time() {
        assert_eq!(since("2026-11-22T15:25:09Z"), Ok(1_795_361_109_000));
        assert_eq!(since("2026-11-22T15:25:09.5Z"), Ok(1_795_361_109_500));
        let ago = |text| {
            let now = since("0s").unwrap();
            now - since(text).unwrap()
        };
        assert!((599_000..=600_000).contains(&ago("10m")));
        assert!((86_399_000..=86_400_000).contains(&ago("1d")));
        assert!(since("10").is_err());
        assert!(since("yesterday").is_err());
        assert!(
            kind("weather")
                .unwrap_err()
                .starts_with("one of keeper, state")
        );
    }

    #[test]
    fn programs_get_every_field() {
        let expected = "{\"seq\":7,\"at_ms\":1795361109123,\"kind\":\"track\",\"vip\":\"kube\",\
            \"subject\":\"script:check\",\"from\":\"ok\",\"to\":\"failed\",\"reason\":\"exit code 3\",\"cause\":null}\n";
        assert_eq!(line(&event(), Output::Json), expected);
    }
}
