//! Another configuration while clients are served: nobody is refused, no VIP moves, and what is not
//! accepted changes nothing.

use super::node::{Client, Folder, Node, SOON, ask, echo, enter, wait_for};
use super::pair::{Lab, PAIR, pair_of};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::Signal;

pub(super) fn lbd(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command.args(arguments).arg("--socket");
    command
        .arg(node.runtime.join("admin.sock"))
        .output()
        .unwrap()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes the file and has it reloaded; what was printed.
pub(super) fn reload(node: &Node, config: &str) -> String {
    fs::write(&node.config, config).unwrap();
    // While one proxy process takes over from another nobody answers for a moment.
    let done = wait_for("somebody to take the order", SOON, || {
        let done = lbd(node, &["reload"]);
        (done.status.code() != Some(69)).then_some(done)
    });
    let said = text(&done.stdout) + &text(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{said}");
    said
}

/// A proxy on a free port with one echo server.
pub(super) fn single(name: &str) -> (SocketAddr, String) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = server.local_addr().unwrap();
    echo(server);
    let address = crate::port::held();
    let proxy = format!(
        "[proxy.{name}]\nlisten = \"{address}\"\nbackends = [\"{backend}\"]\n\
         check = {{ type = \"tcp\", interval = \"200ms\" }}\n"
    );
    (address, proxy)
}

pub(super) const GENERAL: &str =
    "[log]\ntarget = \"stderr\"\n[metrics]\nlisten = \"off\"\n[limits]\nworkers = 2\n";

#[test]
fn a_broken_file_is_refused_with_78_and_its_mistakes_and_the_old_one_serves() {
    let folder = Folder::new("reload-broken");
    let (address, proxy) = single("p");
    let node = Node::start(&folder, "lb", &(GENERAL.to_owned() + &proxy), None);
    wait_for("an answer", SOON, || ask(address).ok());
    let proxy_pid = node.proxy();
    let broken = format!("{GENERAL}{proxy}idle-timeout = 5\n");
    fs::write(&node.config, &broken).unwrap();
    let done = lbd(&node, &["reload"]);
    assert_eq!(done.status.code(), Some(78));
    let said = text(&done.stderr);
    assert!(said.contains("error[E0103]"), "{said}");
    assert!(said.contains("idle-timeout = 5"), "{said}");
    assert!(text(&done.stdout).contains("refused, the old configuration counts"));
    // By signal the same, said in the log.
    node.signal_keeper(Signal::SIGHUP);
    wait_for("two refusals", SOON, || {
        let log = node.log();
        (log.matches("new configuration refused").count() == 2).then_some(())
    });
    ask(address).unwrap();
    assert_eq!(node.proxy(), proxy_pid);
    fs::remove_file(&node.config).unwrap();
    let done = lbd(&node, &["reload"]);
    assert_eq!(done.status.code(), Some(78));
    ask(address).unwrap();
}

#[test]
fn a_log_level_counts_at_once_in_keeper_and_proxy_without_another_process() {
    let folder = Folder::new("reload-level");
    let (address, proxy) = single("p");
    let quiet = format!(
        "{}{proxy}",
        GENERAL.replace("[log]\n", "[log]\nlevel = \"warning\"\n")
    );
    let loud = quiet.replace("level = \"warning\"", "level = \"info\"");
    let node = Node::start(&folder, "lb", &quiet, None);
    wait_for("an answer", SOON, || ask(address).ok());
    let pid = node.proxy();
    let says = |text: &str| node.log().matches(text).count();
    let (theirs, ours) = (
        "proxy: configuration in force",
        "keeper: configuration reloaded",
    );
    let said = reload(&node, &loud);
    assert!(said.contains("~ log.level: warning → info"), "{said}");
    assert!(said.contains(": applied in "), "{said}");
    wait_for("both to say so", SOON, || {
        (says(theirs) == 1 && says(ours) == 1).then_some(())
    });
    reload(&node, &quiet);
    // Back, and a change of another kind: nothing is said of either.
    reload(&node, &format!("{quiet}idle-timeout = \"2h\"\n"));
    assert_eq!((says(theirs), says(ours)), (1, 1), "{}", node.log());
    // The keeper's lines take another shape at once; the proxy's with another process.
    let json = loud.replace("[log]\n", "[log]\nformat = \"json\"\n");
    let said = reload(&node, &json);
    assert!(said.contains("takes a new proxy process"), "{said}");
    wait_for("a line of the keeper in JSON", SOON, || {
        let log = node.log();
        let mut lines = log.lines().filter(|line| line.starts_with('{'));
        lines.any(|line| line.contains("\"keeper\"")).then_some(())
    });
    wait_for("another process", SOON, || {
        (node.proxy() != pid).then_some(())
    });
}

#[test]
fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let folder = Folder::new("reload-dry");
    let (address, proxy) = single("p");
    let (other, more) = single("q");
    let node = Node::start(&folder, "lb", &(GENERAL.to_owned() + &proxy), None);
    wait_for("an answer", SOON, || ask(address).ok());
    fs::write(&node.config, format!("{GENERAL}{proxy}{more}")).unwrap();
    let done = lbd(&node, &["reload", "--dry-run"]);
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("+ proxy.q: {other}")), "{said}");
    assert!(
        said.contains("would be applied, nothing was done"),
        "{said}"
    );
    assert!(ask(other).is_err());
    let said = reload(&node, &format!("{GENERAL}{proxy}{more}"));
    assert!(said.contains(": applied in "), "{said}");
    wait_for("an answer of the new proxy", SOON, || ask(other).ok());
    ask(address).unwrap();
}

#[test]
fn a_port_that_another_process_has_keeps_the_old_file_in_force() {
    let folder = Folder::new("reload-port");
    let (address, proxy) = single("p");
    let (_, more) = single("q");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let node = Node::start(&folder, "lb", &(GENERAL.to_owned() + &proxy), None);
    wait_for("an answer", SOON, || ask(address).ok());
    let more: Vec<String> = more
        .lines()
        .map(|line| match line.starts_with("listen") {
            true => format!("listen = \"{taken}\"\n"),
            false => format!("{line}\n"),
        })
        .collect();
    fs::write(&node.config, format!("{GENERAL}{proxy}{}", more.concat())).unwrap();
    let done = lbd(&node, &["reload"]);
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stdout);
    assert!(said.contains(&format!("! {taken} is held by another process")));
    ask(address).unwrap();
}

#[test]
fn a_proxy_that_gets_another_name_keeps_its_sockets() {
    let folder = Folder::new("reload-renamed");
    let (address, proxy) = single("p");
    let node = Node::start(&folder, "lb", &(GENERAL.to_owned() + &proxy), None);
    wait_for("an answer", SOON, || ask(address).ok());
    let client = Client::start(address);
    client.wait_answers(20);
    reload(
        &node,
        &(GENERAL.to_owned() + &proxy.replace("proxy.p", "proxy.renamed")),
    );
    wait_for("the new name", SOON, || {
        node.status().contains("\"name\":\"renamed\"").then_some(())
    });
    client.wait_answers(20);
    let outcome = client.finish();
    assert_eq!(outcome.failed, [""; 0]);
}

/// A client of the VIP, in the clients' namespace.
pub(super) fn client_of_vip(lab: &Lab) -> Client {
    let namespace = lab.name("cl");
    let started = thread::spawn(move || {
        enter(&namespace);
        Client::start("10.9.0.100:6443".parse().unwrap())
    });
    started.join().unwrap()
}

pub(super) fn has(lab: &Lab, short: &str, address: &str) -> bool {
    let name = lab.name(short);
    let args = ["-n", &name, "-o", "addr", "show", "dev", "eth0"];
    let shown = Command::new("ip").args(args).output().unwrap();
    text(&shown.stdout).contains(address)
}

#[test]
fn changes_of_a_virtual_router_move_no_vip_and_lose_no_client() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("reload-vip");
    let (lb1, lb2) = pair_of(&lab, &folder, PAIR);
    let client = client_of_vip(&lab);
    client.wait_answers(20);
    let became = lb2.log().matches("to=Active").count();
    // In place: what is decided alone.
    let quiet = PAIR.replace("preempt = false", "preempt = \"5s\"\ngarp = { repeat = 2 }");
    let said = reload(&lb1, &quiet);
    assert!(said.contains("~ vip.v.preempt: false → 5s"), "{said}");
    client.wait_answers(20);
    // A further address, and another interval: new sockets, the address stays.
    let wider = quiet
        .replace(
            "\"10.9.0.100/24\"",
            "[\"10.9.0.100/24\", \"10.9.0.101/24\"]",
        )
        .replace("advert-interval = \"100ms\"", "advert-interval = \"150ms\"");
    reload(&lb1, &wider);
    wait_for("the second address", SOON, || {
        has(&lab, "lb1", "10.9.0.101/").then_some(())
    });
    client.wait_answers(20);
    // A further virtual router, and back to the first file.
    let two = format!(
        "{wider}[vip.w]\naddress = \"10.9.0.102/24\"\nvrid = 78\n\
         nodes = [\"10.9.0.1\", \"10.9.0.2\"]\nadvert-interval = \"100ms\"\n"
    );
    reload(&lb1, &two);
    wait_for("the further vip", SOON, || {
        has(&lab, "lb1", "10.9.0.102/").then_some(())
    });
    reload(&lb1, PAIR);
    wait_for("the further addresses to go", SOON, || {
        let left = has(&lab, "lb1", "10.9.0.101/") || has(&lab, "lb1", "10.9.0.102/");
        (!left).then_some(())
    });
    client.wait_answers(20);
    assert!(lab.holds("lb1"));
    assert_eq!(lb2.log().matches("to=Active").count(), became);
    wait_for("a count of one take-over", SOON, || {
        let said = lb1.status();
        said.contains("\"became_active\":1,\"left_active\":0")
            .then_some(())
    });
    let outcome = client.finish();
    assert_eq!(outcome.failed, [""; 0]);
}

#[test]
fn a_vip_that_leaves_the_file_is_handed_over_first() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("reload-leave");
    let (lb1, lb2) = pair_of(&lab, &folder, PAIR);
    let (before, rest) = PAIR.split_once("[vip.v]").unwrap();
    let (_, proxy) = rest.split_once("[proxy.p]").unwrap();
    let without = format!("{before}[proxy.p]{proxy}");
    let said = reload(&lb1, &without);
    assert!(said.contains("- vip.v: 10.9.0.100/24"), "{said}");
    wait_for("lb2 to take over", SOON, || {
        (lab.holds("lb2") && !lab.holds("lb1")).then_some(())
    });
    // Heard by the other node before the address went.
    lb2.wait_log("to=Active");
    lb1.wait_log("to=Leaving");
    // The rights are still there: it can come back.
    reload(&lb1, PAIR);
    wait_for("lb1 to take part again", SOON, || {
        lb1.status().contains("\"state\":\"backup\"").then_some(())
    });
}

/// One connection that stays: words go out and come back, each within `patience`, in order, until it is
/// told to stop.
pub(super) fn stream(
    address: SocketAddr,
    stop: &AtomicBool,
    patience: Duration,
) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(patience))?;
    let mut words = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&words.to_be_bytes())?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        if u64::from_be_bytes(back) != words {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        words += 1;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(words)
}

/// Further connections at this pace until it is told to stop: answered, and what went wrong.
fn paced(address: SocketAddr, every: Duration, stop: &AtomicBool) -> (u32, Vec<String>) {
    let (mut answered, mut failed) = (0, Vec::new());
    let mut next = clock::now();
    while !stop.load(Ordering::Relaxed) {
        match ask(address) {
            Ok(()) => answered += 1,
            Err(error) => failed.push(error.to_string()),
        }
        next += every;
        thread::sleep(next.saturating_duration_since(clock::now()));
    }
    (answered, failed)
}

const VIP: &str = "10.9.0.100:6443";
const RELOADS: u32 = 20;
const STREAMS: usize = 50;
/// Each of three clients, so 300 connections a second in all.
const PACE: Duration = Duration::from_millis(10);

type Streams = Vec<thread::JoinHandle<std::io::Result<u64>>>;
type Paced = Vec<thread::JoinHandle<(u32, Vec<String>)>>;

/// Streams and further connections from the clients' namespace.
fn load(lab: &Lab, stop: &Arc<AtomicBool>) -> (Streams, Paced) {
    let namespace = lab.name("cl");
    let stopped = Arc::clone(stop);
    let clients = thread::spawn(move || {
        enter(&namespace);
        let address: SocketAddr = VIP.parse().unwrap();
        let streams = (0..STREAMS).map(|_| {
            let stop = Arc::clone(&stopped);
            thread::spawn(move || stream(address, &stop, Duration::from_secs(5)))
        });
        let streams = streams.collect();
        let paced = (0..3).map(|_| {
            let stop = Arc::clone(&stopped);
            thread::spawn(move || paced(address, PACE, &stop))
        });
        (streams, paced.collect())
    });
    clients.join().unwrap()
}

#[test]
fn twenty_reloads_under_load_refuse_reset_and_move_nothing() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("reload-load");
    // A machine that serves 300 connections a second with two processors may be late for an advert
    // by more than three intervals of 100 ms, reload or not.
    let pair = PAIR.replace("100ms\"\nnodes", "1s\"\nnodes");
    let (lb1, lb2) = pair_of(&lab, &folder, &pair);
    let inside = lab.name("lb1");
    let second = thread::spawn(move || {
        enter(&inside);
        TcpListener::bind("127.0.0.1:7444").unwrap()
    });
    echo(second.join().unwrap());
    let proxy = lb1.proxy();
    let became = lb2.log().matches("to=Active").count();
    let ups = lb1.log().matches("server up").count();
    let stop = Arc::new(AtomicBool::new(false));
    let (streams, paced) = load(&lab, &stop);
    for round in 0..RELOADS {
        let changed = match round % 4 {
            0 => pair.replace(
                "\"127.0.0.1:7443\"]",
                "\"127.0.0.1:7443\", \"127.0.0.1:7444\"]",
            ),
            1 => pair.replace(
                "backends",
                "idle-timeout = \"30m\"\nslowstart = \"1s\"\nbackends",
            ),
            2 => pair.replace("preempt = false", "preempt = \"9s\"\ngarp = { repeat = 2 }"),
            _ => pair.clone(),
        };
        let said = reload(&lb1, &changed);
        assert!(said.contains(": applied in "), "{said}");
        thread::sleep(Duration::from_millis(150));
    }
    stop.store(true, Ordering::Relaxed);
    for stream in streams {
        assert!(stream.join().unwrap().unwrap() > 50);
    }
    let mut answered = 0;
    for client in paced {
        let (good, failed) = client.join().unwrap();
        answered += good;
        assert_eq!(failed, [""; 0]);
    }
    println!("{answered} connections answered during {RELOADS} reloads");
    assert!(answered > 300, "{answered}");
    // In the process that was there: with its connections, counters and verdicts.
    assert_eq!(lb1.proxy(), proxy);
    let log = lb1.log();
    let further = u32::try_from(log.matches("server up").count() - ups).unwrap();
    assert!(further <= RELOADS / 4, "the added server alone: {further}");
    assert_eq!(log.matches("server down").count(), 0);
    assert!(lab.holds("lb1"));
    let after = lb2.log().matches("to=Active").count();
    assert_eq!(after, became, "lb2 took the VIP over:\n{}", lb2.log());
    let accepted = wait_for("the count of connections", SOON, || {
        let status = lb1.status();
        let rest = status.split("\"accepted\":").nth(1)?.to_owned();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    assert!(accepted >= answered, "{accepted} of {answered}");
}

#[test]
fn tracks_scripts_and_routes_come_and_go() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("reload-tracks");
    let (lb1, _lb2) = pair_of(&lab, &folder, PAIR);
    let script = |name: &str, command: &str| {
        format!(
            "[track.script.{name}]\ncommand = [\"{command}\"]\ninterval = \"100ms\"\ntimeout = \"5s\"\n"
        )
    };
    let tracked = |scripts: &str| {
        let all = format!("track = [\"proxy:p\", {scripts}]\npreempt = false");
        PAIR.replace("preempt = false", &all)
    };
    let one = tracked("\"script:good\"") + &script("good", "/bin/true");
    reload(&lb1, &one);
    lb1.wait_log("track script succeeds script=good");
    // Before the other in the file: each keeps its own verdict.
    let two = tracked("\"script:bad\", \"script:good\"")
        + &script("bad", "/bin/false")
        + &script("good", "/bin/true");
    reload(&lb1, &two);
    lb1.wait_log("track script fails script=bad");
    wait_for("lb2 to take over", SOON, || {
        (lab.holds("lb2") && !lab.holds("lb1")).then_some(())
    });
    assert!(!lb1.log().contains("track script fails script=good"));
    let route =
        "[vip.any]\nannounce = \"route\"\naddress = \"10.1.1.10\"\nwithdraw-grace = \"off\"\n";
    reload(&lb1, &(PAIR.to_owned() + route));
    wait_for("lb1 to be fit again", SOON, || {
        lb1.status()
            .contains("\"effective_priority\":200")
            .then_some(())
    });
    let on_lo = || {
        let name = lab.name("lb1");
        let args = ["-n", &name, "-o", "addr", "show", "dev", "lo"];
        let shown = Command::new("ip").args(args).output().unwrap();
        text(&shown.stdout).contains("10.1.1.10/")
    };
    wait_for("the route", SOON, || on_lo().then_some(()));
    reload(&lb1, PAIR);
    wait_for("the route to go", SOON, || (!on_lo()).then_some(()));
    // Nothing of it is left in what the node tells.
    wait_for("no route in the status", SOON, || {
        lb1.status().contains("\"routes\":[]").then_some(())
    });
}
