//! 300 new connections a second over three servers and thirty established ones, and something
//! happens to the second server.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::signal::Signal;

use super::lab::noise::Noise;

use super::client::{Attempt, Clients, Habits, Held, PATIENCE};
use super::place::{LB1, PORT, Place};
use super::targets::{Running, Target, Wish};

/// The server it happens to.
const BAD: usize = 1;
const RATE: u32 = 300;
const HELD: usize = 30;
/// The guide's `inter`, and a little.
const GUIDE_INTERVAL: Duration = Duration::from_secs(11);
/// How long everybody is served before it happens.
const CALM: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Refused,
    BlackHole,
    Stopped,
    Resets,
    Restarts,
    SlowAccept,
    NotReady,
    ReadyHangs,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::BlackHole,
        Self::Stopped,
        Self::Resets,
        Self::Restarts,
        Self::SlowAccept,
        Self::NotReady,
        Self::ReadyHangs,
    ];

    /// The word that `--only` takes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::BlackHole => "black-hole",
            Self::Stopped => "stopped",
            Self::Resets => "resets",
            Self::Restarts => "restarts",
            Self::SlowAccept => "slow-accept",
            Self::NotReady => "not-ready",
            Self::ReadyHangs => "ready-hangs",
        }
    }

    /// What the table says.
    pub fn title(self) -> &'static str {
        match self {
            Self::Refused => "killed: connections are refused",
            Self::BlackHole => "vanishes: black hole",
            Self::Stopped => "SIGSTOP: accepts, never answers",
            Self::Resets => "resets each connection after accept",
            Self::Restarts => "killed and started again, each second",
            Self::SlowAccept => "accepts 20/s from a backlog of 8",
            Self::NotReady => "/readyz says 500",
            Self::ReadyHangs => "/readyz hangs",
        }
    }

    /// Whether a check that only connects can fail.
    fn is_seen_by_connects(self) -> bool {
        match self {
            Self::Refused | Self::BlackHole | Self::Restarts => true,
            Self::Stopped | Self::Resets | Self::SlowAccept | Self::NotReady | Self::ReadyHangs => {
                false
            }
        }
    }

    /// How long it is looked at: long enough for the guide's checks where they notice at all.
    pub fn window(self) -> Duration {
        Duration::from_secs(match self {
            Self::Refused => 18,
            Self::BlackHole => 30,
            Self::Stopped | Self::Resets | Self::Restarts => 8,
            Self::SlowAccept | Self::NotReady | Self::ReadyHangs => 8,
        })
    }
}

/// What one run showed.
#[derive(Debug, Clone)]
pub struct Seen {
    pub attempts: usize,
    pub lost: usize,
    pub slowest: Duration,
    /// Of those that were not lost: one that was under way when the server died is told late.
    pub slowest_served: Duration,
    pub p99: Duration,
    /// The slowest one before anything happened.
    pub calm: Duration,
    /// How much longer than alone on the machine things took: `Noise::since`.
    pub busy: u32,
    /// Until the bad server was marked down.
    pub marked: Option<Duration>,
    /// Until the last established client of the bad server was told; `None`: not all were.
    pub told: Option<Duration>,
    /// Established clients of the bad server, and those who were told.
    pub held: usize,
    pub told_count: usize,
    /// Established clients of the good servers who lost their connections.
    pub innocent: usize,
    /// How the lost ones ended, for people who look for the reason.
    pub endings: String,
}

/// One run.
pub fn measure(target: Target, fault: Fault, window: Duration) -> Seen {
    let mut place = Place::new(1);
    let running = Running::start(&place.nodes[0], target, &Wish::default());
    if target == Target::Seed && fault.is_seen_by_connects() {
        // Until each server was checked once, one failed check is enough.
        thread::sleep(GUIDE_INTERVAL);
    }
    let habits = Habits {
        target: SocketAddr::new(LB1.into(), PORT),
        rate: RATE,
        held: HELD,
    };
    let clients = Clients::start(&place.client, habits);
    let noise = Noise::start();
    let begun = clock::now();
    let end = begun + PATIENCE;
    while clients.look(|record| record.held.len() < HELD) {
        assert!(clock::now() < end, "no {HELD} established clients");
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(CALM);
    let at = clock::now();
    provoke(&mut place, fault, at + window);
    thread::sleep((at + window).saturating_duration_since(clock::now()));
    let over = clock::now();
    let record = clients.finish();
    let marked = running.first_down(BAD, at).map(|down| down - at);
    let mut seen = judge(&record.attempts, &record.held, at, over);
    seen.marked = marked;
    seen.busy = noise.since(at);
    seen
}

fn provoke(place: &mut Place, fault: Fault, until: Instant) {
    let bad = &mut place.servers[BAD];
    match fault {
        Fault::Refused => bad.kill(),
        Fault::BlackHole => place.black_hole(BAD, true),
        Fault::Stopped => bad.signal(Signal::SIGSTOP),
        Fault::Resets => bad.order("accept reset"),
        Fault::SlowAccept => bad.order("accept slow"),
        Fault::NotReady => bad.order("readyz fails"),
        Fault::ReadyHangs => bad.order("readyz hangs"),
        Fault::Restarts => {
            let half = Duration::from_millis(500);
            while clock::now() + half * 2 < until {
                bad.kill();
                thread::sleep(half);
                bad.start();
                thread::sleep(half);
            }
        }
    }
}

fn judge(attempts: &[Attempt], held: &[Held], at: Instant, over: Instant) -> Seen {
    let before = attempts.iter().filter(|attempt| attempt.ended < at);
    let calm = before.map(Attempt::took).max().unwrap_or_default();
    let within: Vec<&Attempt> = attempts
        .iter()
        .filter(|attempt| attempt.ended >= at && attempt.started < over)
        .collect();
    let mut took: Vec<Duration> = within.iter().map(|attempt| attempt.took()).collect();
    took.sort_unstable();
    let served = within.iter().filter(|attempt| !attempt.is_lost());
    let slowest_served = served.map(|attempt| attempt.took()).max();
    let lost: Vec<&&Attempt> = within.iter().filter(|attempt| attempt.is_lost()).collect();
    let established = held.iter().filter(|held| held.since < at);
    let established = established.filter(|held| held.told.is_none_or(|told| told >= at));
    let (bad, good): (Vec<&Held>, Vec<&Held>) = established.partition(|held| held.server == BAD);
    let in_time = |held: &&Held| held.told.filter(|told| *told < over);
    let told: Vec<Duration> = bad
        .iter()
        .filter_map(in_time)
        .map(|told| told - at)
        .collect();
    Seen {
        attempts: within.len(),
        lost: lost.len(),
        slowest: took.last().copied().unwrap_or_default(),
        slowest_served: slowest_served.unwrap_or_default(),
        p99: took
            .get(took.len().saturating_sub(1) * 99 / 100)
            .copied()
            .unwrap_or_default(),
        calm,
        busy: 100,
        marked: None,
        told: (told.len() == bad.len())
            .then(|| told.iter().max().copied())
            .flatten(),
        held: bad.len(),
        told_count: told.len(),
        innocent: good.iter().filter_map(in_time).count(),
        endings: endings(&lost),
    }
}

fn endings(lost: &[&&Attempt]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for attempt in lost {
        *counts.entry(format!("{:?}", attempt.outcome)).or_insert(0) += 1;
    }
    let counts = counts
        .iter()
        .map(|(ending, count)| format!("{count} {ending}"));
    counts.collect::<Vec<String>>().join(", ")
}
