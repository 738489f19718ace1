//! The real thing: three members of etcd by TLS, watches and puts by etcdctl through the load
//! balancer, while members are stopped, killed and started again.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::signal::Signal;

use super::etcd_place::{Cluster, PORT, Put, Watch};
use super::lab::peers::installed;
use super::measure::Options;
use super::place::SERVERS;
use super::table::{maybe, median};
use super::targets::{Running, Target, Wish};

const WATCHES: usize = 9;
/// A put each.
const PUT: Duration = Duration::from_millis(200);
/// Once things are as they were, watches have so long to tell everything.
const LAST_WORD: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A follower is stopped for 10 s.
    FollowerStopped,
    /// A follower is killed, and started after 4 s.
    FollowerKilled,
    /// The leader is killed, and started after 4 s.
    LeaderKilled,
    /// A follower is killed and started again three times, each second.
    FollowerRestarts,
}

impl Event {
    pub const ALL: [Self; 4] = [
        Self::FollowerStopped,
        Self::FollowerKilled,
        Self::LeaderKilled,
        Self::FollowerRestarts,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::FollowerStopped => "a follower: SIGSTOP for 10 s",
            Self::FollowerKilled => "a follower: kill -9, started after 4 s",
            Self::LeaderKilled => "the leader: kill -9, started after 4 s",
            Self::FollowerRestarts => "a follower: kill -9 and started, three times, each second",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Seen {
    pub puts: usize,
    pub failed: usize,
    /// The slowest put, failed ones too.
    pub slowest: Duration,
    pub watches: usize,
    /// The longest time until a watch told a value that had been put.
    pub latest: Option<Duration>,
    /// Watches that never told every value, or ended.
    pub lost: usize,
    /// Those of them whose process ended.
    pub ended: usize,
    /// What the first of the others never told.
    pub untold: Vec<usize>,
}

pub fn is_installed() -> bool {
    installed("etcd") && installed("etcdctl")
}

/// Each event with the same cluster and watches.
pub fn measure(target: Target, events: &[Event]) -> Vec<(Event, Seen)> {
    let mut cluster = Cluster::new();
    let wish = Wish {
        port: PORT,
        etcd: true,
        ..Wish::default()
    };
    let running = Running::start(&cluster.place.nodes[0], target, &wish);
    let mut done = Vec::new();
    for event in events {
        running.until("all members are up", |up| *up == [true; SERVERS]);
        done.push((*event, one(&mut cluster, *event)));
    }
    done
}

fn one(cluster: &mut Cluster, event: Event) -> Seen {
    let mut watches = cluster.watches(WATCHES);
    let puts = Puts::start(cluster);
    // Every watch is there when it tells a put.
    let end = clock::now() + LAST_WORD;
    while watches
        .iter()
        .any(|watch| watch.told.lock().unwrap().is_empty())
    {
        assert!(clock::now() < end, "no {WATCHES} watches");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(1));
    let at = clock::now();
    provoke(cluster, event);
    thread::sleep(Duration::from_secs(3));
    let puts = puts.finish();
    let last_word = clock::now() + LAST_WORD;
    let told_all = |watch: &Watch| latest(watch, &puts, at).is_some();
    while clock::now() < last_word && !watches.iter().all(told_all) {
        thread::sleep(Duration::from_millis(50));
    }
    let within: Vec<&Put> = puts.iter().filter(|put| put.ended >= at).collect();
    let (mut lost, mut ended, mut untold) = (0, 0, Vec::new());
    let mut longest = None;
    for watch in &mut watches {
        let latest = latest(watch, &puts, at);
        let has_ended = watch.has_ended();
        ended += usize::from(has_ended);
        lost += usize::from(latest.is_none() || has_ended);
        if latest.is_none() && untold.is_empty() {
            untold = untold_by(watch, &puts, at);
        }
        longest = longest.max(latest);
    }
    Seen {
        puts: within.len(),
        failed: within.iter().filter(|put| !put.succeeded).count(),
        slowest: within
            .iter()
            .map(|put| put.ended - put.started)
            .max()
            .unwrap_or_default(),
        watches: watches.len(),
        latest: longest,
        lost,
        ended,
        untold,
    }
}

fn provoke(cluster: &mut Cluster, event: Event) {
    let leader = cluster.leader();
    let follower = (leader + 1) % SERVERS;
    let secs = |seconds| thread::sleep(Duration::from_secs(seconds));
    match event {
        Event::FollowerStopped => {
            cluster.signal(follower, Signal::SIGSTOP);
            secs(10);
            cluster.signal(follower, Signal::SIGCONT);
        }
        Event::FollowerKilled | Event::LeaderKilled => {
            let member = if event == Event::LeaderKilled {
                leader
            } else {
                follower
            };
            cluster.kill(member);
            secs(4);
            cluster.start(member);
        }
        Event::FollowerRestarts => {
            for _ in 0..3 {
                cluster.kill(follower);
                thread::sleep(Duration::from_millis(500));
                cluster.start(follower);
                secs(1);
            }
        }
    }
}

/// How late a watch was with the value that it told latest, of those put since then; nothing
/// when one is missing.
fn latest(watch: &Watch, puts: &[Put], at: Instant) -> Option<Duration> {
    let told = watch.told.lock().unwrap();
    let mut latest = Duration::ZERO;
    for put in puts.iter().filter(|put| put.succeeded && put.started >= at) {
        let (when, _) = told.iter().find(|(_, number)| *number == put.number)?;
        latest = latest.max(when.saturating_duration_since(put.started));
    }
    Some(latest)
}

fn untold_by(watch: &Watch, puts: &[Put], at: Instant) -> Vec<usize> {
    let told = watch.told.lock().unwrap();
    let wanted = puts.iter().filter(|put| put.succeeded && put.started >= at);
    let untold = wanted.filter(|put| told.iter().all(|(_, number)| *number != put.number));
    untold.map(|put| put.number).collect()
}

/// A put each so often, each by a process of its own.
struct Puts {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: thread::JoinHandle<Vec<Put>>,
}

impl Puts {
    fn start(cluster: &Cluster) -> Self {
        let put = cluster.put();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Numbers that no earlier event has used.
        let first = usize::try_from(
            clock::wall()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis()),
        );
        let first = first.unwrap();
        let thread = thread::spawn(move || {
            let done = Arc::new(Mutex::new(Vec::new()));
            let mut open = Vec::new();
            for number in first.. {
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let (put, done) = (put.clone(), Arc::clone(&done));
                open.push(thread::spawn(move || {
                    let put = put(number);
                    done.lock().unwrap().push(put);
                }));
                thread::sleep(PUT);
            }
            for thread in open {
                thread.join().unwrap();
            }
            let mut done = done.lock().unwrap();
            std::mem::take(&mut *done)
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<Put> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

pub fn table(options: &Options) -> String {
    if !is_installed() {
        return "etcd and etcdctl are not installed.\n".to_owned();
    }
    let mut done: Vec<(Target, Event, Seen)> = Vec::new();
    for round in 1..=options.runs {
        // One after the other: nine members would disturb each other's elections.
        for target in &options.targets {
            for (event, seen) in measure(*target, &Event::ALL) {
                println!("[{round}] etcd {event:?} {:<15} {seen:?}", target.title());
                done.push((*target, event, seen));
            }
        }
    }
    let mut text = String::from(
        "| etcd, 3 members | | failed puts | slowest put | watches lost | latest news of a watch \
         |\n|---|---|---|---|---|---|\n",
    );
    for event in Event::ALL {
        for target in &options.targets {
            let seen = || {
                let of = done.iter().filter(|one| (one.0, one.1) == (*target, event));
                of.map(|one| &one.2)
            };
            let number = |of: fn(&Seen) -> usize| median(seen().map(of)).unwrap_or(0);
            text.push_str(&format!(
                "| {} | {} | {} of {} | {} | {} of {} | {} |\n",
                event.title(),
                target.title(),
                number(|one| one.failed),
                number(|one| one.puts),
                maybe(median(seen().map(|one| one.slowest)), "–"),
                number(|one| one.lost),
                number(|one| one.watches),
                maybe(median(seen().filter_map(|one| one.latest)), "never"),
            ));
        }
    }
    text
}
