//! The driver of one server's check: wait for the deadline, probe, decide, hand the finding on.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::fsm::{Change, Health, State};
use super::late::{Excuses, First, Lateness};
use super::probe::{Probe, Report, Verdict};
use super::recorded::RecordedMachine;
use super::spread::Spread;
use crate::net::clock;

/// However often it is woken: between the end of a probe and the next.
const HURRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a probe says nothing.
const NO_CPU: &str = "this process got no processor time";

/// From where all servers of this process count their turns.
static BEGINNING: LazyLock<Instant> = LazyLock::new(clock::now);

/// A server to watch.
#[derive(Debug)]
pub struct Target {
    /// Position of the proxy in the file.
    pub proxy: usize,
    /// Position of the server in the proxy.
    pub server: usize,
    /// Name of the proxy.
    pub proxy_name: String,
    /// Name of the server.
    pub server_name: String,
    /// How it is probed.
    pub probe: Probe,
    /// Its rise/fall machine, perhaps with a restored verdict.
    pub machine: RecordedMachine,
    /// Wakes the task for a probe before its deadline.
    pub hurry: Arc<Notify>,
}

/// What one probe brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Position of the proxy in the file.
    pub proxy: usize,
    /// Position of the server in the proxy.
    pub server: usize,
    /// What the probe found.
    pub verdict: Verdict,
    /// How the server is, by the rules, with this result counted.
    pub health: Health,
    /// The counter after it: results in a row, and how many of them turn the verdict.
    pub counter: (u16, u16),
    /// Whether the verdict changed.
    pub change: Option<Change>,
    /// When the probe began.
    pub started: Instant,
    /// When it was finished.
    pub finished: Instant,
}

/// How much the server with this number of `total` takes off its first interval, so that servers
/// that were all probed at the start don't go on in step.
#[must_use]
pub fn stagger(interval: Duration, number: usize, total: usize) -> Duration {
    let (number, total) = (u32::try_from(number), u32::try_from(total.max(1)));
    match (number, total) {
        (Ok(number), Ok(total)) => interval / 2 * number.min(total) / total,
        (Err(_), _) | (_, Err(_)) => Duration::ZERO,
    }
}

/// Watches one server until nobody listens to `findings` any more. When that channel is full the
/// next probe waits: the reader is the control loop, and a verdict may be late but not lost.
pub async fn watch(target: Target, findings: mpsc::Sender<Finding>) {
    let mut warned = false;
    let mut verdict_since = clock::now();
    let mut excuses = Excuses::default();
    let (proxy, server) = (target.proxy, target.server);
    let seed = RandomState::new().hash_one((proxy, server));
    let mut spread = Spread::new(*BEGINNING, proxy, server, seed);
    let mut begin = target.machine.deadline();
    let mut not_before = begin;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(begin.into()) => {}
            () = target.hurry.notified() => {
                tokio::time::sleep_until(begin.min(not_before).into()).await;
            }
        }
        let started = clock::now();
        let (report, lateness) = probe_once(&target.probe, started).await;
        let finished = clock::now();
        say_done(
            &target,
            &report,
            finished.saturating_duration_since(started),
        );
        // Of a server that nothing is known of, a failure is better than no word.
        let spoiled = !report.verdict.is_ready()
            && target.machine.state() != State::Unknown
            && lateness.spoils(started, finished, target.probe.timeout());
        if spoiled && let Some(First(first)) = excuses.accept(finished) {
            if first {
                say_excused(&target);
            }
            target.machine.skip(NO_CPU, finished);
            begin = spread.begin(target.machine.deadline(), finished);
            not_before = finished + HURRY_PAUSE;
            continue;
        }
        if !spoiled {
            excuses.over();
        }
        if report.unauthorized && !warned {
            say_unauthorized(&target);
        }
        warned = report.unauthorized || warned && !report.verdict.is_ready();
        let found = report.verdict.health();
        let because = report.verdict.reason();
        let machine = &target.machine;
        let change = machine.on_result(found, because, started, finished);
        if let Some(change) = change {
            let elapsed = finished.saturating_duration_since(verdict_since);
            verdict_since = finished;
            say(&target, change, &report.verdict, elapsed);
        }
        begin = spread.begin(target.machine.deadline(), finished);
        not_before = finished + HURRY_PAUSE;
        let finding = Finding {
            proxy: target.proxy,
            server: target.server,
            health: target.machine.state().health().unwrap_or(found),
            counter: target.machine.counter(),
            verdict: report.verdict,
            change,
            started,
            finished,
        };
        if findings.send(finding).await.is_err() {
            return;
        }
    }
}

/// Probes, and measures meanwhile how late this process is.
async fn probe_once(probe: &Probe, started: Instant) -> (Report, Lateness) {
    let mut lateness = Lateness::new(started, probe.timeout());
    let mut run = pin!(probe.run());
    loop {
        tokio::select! {
            biased;
            report = &mut run => return (report, lateness),
            () = tokio::time::sleep_until(lateness.due().into()) => lateness.beat(clock::now()),
        }
    }
}

fn say_excused(target: &Target) {
    let (proxy, server) = (&target.proxy_name, &target.server_name);
    tracing::warn!(
        proxy,
        server,
        reason = NO_CPU,
        "check timed out, not counted"
    );
}

fn say_unauthorized(target: &Target) {
    let reason = if target.probe.has_credentials() {
        "401 or 403, the check's credentials are refused"
    } else {
        "401 or 403 without credentials"
    };
    tracing::warn!(
        proxy = target.proxy_name,
        server = target.server_name,
        reason,
        "check is not authorized, counted as ready"
    );
}

/// One line per check, for those who look closely.
fn say_done(target: &Target, report: &Report, elapsed: Duration) {
    let (proxy, server) = (&target.proxy_name, &target.server_name);
    let reason = report.verdict.reason().unwrap_or("ready");
    let elapsed_ms = elapsed.as_millis();
    tracing::debug!(proxy, server, reason, elapsed_ms, "server checked");
}

/// One line per transition; `elapsed_ms` is the time it spent in the state it leaves.
fn say(target: &Target, change: Change, verdict: &Verdict, elapsed: Duration) {
    let (proxy, server) = (&target.proxy_name, &target.server_name);
    let from = word(change.from);
    let elapsed_ms = elapsed.as_millis();
    let reason = verdict.reason().unwrap_or("unknown");
    match (change.from, change.to) {
        (_, State::UP) => {
            tracing::info!(proxy, server, from, elapsed_ms, "server up");
        }
        (State::UP | State::Unknown, State::Known(down)) => {
            let to = down.word();
            tracing::warn!(proxy, server, from, to, reason, elapsed_ms, "server down");
        }
        (State::Known(_), State::Known(Health::Unresponsive)) => {
            tracing::warn!(
                proxy,
                server,
                from,
                reason,
                elapsed_ms,
                "server unresponsive"
            );
        }
        // On its way up: that will be told.
        (_, State::Known(_) | State::Unknown) if verdict.is_ready() => {}
        (_, State::Known(_) | State::Unknown) => {
            tracing::info!(proxy, server, from, elapsed_ms, "server alive, not ready");
        }
    }
}

const fn word(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::UP => "up",
        State::Known(health) => health.word(),
    }
}
