//! What is killed, stopped, starved or stuck under the service manager, and what follows: a
//! restart, a hand-off, or a warning. lb2, preferred, is the managed node; lb1 is its peer.
//! Version 2, an advert each second, a password, as in the users' guide.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getsid};

use super::lab::cases::Case;
use super::lab::{self, LB1, LB2, Pair, Role, SEED};
use super::service::{Event, Service};

pub const CASES: &[Case] = &[
    (
        "a_killed_keeper_is_restarted_resumes_as_active_and_no_connection_is_lost",
        &[],
        keeper_killed,
    ),
    (
        "a_stopped_keeper_is_restarted_by_the_watchdog",
        &[],
        keeper_stopped,
    ),
    (
        "a_killed_proxy_is_replaced_without_the_manager_and_the_vip_stays",
        &[],
        proxy_killed,
    ),
    (
        "a_stopped_proxy_hands_the_vip_off_and_is_killed_after_two_seconds",
        &[],
        proxy_stopped,
    ),
    (
        "a_stuck_worker_hands_the_vip_off_and_is_killed_after_two_seconds",
        &[],
        worker_stuck,
    ),
    (
        "a_proxy_starved_of_cpu_is_warned_of_and_nothing_else",
        &[],
        proxy_starved,
    ),
    (
        "a_crash_looping_proxy_hands_the_vip_off_and_is_started_slowly",
        &[],
        crash_loop,
    ),
    (
        "keeper_and_proxy_killed_at_once_are_both_back_and_the_vip_stays",
        &[],
        both_killed,
    ),
    (
        "a_proxy_that_hangs_while_its_keeper_is_restarted_is_killed_and_replaced",
        &[],
        proxy_stopped_and_keeper_killed,
    ),
    (
        "a_node_killed_as_a_whole_is_back_and_the_vip_has_one_holder",
        &[],
        all_killed,
    ),
];

/// Two nodes may both hold the VIP for this long at a hand-over: make before break.
const OVERLAP: Duration = Duration::from_millis(200);

/// The pair, with lb2 under a service manager.
pub struct Managed {
    // Dropped first: it would restart what the pair kills.
    pub service: Service,
    pub pair: Pair,
}

impl Managed {
    /// Both nodes serve, lb2 holds the VIP.
    pub fn start() -> Self {
        Self::with(SEED)
    }

    /// The same with these lines about the virtual router.
    pub fn with(vip: &str) -> Self {
        let config = lab::config(vip);
        let mut pair = Pair::new();
        let began = clock::now();
        let service = Service::start(&pair.lab.nodes[LB2].host, &config);
        pair.start_lbd(LB1, &config);
        pair.settle();
        let managed = Self { service, pair };
        wait("READY=1", 10_000, || {
            managed.service.said_since(began, "READY=1") == 1
        });
        managed
    }

    pub fn proxy(&self) -> Pid {
        let proxies = || self.pair.processes(LB2, Role::Proxy);
        self.pair
            .until("lb2 has one proxy", 5_000, |_| proxies().len() == 1);
        proxies().first().copied().expect("one proxy")
    }

    /// Moves of the VIP since then.
    pub fn moves(&self, since: Instant) -> usize {
        self.pair
            .lab
            .history(|history| history.moves(since, clock::now()))
    }

    pub fn refused(&self, since: Instant) -> usize {
        let now = clock::now();
        let counts = self.pair.client().tally(|tally| tally.counts(since, now));
        println!("    {counts:?}");
        counts.refused
    }

    pub fn failed(&self, since: Instant) -> usize {
        let now = clock::now();
        self.pair
            .client()
            .tally(|tally| tally.counts(since, now).failed())
    }

    pub fn log(&self) -> String {
        self.pair.lab.nodes[LB2].log().unwrap_or_default()
    }

    pub fn said(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    pub fn hears(&self, text: &str, ms: u64) {
        self.pair.until(text, ms, |_| self.said(text));
    }

    pub fn gap_within(&self, bound_ms: u64, since: Instant) {
        let gap = self.pair.gap(since);
        let bound = self.pair.bound(Duration::from_millis(bound_ms), since);
        println!("    gap: {} ms", gap.as_millis());
        assert!(
            gap <= bound,
            "gap of {gap:?}, more than {bound:?}\n{}",
            self.pair.report()
        );
    }

    pub fn one_holder(&self, since: Instant) {
        let double = self.pair.double(since);
        println!("    two holders: {} ms", double.as_millis());
        assert!(
            double <= self.pair.bound(OVERLAP, since),
            "two holders for {double:?}\n{}",
            self.pair.report()
        );
    }

    pub fn stays(&self, since: Instant) {
        assert_eq!(self.moves(since), 0, "{}", self.pair.report());
        assert_eq!(self.pair.only_holder(), Some(LB2), "{}", self.pair.report());
    }

    /// lb1 takes over, the proxy is killed 2 s after the verdict, and lb2, well again, comes back.
    fn handed_off(&self, at: Instant, before: Pid) {
        let pair = &self.pair;
        pair.until("lb1 alone holds the VIP", 3_000, |pair| {
            pair.only_holder() == Some(LB1)
        });
        pair.until_served(500, 5_000);
        // 250 ms until the keeper is sure, lb1's Skew_Time of 610 ms.
        self.gap_within(1_300, at);
        pair.until("the proxy to be replaced", 5_000, |pair| {
            let now = pair.processes(LB2, Role::Proxy);
            !now.is_empty() && !now.contains(&before)
        });
        let took = clock::now() - at;
        assert!(took >= Duration::from_secs(2), "killed after {took:?}");
        assert!(
            took <= pair.bound(Duration::from_millis(3_500), at),
            "killed after {took:?}"
        );
        assert!(self.said("proxy hangs reason=stopped"), "{}", pair.report());
        assert!(self.said("hung proxy killed"), "{}", pair.report());
        pair.until("lb2 alone holds the VIP", 20_000, |pair| {
            pair.only_holder() == Some(LB2)
        });
        pair.until_served(500, 5_000);
        self.one_holder(at);
        assert_eq!(self.service.starts_since(at), 0, "the keeper was restarted");
    }
}

/// Waits for a condition, at most so many milliseconds, or four times as long where the machine has
/// other things to do: what takes too long is said by bounds, not here.
pub fn wait(what: &str, ms: u64, condition: impl Fn() -> bool) {
    let end = clock::now() + Duration::from_millis(ms) * 4;
    while !condition() {
        assert!(clock::now() < end, "not within {ms} ms: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn kill_main(lb: &Managed, signal: Signal) -> Instant {
    let at = clock::now();
    kill(lb.service.main_pid().expect("it runs"), signal).expect("it runs");
    at
}

fn keeper_killed() {
    let lb = Managed::start();
    let proxy = lb.proxy();
    for round in 1..=2 {
        let at = kill_main(&lb, Signal::SIGKILL);
        wait("the manager to notice", 2_000, || {
            lb.service.starts_since(at) == 1
        });
        wait("READY=1", 5_000, || {
            lb.service.said_since(at, "READY=1") == 1
        });
        lb.pair.until("the proxy is adopted", 5_000, |_| {
            lb.log().matches("proxy adopted").count() == round
        });
        // Longer than lb1 would wait.
        let end = at + Duration::from_secs(4);
        wait("four seconds", 5_000, || clock::now() > end);
        lb.pair.until_served(500, 5_000);
        assert_eq!(lb.proxy(), proxy, "{}", lb.pair.report());
        lb.stays(at);
        assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
        assert_eq!(lb.failed(at), 0, "{}", lb.pair.report());
        let lost = lb.pair.client().tally(|tally| tally.lost_since(at));
        assert_eq!(
            lost,
            0,
            "long-lived connections broke\n{}",
            lb.pair.report()
        );
        lb.gap_within(100, at);
    }
}

fn keeper_stopped() {
    let lb = Managed::start();
    let proxy = lb.proxy();
    let at = kill_main(&lb, Signal::SIGSTOP);
    wait("the watchdog", 3_000, || {
        lb.service.since(at).contains(&Event::Starved)
    });
    wait("a restart", 2_000, || lb.service.starts_since(at) == 1);
    let took = clock::now() - at;
    println!("    restarted after {} ms", took.as_millis());
    // WatchdogSec=2s counts from the last sign of life, at most 0.67 s earlier.
    assert!(took >= Duration::from_millis(1_300), "{took:?}");
    wait("READY=1", 5_000, || {
        lb.service.said_since(at, "READY=1") == 1
    });
    let aborted = Event::Ended(None, Some(Signal::SIGABRT as i32));
    assert!(
        lb.service.since(at).contains(&aborted),
        "{:?}",
        lb.service.since(at)
    );
    lb.pair.until("lb2 alone holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    lb.pair.until_served(1_000, 8_000);
    assert_eq!(lb.proxy(), proxy, "{}", lb.pair.report());
    assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
    lb.one_holder(at);
}

fn proxy_killed() {
    let lb = Managed::start();
    let at = lb.pair.signal(LB2, Role::Proxy, Signal::SIGKILL);
    lb.pair.until("another proxy", 2_000, |pair| {
        !pair.processes(LB2, Role::Proxy).is_empty()
    });
    lb.pair.until_served(1_000, 5_000);
    assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
    lb.stays(at);
    assert_eq!(lb.service.starts_since(at), 0);
    lb.gap_within(250, at);
}

fn proxy_stopped() {
    let lb = Managed::start();
    let before = lb.proxy();
    let at = lb.pair.signal(LB2, Role::Proxy, Signal::SIGSTOP);
    lb.handed_off(at, before);
}

fn worker_stuck() {
    let lb = Managed::start();
    let before = lb.proxy();
    let worker = worker_of(before);
    let at = clock::now();
    let tracer = thread::spawn(move || hold_still(worker));
    lb.handed_off(at, before);
    tracer.join().expect("the worker could be held");
}

/// The id of one worker thread.
fn worker_of(proxy: Pid) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{proxy}/task")).expect("it runs");
    let mut workers = tasks.flatten().filter(|task| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("lbd-w"))
    });
    let worker = workers.next().expect("a worker");
    let tid = worker.file_name().into_string().expect("a number");
    Pid::from_raw(tid.parse().expect("a number"))
}

/// Stops one thread, as a debugger does, until it is killed. Only its tracer's thread may wait for it.
fn hold_still(tid: Pid) {
    ptrace::seize(tid, ptrace::Options::empty()).expect("root may trace");
    ptrace::interrupt(tid).expect("it is ours");
    loop {
        match waitpid(tid, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return,
            Ok(_stopped) => {}
        }
    }
}

fn proxy_starved() {
    let lb = Managed::start();
    let before = lb.proxy();
    let at = clock::now();
    // Behind three processes that never sleep, on one processor.
    let hogs = Hogs::start(0, 3);
    starve(before, true);
    lb.hears("proxy gets no processor time", 5_000);
    let end = clock::now() + Duration::from_secs(3);
    wait("three more seconds", 5_000, || clock::now() > end);
    starve(before, false);
    drop(hogs);
    lb.pair.until_served(500, 10_000);
    assert_eq!(lb.proxy(), before, "{}", lb.pair.report());
    assert!(!lb.said("proxy hangs"), "{}", lb.pair.report());
    assert!(!lb.said("killed"), "{}", lb.pair.report());
    lb.stays(at);
    assert_eq!(lb.service.starts_since(at), 0);
    let starved = lb.pair.metric(LB2, "lbd_keeper_proxy_starved_total");
    assert!(starved.is_some_and(|count| count >= 1), "{starved:?}");
    assert_eq!(lb.pair.metric(LB2, "lbd_keeper_proxy_hung_total"), Some(0));
}

/// All threads of a process as idle-class threads on processor 0, or back to normal.
fn starve(pid: Pid, starve: bool) {
    let (class, cpus, nice) = if starve {
        ("--idle", "0", 19)
    } else {
        ("--other", "0-1023", 0)
    };
    for (program, arguments) in [
        ("chrt", ["--all-tasks", class, "--pid", "0"].as_slice()),
        (
            "taskset",
            ["--all-tasks", "--cpu-list", "--pid", cpus].as_slice(),
        ),
    ] {
        let mut command = Command::new(program);
        let output = command.args(arguments).arg(pid.to_string()).output();
        let output = output.expect("util-linux is installed");
        assert!(output.status.success(), "{program}: {output:?}");
    }
    share(pid, nice);
}

/// The nice value of a process's session. Where the kernel groups tasks by session (sched(7),
/// "The autogroup feature"), class and nice of a thread count among the threads of its session
/// alone, and a session of idle-class threads gets as much as any other.
fn share(pid: Pid, nice: i32) {
    let path = format!("/proc/{pid}/autogroup");
    // Not there: the kernel has no such groups. Empty: this process is in none.
    if fs::read_to_string(&path).is_ok_and(|group| !group.is_empty()) {
        fs::write(&path, nice.to_string()).expect("root may weigh sessions");
    }
}

/// Processes that keep one processor busy until dropped, in a session of their own.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(cpu: usize, count: usize) -> Self {
        let cpu = cpu.to_string();
        let hog = |_| {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &cpu, "setsid"]);
            command.args(["sh", "-c", "while :; do :; done"]);
            command.spawn().expect("util-linux is installed")
        };
        let hogs = Self((0..count).map(hog).collect());
        for child in &hogs.0 {
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
            wait("a session of its own", 5_000, || {
                getsid(Some(pid)) == Ok(pid)
            });
            share(pid, -5);
        }
        hogs
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            drop(hog.kill());
            drop(hog.wait());
        }
    }
}

fn crash_loop() {
    let lb = Managed::start();
    let at = clock::now();
    let mut killed = BTreeSet::new();
    let kill_all = |killed: &mut BTreeSet<Pid>| {
        for pid in lb.pair.processes(LB2, Role::Proxy) {
            if killed.insert(pid) {
                // It may have ended.
                kill(pid, Signal::SIGKILL).unwrap_or_default();
            }
        }
    };
    let end = at + Duration::from_secs(5);
    while lb.pair.only_holder() != Some(LB1) {
        assert!(
            clock::now() < end,
            "lb1 did not take over\n{}",
            lb.pair.report()
        );
        kill_all(&mut killed);
    }
    println!(
        "    {} processes, {} ms",
        killed.len(),
        (clock::now() - at).as_millis()
    );
    lb.hears("proxy keeps ending", 1_000);
    // From now on one start a second.
    let (before, from) = (killed.len(), clock::now());
    while clock::now() < from + Duration::from_millis(3_500) {
        kill_all(&mut killed);
        thread::sleep(Duration::from_millis(5));
    }
    let more = killed.len() - before;
    assert!(
        (2..=5).contains(&more),
        "{more} starts in 3.5 s\n{}",
        lb.pair.report()
    );
    lb.pair.until_served(500, 5_000);
    // Left alone it works, and the preferred node comes back.
    lb.pair.until("lb2 alone holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    lb.pair.until_served(500, 5_000);
    lb.one_holder(at);
    assert_eq!(lb.service.starts_since(at), 0);
}

fn both_killed() {
    let lb = Managed::start();
    let at = lb.pair.signal(LB2, Role::Proxy, Signal::SIGKILL);
    kill_main(&lb, Signal::SIGKILL);
    wait("a restart", 2_000, || lb.service.starts_since(at) == 1);
    lb.pair.until_served(500, 8_000);
    // Nobody listens for RestartSec and the start: clients are refused, but not for long.
    lb.refused(at);
    lb.gap_within(1_000, at);
    let end = at + Duration::from_secs(4);
    wait("four seconds", 5_000, || clock::now() > end);
    lb.stays(at);
}

fn proxy_stopped_and_keeper_killed() {
    let lb = Managed::start();
    let before = lb.proxy();
    let at = lb.pair.signal(LB2, Role::Proxy, Signal::SIGSTOP);
    kill_main(&lb, Signal::SIGKILL);
    wait("a restart", 2_000, || lb.service.starts_since(at) == 1);
    // The manager has kept the listening sockets: another proxy could serve beside it for ever.
    lb.pair.until("another proxy in its place", 8_000, |pair| {
        let now = pair.processes(LB2, Role::Proxy);
        !now.is_empty() && !now.contains(&before)
    });
    lb.pair.until_served(500, 8_000);
    assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
}

fn all_killed() {
    let lb = Managed::start();
    let at = lb.pair.signal(LB2, Role::All, Signal::SIGKILL);
    wait("a restart", 2_000, || lb.service.starts_since(at) == 1);
    lb.pair.until_served(500, 8_000);
    lb.refused(at);
    lb.gap_within(1_000, at);
    let end = at + Duration::from_secs(4);
    wait("four seconds", 5_000, || clock::now() > end);
    lb.stays(at);
    lb.one_holder(at);
}
