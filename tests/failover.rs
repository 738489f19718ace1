//! What a client sees when something happens to the active node: lbd beside keepalived + HAProxy
//! with the users' own files, on the same wire, one after the other. `tests/failover --runs 5`.

#![expect(clippy::print_stdout, reason = "a program that prints a table")]

#[path = "lab/mod.rs"]
mod lab;

use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use lab::peers::{Version, installed};
use lab::{LB1, LB2, Pair, Role};
use lbd::net::clock;
use lbd::net::netns::sandbox::{self, Sandbox};
use nix::sys::signal::Signal;

/// How long an outage is watched before it counts as one that never ends.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy)]
enum Event {
    Signal(Role, Signal),
    /// `kill -9` of the VRRP daemon, which a service manager starts again after 100 ms.
    KeeperRestarted,
    LinkDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stack {
    Lbd,
    Keepalived,
}

const EVENTS: [(&str, Event); 9] = [
    (
        "planned leave: SIGTERM",
        Event::Signal(Role::Keeper, Signal::SIGTERM),
    ),
    (
        "proxy: kill -9",
        Event::Signal(Role::Proxy, Signal::SIGKILL),
    ),
    (
        "keeper: kill -9",
        Event::Signal(Role::Keeper, Signal::SIGKILL),
    ),
    ("keeper: kill -9, restarted", Event::KeeperRestarted),
    ("both: kill -9", Event::Signal(Role::All, Signal::SIGKILL)),
    (
        "proxy: SIGSTOP",
        Event::Signal(Role::Proxy, Signal::SIGSTOP),
    ),
    (
        "keeper: SIGSTOP",
        Event::Signal(Role::Keeper, Signal::SIGSTOP),
    ),
    ("both: SIGSTOP", Event::Signal(Role::All, Signal::SIGSTOP)),
    ("link down", Event::LinkDown),
];

/// What one run showed.
#[derive(Debug, Clone)]
struct Seen {
    /// The client's gap; `None`: it never ended.
    gap: Option<Duration>,
    refused: usize,
    failed: usize,
    lost: usize,
    /// How long the old node kept the address; `None`: it has it at the end.
    kept: Option<Duration>,
    /// How long two nodes had it; `None`: they still had when we stopped looking.
    double: Option<Duration>,
}

fn main() -> ExitCode {
    match sandbox::enter() {
        Ok(Sandbox::Inside(_)) => {}
        Ok(Sandbox::Ended(code)) => return code.into(),
        Err(error) => {
            println!("failover: {error}");
            return ExitCode::FAILURE;
        }
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let runs = value("--runs")
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(3);
    let only = value("--only").unwrap_or_default();
    let stack = value("--stack").unwrap_or_default();
    let mut stacks = vec![Stack::Lbd, Stack::Keepalived];
    if !installed("keepalived") || !installed("haproxy") {
        println!("keepalived or haproxy is not installed: lbd alone is measured");
        stacks.truncate(1);
    }
    stacks.retain(|found| stack.is_empty() || format!("{found:?}").to_lowercase() == stack);
    println!(
        "VRRPv2, an advert each second; a new TLS connection each 5 ms; medians of {runs}, the lower where even"
    );
    println!(
        "{:<27} {:<12} {:>9} {:>8} {:>7} {:>5} {:>14} {:>12}   gaps",
        "event", "stack", "gap", "refused", "failed", "lost", "old node kept", "two holders"
    );
    for (name, event) in EVENTS.iter().filter(|(name, _)| name.contains(&only)) {
        let mut seen = vec![Vec::new(); stacks.len()];
        for _ in 0..runs {
            for (stack, seen) in stacks.iter().zip(&mut seen) {
                seen.push(measure(*stack, *event));
            }
        }
        for (stack, seen) in stacks.iter().zip(seen) {
            print_row(name, *stack, &seen);
        }
    }
    ExitCode::SUCCESS
}

fn measure(stack: Stack, event: Event) -> Seen {
    // lbd's own default: preempt after 10 s.
    let settings = lab::SEED.replace("preempt = true\n", "");
    let mut pair = match stack {
        Stack::Lbd => Pair::of_lbd(&lab::config(&settings)),
        Stack::Keepalived => {
            let mut pair = Pair::new();
            for node in [LB2, LB1] {
                pair.start_haproxy(node);
                pair.start_keepalived(node, Version::V2);
            }
            pair.settle();
            pair
        }
    };
    // Not always at the same point of the advert interval.
    let phase = clock::wall()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::from(now.subsec_micros() % 997));
    std::thread::sleep(Duration::from_millis(500 + phase));
    let at = match event {
        Event::Signal(role, signal) => pair.signal(LB2, role, signal),
        Event::KeeperRestarted => {
            let at = pair.signal(LB2, Role::Keeper, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(100));
            // Waited for, as a service manager does.
            pair.ended(LB2);
            match stack {
                Stack::Lbd => pair.start_lbd(LB2, &lab::config(&settings)),
                Stack::Keepalived => pair.start_keepalived(LB2, Version::V2),
            }
            at
        }
        Event::LinkDown => pair.plug(LB2, false),
    };
    let served_again = wait_for_recovery(&pair, at);
    let now = clock::now();
    let until = served_again.unwrap_or(now);
    let counts = pair.client().tally(|tally| tally.counts(at, until));
    let kept = pair.held_after(LB2, at);
    Seen {
        gap: served_again.map(|_| pair.gap(at)),
        refused: counts.refused,
        failed: counts.failed(),
        lost: pair.client().tally(|tally| tally.lost_since(at)),
        kept: (!pair.holds(LB2)).then_some(kept),
        double: (!(pair.holds(LB1) && pair.holds(LB2))).then(|| pair.double(at)),
    }
}

/// When the client had been served for 800 ms without a failure (and the address had had time to
/// vanish); `None` when that never came.
fn wait_for_recovery(pair: &Pair, at: Instant) -> Option<Instant> {
    let quiet = Duration::from_millis(800);
    let least = at + Duration::from_millis(4500);
    loop {
        let now = clock::now();
        let counts = pair.client().tally(|tally| tally.counts(now - quiet, now));
        if counts.failed() == 0 && counts.served > 40 && now > least {
            return Some(now);
        }
        if now > at + PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn print_row(name: &str, stack: Stack, seen: &[Seen]) {
    let show = |duration: Option<Duration>| {
        duration.map_or("never ends".to_owned(), |it| {
            format!("{} ms", it.as_millis())
        })
    };
    let never = Duration::MAX;
    let finite = |duration: Duration| (duration != never).then_some(duration);
    let for_ever = |duration: Duration| {
        finite(duration).map_or("for ever".to_owned(), |it| format!("{} ms", it.as_millis()))
    };
    let gap = median(seen.iter().map(|one| one.gap.unwrap_or(never)));
    let kept = median(seen.iter().map(|one| one.kept.unwrap_or(never)));
    let double = median(seen.iter().map(|one| one.double.unwrap_or(never)));
    let gaps: Vec<String> = seen.iter().map(|one| show(one.gap)).collect();
    println!(
        "{name:<27} {:<12} {:>9} {:>8} {:>7} {:>5} {:>14} {:>12}   {}",
        match stack {
            Stack::Lbd => "lbd",
            Stack::Keepalived => "ka+haproxy",
        },
        show(finite(gap)),
        median(seen.iter().map(|one| one.refused)),
        median(seen.iter().map(|one| one.failed)),
        median(seen.iter().map(|one| one.lost)),
        finite(kept).map_or_else(
            || if double == never { "for ever" } else { "stays" }.to_owned(),
            |it| format!("{} ms", it.as_millis())
        ),
        for_ever(double),
        gaps.join(", ")
    );
}

fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.swap_remove((values.len() - 1) / 2)
}
