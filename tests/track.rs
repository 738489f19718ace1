//! What a node tracks and whom it tells: real lbd on two nodes in network namespaces. Needs root
//! and iproute2; without them it is skipped and says so.

#![cfg(test)]

#[path = "lab/program.rs"]
mod program;
#[path = "lab/node.rs"]
mod running;
#[path = "lab/segment.rs"]
mod segment;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use lbd::admin::protocol::{ask_events, ask_status};
use lbd::ipc::event::{Event, EventKind};
use lbd::ipc::message::VrrpState;
use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::{Folder, wait_for};
use running::{Node, SOON};
use segment::{Segment, enter};

/// Two nodes on one segment, each with an interface up1 that may lose its carrier, and a folder for
/// their files.
struct Lab {
    segment: Segment,
    folder: Folder,
}

impl Lab {
    /// `None`, with the reason printed, where namespaces can't be made.
    fn new() -> Option<Self> {
        let segment = Segment::new()?;
        let folder = Folder::new(&segment.name("track"));
        let lab = Self { segment, folder };
        for name in ["lb1", "lb2"] {
            lab.uplink(name, "up1");
        }
        Some(lab)
    }

    fn on(&self, node: &str, line: &str) {
        self.segment.on(node, line);
    }

    fn holds(&self, node: &str) -> bool {
        self.segment.holds(node)
    }

    /// An interface with carrier beside eth0.
    fn uplink(&self, node: &str, name: &str) {
        self.on(
            node,
            &format!("link add {name} type veth peer name p{name}"),
        );
        self.on(node, &format!("link set p{name} up"));
        self.on(node, &format!("link set {name} up"));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// A shell script that anybody may run.
    fn script(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn wait_holder(&self, node: &str, other: &str) {
        wait_for(&format!("{node} to hold the vip alone"), SOON, || {
            (self.holds(node) && !self.holds(other)).then_some(())
        });
    }

    /// lbd on a node; `more` goes into `[vip.v]` and behind it.
    fn start(&self, name: &str, more: &str) -> Node {
        let config = format!(
            "[log]\ntarget = \"stderr\"\nlevel = \"debug\"\n[metrics]\nlisten = \"off\"\n\
             [vip.v]\naddress = \"10.9.0.100/24\"\nvrid = 77\nadvert-interval = \"100ms\"\n\
             nodes = [\"10.9.0.1\", \"10.9.0.2\"]\npreempt = true\n{more}\n"
        );
        let namespace = self.segment.name(name);
        Node::start(&self.folder, name, &config, Some(&namespace))
    }
}

/// What the tests here ask of a node.
impl Node {
    fn state(&self) -> Option<VrrpState> {
        let status = ask_status(&self.socket()).ok()?;
        Some(status.vrrp?.vips.first()?.state)
    }

    fn wait_state(&self, state: VrrpState) {
        wait_for(&format!("{state:?}"), SOON, || {
            (self.state() == Some(state)).then_some(())
        });
    }

    fn priority(&self) -> Option<u8> {
        let status = ask_status(&self.socket()).ok()?;
        Some(status.vrrp?.vips.first()?.effective_priority)
    }

    fn wait_priority(&self, priority: u8) {
        wait_for(&format!("priority {priority}"), SOON, || {
            (self.priority() == Some(priority)).then_some(())
        });
    }

    fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        let take = |events: Vec<Event>| {
            all = events;
            true
        };
        match ask_events(&self.socket(), 1_000, false, take) {
            Ok(()) => all,
            Err(_) => Vec::new(),
        }
    }

    /// From where to where, of the events of one kind.
    fn changes(&self, kind: EventKind) -> Vec<String> {
        let of_kind = self.events().into_iter().filter(|event| event.kind == kind);
        let change = |event: Event| {
            let (from, to) = (event.from.unwrap_or_default(), event.to.unwrap_or_default());
            format!("{} {from} {to}", event.subject.unwrap_or_default())
                .trim()
                .to_owned()
        };
        of_kind.map(change).collect()
    }

    /// Stops it; how long that took.
    fn stop(&mut self) -> Duration {
        let begin = clock::now();
        self.signal_keeper(Signal::SIGTERM);
        wait_for("its end", SOON, || self.keeper().try_wait().unwrap());
        clock::now() - begin
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_drain_switch_moves_the_vip_away_and_back() {
    let Some(lab) = Lab::new() else { return };
    let drain = lab.file("drain");
    let track = format!(
        "track = [\"file:drain\"]\n[track.file.drain]\npath = \"{}\"",
        drain.display()
    );
    let lb1 = lab.start("lb1", &track);
    let _lb2 = lab.start("lb2", "track = []");
    lab.wait_holder("lb1", "lb2");
    let began = clock::now();
    fs::write(&drain, "").unwrap();
    lab.wait_holder("lb2", "lb1");
    println!("drained after {:?}", clock::now() - began);
    let began = clock::now();
    fs::remove_file(&drain).unwrap();
    lab.wait_holder("lb1", "lb2");
    println!("back after {:?}", clock::now() - began);
    // 0 is as good as none, a text is not.
    fs::write(&drain, "0\n").unwrap();
    fs::write(&drain, "until tomorrow\n").unwrap();
    lab.wait_holder("lb2", "lb1");
    fs::write(&drain, "0\n").unwrap();
    lab.wait_holder("lb1", "lb2");
    let states = lb1.changes(EventKind::State);
    let first = [
        "initialize backup",
        "backup active",
        "active leaving",
        "leaving backup",
        "backup active",
    ];
    assert_eq!(states[..5], first, "{states:?}");
    let tracks = lb1.changes(EventKind::Track);
    let first = ["file:drain ok failed", "file:drain failed ok"];
    assert_eq!(tracks[..2], first, "{tracks:?}");
    let mut reasons = lb1
        .events()
        .into_iter()
        .filter(|event| event.kind == EventKind::Track);
    assert_eq!(reasons.next().unwrap().reason, "holds 1");
}

#[test]
fn a_number_in_a_file_is_weighed() {
    let Some(lab) = Lab::new() else { return };
    let load = lab.file("load");
    let track = format!(
        "track = [\"file:load\"]\n[track.file.load]\npath = \"{}\"\nweight = -3",
        load.display()
    );
    let lb1 = lab.start("lb1", &track);
    let _lb2 = lab.start("lb2", "track = []");
    lab.wait_holder("lb1", "lb2");
    fs::write(&load, "3").unwrap();
    lb1.wait_priority(191);
    assert!(lab.holds("lb1"));
    fs::write(&load, "4").unwrap();
    lb1.wait_priority(188);
    lab.wait_holder("lb2", "lb1");
    fs::remove_file(&load).unwrap();
    lab.wait_holder("lb1", "lb2");
}

/// Servers on a node's loopback interface, from port 7441.
fn servers(lab: &Lab, node: &str, count: u16) -> Vec<TcpListener> {
    let namespace = lab.segment.name(node);
    let inside = thread::spawn(move || {
        enter(&namespace);
        let bind = |n| TcpListener::bind(("127.0.0.1", 7440 + n)).unwrap();
        (1..=count).map(bind).collect()
    });
    inside.join().unwrap()
}

#[test]
fn the_node_that_reaches_more_servers_wins_once_that_has_lasted() {
    let Some(lab) = Lab::new() else { return };
    // 200 + 12 × 2 against 190 + 12 × 2; with one server less 212 against 214.
    let proxy = "per-server-weight = 12\n[proxy.p]\nlisten = \":6443\"\n\
        backends = [\"127.0.0.1:7441\", \"127.0.0.1:7442\"]\n\
        check = { type = \"tcp\", interval = \"400ms\", down-interval = \"100ms\", fast-interval = \"50ms\" }";
    let mut own = servers(&lab, "lb1", 2);
    let _others = servers(&lab, "lb2", 2);
    let lb1 = lab.start("lb1", proxy);
    let lb2 = lab.start("lb2", proxy);
    lb1.wait_priority(224);
    lb2.wait_priority(214);
    lab.wait_holder("lb1", "lb2");
    let began = clock::now();
    own.pop();
    lb1.wait_priority(212);
    // A holder counts a loss one check interval after it was noticed.
    assert!(clock::now() - began >= Duration::from_millis(400));
    lab.wait_holder("lb2", "lb1");
    println!("moved after {:?}", clock::now() - began);
    drop(own);
    // Without any it can't serve at all; with both it wins again.
    lb1.wait_priority(1);
    let _own = servers(&lab, "lb1", 2);
    lab.wait_holder("lb1", "lb2");
    lb1.wait_priority(224);
}

#[test]
fn a_runner_killed_while_a_program_runs_costs_nobody_the_news() {
    let Some(lab) = Lab::new() else { return };
    let (script, told, gate) = teller(&lab);
    fs::write(&gate, "").unwrap();
    let notify = format!("track = []\nnotify = {{ active = [\"{script}\", \"a\"] }}");
    let lb1 = lab.start("lb1", &notify);
    let begun = |count| (lines(&told).len() == count).then_some(());
    wait_for("the program", SOON, || begun(1));
    let keeper = lb1.keeper_pid();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    let is_runner = |pid: &&str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == b"lbd\0runner\0"
    };
    let runner = children.split_whitespace().find(is_runner).unwrap();
    kill(Pid::from_raw(runner.parse().unwrap()), Signal::SIGKILL).unwrap();
    wait_for("the program again", SOON, || begun(2));
    fs::remove_file(&gate).unwrap();
    let again = format!("a active<backup {FACTS}");
    assert_eq!(lines(&told), [again.clone(), again]);
    lb1.wait_log("notify program done");
}

#[test]
fn a_tracked_interface_moves_the_vip_with_its_link() {
    let Some(lab) = Lab::new() else { return };
    let track = "track = [\"interface:up1:-20\"]";
    let lb1 = lab.start("lb1", track);
    let lb2 = lab.start("lb2", track);
    lab.wait_holder("lb1", "lb2");
    wait_for("lb2 to watch", SOON, || lb2.state());
    lab.on("lb1", "link set up1 down");
    lb1.wait_priority(180);
    lab.wait_holder("lb2", "lb1");
    lab.on("lb1", "link set up1 up");
    lab.wait_holder("lb1", "lb2");
    // Gone is down, and one of that name that comes later counts.
    lab.on("lb1", "link del up1");
    lab.wait_holder("lb2", "lb1");
    lab.uplink("lb1", "up1");
    lab.wait_holder("lb1", "lb2");
}

#[test]
fn an_interface_that_is_missing_counts_as_down_and_is_said_at_the_start() {
    let Some(lab) = Lab::new() else { return };
    let _lb2 = lab.start("lb2", "track = []");
    wait_for("lb2 to hold the vip", SOON, || {
        lab.holds("lb2").then_some(())
    });
    let lb1 = lab.start("lb1", "track = [\"interface:later0\"]");
    lb1.wait_log("tracked interface is not there");
    lb1.wait_priority(1);
    assert!(lab.holds("lb2") && !lab.holds("lb1"));
    lab.uplink("lb1", "later0");
    lab.wait_holder("lb1", "lb2");
}

#[test]
fn a_script_that_cannot_be_run_counts_as_failed_and_is_said_at_the_start() {
    let Some(lab) = Lab::new() else { return };
    let plain = lab.file("plain");
    fs::write(&plain, "no program").unwrap();
    let track = format!(
        "track = [\"script:a:-10\", \"script:b:-20\", \"script:c:-40\"]\n\
         notify = {{ any = [\"/nonexistent/told\"] }}\n\
         [track.script.a]\ncommand = [\"/nonexistent/check\"]\n\
         [track.script.b]\ncommand = [\"{}\"]\n\
         [track.script.c]\ncommand = [\"/bin/true\"]\nuser = \"lbd-no-such-user\"",
        plain.display()
    );
    let lb1 = lab.start("lb1", &track);
    lb1.wait_priority(130);
    for said in [
        "key=track.script.a reason=\"there is no such file\"",
        "key=track.script.b reason=\"not an executable file\"",
        "key=track.script.c reason=\"no such user: lbd-no-such-user\"",
        "key=vip.v.notify.any reason=\"there is no such file\"",
    ] {
        lb1.wait_log(said);
    }
}

/// Writes down what it is told, then waits as long as `gate` is there.
fn teller(lab: &Lab) -> (String, PathBuf, PathBuf) {
    let (told, gate) = (lab.file("told"), lab.file("gate"));
    let script = lab.script(
        "teller",
        &format!(
            "echo \"$1 $LBD_STATE<$LBD_PREVIOUS_STATE $LBD_VIP $LBD_NODE $LBD_PRIORITY $LBD_ADDRESSES $LBD_INTERFACE $LBD_VRID\" >> {}\n\
             echo \"$LBD_SEQ\" >> {}.seq\n\
             while test -e {}; do sleep 0.02; done",
            told.display(),
            told.display(),
            gate.display()
        ),
    );
    (script, told, gate)
}

const FACTS: &str = "v 10.9.0.1 200 10.9.0.100/24 eth0 77";

#[test]
fn programs_are_told_in_order_and_of_a_flood_only_the_last() {
    let Some(lab) = Lab::new() else { return };
    let (script, told, gate) = teller(&lab);
    fs::write(&gate, "").unwrap();
    let notify = format!(
        "track = []\n[vip.v.notify]\nactive = [\"{script}\", \"a\"]\nbackup = [\"{script}\", \"b\"]\n\
         fault = [\"{script}\", \"f\"]\nany = [\"{script}\"]\nkeepalived-arguments = true"
    );
    let mut lb1 = lab.start("lb1", &notify);
    // The first program waits at the gate; meanwhile much happens.
    lb1.wait_state(VrrpState::Active);
    for _ in 0..3 {
        lab.on("lb1", "link set eth0 down");
        lb1.wait_state(VrrpState::Initialize);
        lab.on("lb1", "link set eth0 up");
        lb1.wait_state(VrrpState::Active);
    }
    assert_eq!(lines(&told), [format!("b backup< {FACTS}")]);
    fs::remove_file(&gate).unwrap();
    let expected = [
        format!("b backup< {FACTS}"),
        format!("a active<backup {FACTS}"),
        format!("INSTANCE active<backup {FACTS}"),
    ];
    wait_for("the last state to be told", SOON, || {
        (lines(&told).len() >= 3).then_some(())
    });
    assert_eq!(lines(&told), expected);
    // The end is told, too: to `backup`, since there is no `stop`.
    lb1.stop();
    let end = [
        format!("b stop<active {FACTS}"),
        format!("INSTANCE stop<active {FACTS}"),
    ];
    assert_eq!(lines(&told)[3..], end);
    let numbers = lines(&lab.file("told.seq"));
    let numbers: Vec<u64> = numbers.iter().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(numbers[1] > numbers[0] + 6, "{numbers:?}");
    assert_eq!(numbers[1], numbers[2]);
}

#[test]
fn every_member_of_a_sync_group_is_told() {
    let Some(lab) = Lab::new() else { return };
    let (script, told, _) = teller(&lab);
    let notify = format!("notify = {{ any = [\"{script}\", \"-\"] }}");
    let group = "track = []\nsync-group = \"both\"\n";
    let other = "[vip.w]\naddress = \"10.9.0.101/24\"\nvrid = 78\nadvert-interval = \"100ms\"\n\
        nodes = [\"10.9.0.1\", \"10.9.0.2\"]\npreempt = true\n";
    let lb1 = lab.start("lb1", &format!("{group}{notify}\n{other}{group}{notify}"));
    let facts = |state: &str, vip: &str, last: u8, vrid: u8| {
        format!("- {state} {vip} 10.9.0.1 200 10.9.0.10{last}/24 eth0 {vrid}")
    };
    wait_for("both to be told", SOON, || {
        (lines(&told).len() == 4).then_some(())
    });
    for (vip, last, vrid) in [("v", 0, 77), ("w", 1, 78)] {
        let mine: Vec<String> = lines(&told)
            .into_iter()
            .filter(|line| line.contains(&format!(" {vip} ")))
            .collect();
        let expected = ["backup<", "active<backup"].map(|state| facts(state, vip, last, vrid));
        assert_eq!(mine, expected);
    }
    let states = lb1
        .events()
        .into_iter()
        .filter(|event| event.kind == EventKind::State);
    let vips: Vec<String> = states.filter_map(|event| event.vip).collect();
    assert_eq!(vips, ["v", "w", "v", "w"]);
}

#[test]
fn a_host_that_answers_for_the_address_is_an_event() {
    let Some(lab) = Lab::new() else { return };
    lab.on("lb2", "addr add 10.9.0.100/32 dev eth0");
    let lb1 = lab.start("lb1", "track = []");
    let conflict = |event: Event| (event.kind == EventKind::Conflict).then_some(event);
    let event = wait_for("the conflict", SOON, || {
        lb1.events().into_iter().find_map(conflict)
    });
    assert_eq!(event.vip.as_deref(), Some("v"));
    assert!(
        event.reason.starts_with("10.9.0.100 is answered for by "),
        "{}",
        event.reason
    );
}

#[test]
fn a_failover_by_command_is_an_event() {
    let Some(lab) = Lab::new() else { return };
    let lb1 = lab.start("lb1", "track = []");
    lb1.wait_state(VrrpState::Active);
    let done = Command::new(env!("CARGO_BIN_EXE_lbd"))
        .args(["failover", "--socket"])
        .arg(lb1.socket())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let failover = |event: Event| (event.kind == EventKind::Failover).then_some(event);
    let event = wait_for("its event", SOON, || {
        lb1.events().into_iter().find_map(failover)
    });
    let said = (event.vip.as_deref(), event.reason.as_str());
    assert_eq!(said, (Some("v"), "no other node took over"));
}

#[test]
fn every_member_of_a_group_is_told_to_be_held_back_no_longer() {
    let Some(lab) = Lab::new() else { return };
    let group = "track = []\nsync-group = \"both\"\n";
    let other = "[vip.w]\naddress = \"10.9.0.101/24\"\nvrid = 78\nadvert-interval = \"100ms\"\n\
        nodes = [\"10.9.0.1\", \"10.9.0.2\"]\npreempt = true\n";
    let config = format!("{group}\n{other}{group}");
    let lb1 = lab.start("lb1", &config);
    let _lb2 = lab.start("lb2", &config);
    lb1.wait_state(VrrpState::Active);
    let order = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
        command.arg("failover").args(more).arg("--socket");
        let output = command.arg(lb1.socket()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    wait_for("a hand-over", SOON, || {
        order(&[]).contains("w: 10.9.0.2 took over").then_some(())
    });
    let released = "v: no longer held back\nw: no longer held back\n";
    assert_eq!(order(&["--cancel"]), released);
}

#[test]
fn a_route_that_is_withdrawn_for_a_file_is_an_event() {
    let Some(lab) = Lab::new() else { return };
    let drain = lab.file("drain");
    let route = format!(
        "track = []\n[vip.any]\nannounce = \"route\"\naddress = \"10.1.1.10\"\nwithdraw-grace = \"off\"\n\
         track = [\"file:drain\", \"interface:up1\"]\n[track.file.drain]\npath = \"{}\"",
        drain.display()
    );
    let lb1 = lab.start("lb1", &route);
    let wait = |change: &str| {
        wait_for(change, SOON, || {
            let events = lb1.events().into_iter();
            let mut of_route = events.filter(|event| event.vip.as_deref() == Some("any"));
            of_route.find(|event| event.to.as_deref() == Some(change))
        })
    };
    wait("announced");
    fs::write(&drain, "").unwrap();
    wait("withdrawn");
}

#[test]
fn a_program_that_hangs_is_ended_and_holds_up_nobody() {
    let Some(lab) = Lab::new() else { return };
    let told = lab.file("told");
    let hangs = lab.script(
        "hangs",
        &format!(
            "trap '' TERM\necho \"$LBD_STATE\" >> {}\nsleep 600 &\nwait\nsleep 600",
            told.display()
        ),
    );
    let notify = format!(
        "track = []\nnotify = {{ backup = [\"/bin/true\"], active = [\"{hangs}\"], \
         stop = [\"{hangs}\"], timeout = \"300ms\" }}"
    );
    let mut lb1 = lab.start("lb1", &notify);
    lb1.wait_log("notify program failed");
    assert_eq!(lb1.state(), Some(VrrpState::Active));
    let failed = |event: Event| (event.kind == EventKind::Notify).then_some(event);
    let event = wait_for("its event", SOON, || {
        lb1.events().into_iter().find_map(failed)
    });
    assert_eq!(
        (event.subject.as_deref(), event.reason.as_str()),
        (Some("active"), "timed out")
    );
    let took = lb1.stop();
    println!("stopped in {took:?}");
    assert_eq!(lines(&told), ["active", "stop"]);
    // 300 ms to its SIGTERM, a second to its SIGKILL; and the proxy's end.
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_second_request_to_stop_waits_for_no_program() {
    let Some(lab) = Lab::new() else { return };
    let told = lab.file("told");
    let hangs = lab.script("hangs", &format!("echo > {}\nsleep 600", told.display()));
    let notify = format!("track = []\nnotify = {{ stop = [\"{hangs}\"], timeout = \"5m\" }}");
    let mut lb1 = lab.start("lb1", &notify);
    lb1.wait_state(VrrpState::Active);
    lb1.signal_keeper(Signal::SIGTERM);
    wait_for("the program", SOON, || told.exists().then_some(()));
    wait_for("the proxy's end", SOON, || {
        lb1.proxies().is_empty().then_some(())
    });
    // It waits for the program now, unless asked again.
    let asked = |lb1: &mut Node| {
        lb1.signal_keeper(Signal::SIGTERM);
        lb1.keeper().try_wait().unwrap()
    };
    let began = clock::now();
    wait_for("its end", SOON, || asked(&mut lb1));
    assert!(clock::now() - began < Duration::from_secs(5));
}

/// `lbd events -f -o json`, line by line.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(node: &Node) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lbd"))
            .args(["events", "-f", "-o", "json", "--socket"])
            .arg(node.socket())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(1_000);
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Lines up to one that contains all of `words`.
    fn until(&self, words: &[&str]) -> Vec<String> {
        let end = clock::now() + SOON;
        let mut seen = Vec::new();
        loop {
            let left = end.saturating_duration_since(clock::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {words:?} in {seen:#?}");
            };
            let found = words.iter().all(|word| line.contains(word));
            seen.push(line);
            if found {
                return seen;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn events_are_followed_across_the_end_of_a_proxy_and_none_comes_twice() {
    let Some(lab) = Lab::new() else { return };
    let drain = lab.file("drain");
    let track = format!(
        "track = [\"file:drain:-50\"]\n[track.file.drain]\npath = \"{}\"",
        drain.display()
    );
    let lb1 = lab.start("lb1", &track);
    lb1.wait_state(VrrpState::Active);
    let follower = Follower::start(&lb1);
    let mut seen = follower.until(&["\"kind\":\"state\"", "\"to\":\"active\""]);
    assert!(
        seen[0].contains("\"reason\":\"keeper started\""),
        "{}",
        seen[0]
    );
    fs::write(&drain, "").unwrap();
    seen.extend(follower.until(&["file:drain", "\"to\":\"failed\""]));
    let [proxy] = lb1.proxies()[..] else {
        panic!("{:?}", lb1.proxies())
    };
    kill(Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    seen.extend(follower.until(&[
        "\"kind\":\"proxy\"",
        "\"reason\":\"lost\"",
        &proxy.to_string(),
    ]));
    seen.extend(follower.until(&["\"kind\":\"proxy\"", "\"reason\":\"connected\""]));
    fs::remove_file(&drain).unwrap();
    seen.extend(follower.until(&["file:drain", "\"to\":\"ok\""]));
    let number = |line: &String| -> u64 {
        let event: Event = serde_json::from_str(line).unwrap();
        event.seq
    };
    let numbers: Vec<u64> = seen.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    // The new process knows what the old one did.
    let all: Vec<u64> = lb1.events().iter().map(|event| event.seq).collect();
    assert_eq!(all[..numbers.len()], numbers);
}

#[test]
fn events_read_as_lines_and_as_many_as_asked_for() {
    let Some(lab) = Lab::new() else { return };
    let lb1 = lab.start("lb1", "track = []");
    lb1.wait_state(VrrpState::Active);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
        command
            .arg("events")
            .args(arguments)
            .arg("--socket")
            .arg(lb1.socket());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    wait_for("the change", SOON, || {
        run(&[])
            .contains("state v: backup → active (")
            .then_some(())
    });
    assert!(
        run(&[])
            .lines()
            .next()
            .unwrap()
            .ends_with("keeper: keeper started")
    );
    // One event: its line, and below it what led to it, if anything did.
    let last = run(&["-n", "1"]);
    let causes = last.lines().skip(1);
    assert!(last.starts_with("20"), "{last}");
    assert!(
        causes.clone().all(|line| line.starts_with("    because ")),
        "{last}"
    );
    assert!(causes.count() <= 1, "{last}");
    let gone = Command::new(env!("CARGO_BIN_EXE_lbd"))
        .args(["events", "--socket", "/nonexistent/admin.sock"])
        .output()
        .unwrap();
    assert_eq!(gone.status.code(), Some(69));
}

/// A follower that reads nothing is cut off; others are answered.
#[test]
fn the_ninth_follower_is_turned_away_and_the_status_still_answers() {
    let Some(lab) = Lab::new() else { return };
    let lb1 = lab.start("lb1", "track = []");
    lb1.wait_state(VrrpState::Active);
    let followers: Vec<Follower> = (0..8).map(|_| Follower::start(&lb1)).collect();
    for follower in &followers {
        follower.until(&["keeper started"]);
    }
    let refused = ask_events(&lb1.socket(), 10, true, |_| true);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "refused: too many follow already"
    );
    assert_eq!(lb1.state(), Some(VrrpState::Active));
    assert!(!lb1.events().is_empty());
    drop(followers);
    let begin: Instant = clock::now();
    wait_for("room for another", SOON, || {
        ask_events(&lb1.socket(), 10, true, |_| false).ok()
    });
    println!("room after {:?}", clock::now() - begin);
}
