//! Addresses that move from one virtual router to another of the same node, and virtual routers that
//! get another name: the address stays on the interface all the while. The kernel's own messages are
//! what is looked at.

use super::node::{Client, Folder, Node, SOON, enter, wait_for};
use super::pair::{Lab, PAIR, pair_of};
use super::reload::{lbd, reload, stream};
use super::reload_routers::{on, settled};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// `ip monitor address` in a node's namespace.
struct Monitor {
    child: Child,
    namespace: String,
    said: PathBuf,
}

/// What nobody else adds: once it is told of, everything before it has been, too.
const MARK: &str = "10.255.255.1/32";

impl Monitor {
    fn start(lab: &Lab, short: &str, folder: &Folder) -> Self {
        let said = folder.0.join("monitor");
        let namespace = lab.name(short);
        let child = Command::new("ip")
            .args(["-n", &namespace, "-o", "monitor", "address"])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let monitor = Self {
            child,
            namespace,
            said,
        };
        wait_for("the monitor", SOON, || {
            monitor.mark();
            (!monitor.text().is_empty()).then_some(())
        });
        monitor
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    fn mark(&self) {
        for what in ["add", "del"] {
            let line = ["-n", &self.namespace, "addr", what, MARK, "dev", "lo"];
            assert!(Command::new("ip").args(line).status().unwrap().success());
        }
    }

    /// The addresses that were removed since it began.
    fn removed(&self) -> Vec<String> {
        let marks = || self.text().matches(MARK).count();
        let before = marks();
        self.mark();
        wait_for("the mark", SOON, || (marks() >= before + 2).then_some(()));
        let text = self.text();
        let gone = text.lines().filter(|line| line.starts_with("Deleted"));
        let address = |line: &str| line.split_whitespace().nth(4).unwrap().to_owned();
        let all = gone.map(address);
        all.filter(|address| address != MARK).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A virtual router of either family: its name, vrid and the last words of its addresses.
fn table(name: &str, vrid: u8, v6: bool, addresses: &[u8]) -> String {
    let address = |last: &u8| match v6 {
        false => format!("\"10.9.0.{last}/24\""),
        true => format!("\"fd00:9::{last}/64\""),
    };
    let nodes = match v6 {
        false => "\"10.9.0.1\", \"10.9.0.2\"",
        true => "\"fd00:9::1\", \"fd00:9::2\"",
    };
    let addresses: Vec<String> = addresses.iter().map(address).collect();
    format!(
        "[vip.{name}]\naddress = [{}]\nvrid = {vrid}\nnodes = [{nodes}]\npreempt = false\n",
        addresses.join(", ")
    )
}

/// Virtual routers of both families: each by its name, vrid and the last words of its addresses. A
/// busy machine may be late for adverts that are sent each 100 ms: these are sent each second.
fn file(vips: &[(&str, u8, &[u8])]) -> String {
    let (general, rest) = PAIR.split_once("[vip.v]").unwrap();
    let (_, proxy) = rest.split_once("[proxy.p]").unwrap();
    let both = |(name, vrid, addresses): &(&str, u8, &[u8])| {
        table(name, *vrid, false, addresses) + &table(&format!("{name}6"), *vrid, true, addresses)
    };
    let vips: String = vips.iter().map(both).collect();
    format!("{general}{vips}[proxy.p]{proxy}")
}

const ALL: [&str; 6] = [
    "10.9.0.100",
    "10.9.0.101",
    "10.9.0.102",
    "fd00:9::100",
    "fd00:9::101",
    "fd00:9::102",
];

fn count(node: &Node, words: &str) -> usize {
    node.log().matches(words).count()
}

/// What the present keeper counted so far of its virtual routers, in all.
fn counted(node: &Node, key: &str) -> u64 {
    super::reload_routers::numbers(&node.status(), key)
        .iter()
        .sum()
}

/// A proxy that gets no processor time on a busy machine answers late; that the address stays is the
/// kernel's to say.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client that asks the address and one whose connection stays, in the clients' namespace.
struct Clients {
    asks: Client,
    stop: Arc<AtomicBool>,
    stays: thread::JoinHandle<std::io::Result<u64>>,
}

impl Clients {
    fn of(lab: &Lab, address: &str) -> Self {
        let namespace = lab.name("cl");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let address = format!("{address}:6443").parse().unwrap();
        let started = thread::spawn(move || {
            enter(&namespace);
            let stays = thread::spawn(move || stream(address, &stopped, PATIENCE));
            (Client::patient(PATIENCE, address), stays)
        });
        let (asks, stays) = started.join().unwrap();
        Self { asks, stop, stays }
    }

    fn finish(self) {
        assert_eq!(self.asks.finish().failed, [""; 0]);
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.stays.join().unwrap().unwrap() > 10);
    }
}

fn lab_of_both_families() -> Option<Lab> {
    let lab = Lab::new()?;
    for (node, last) in [("lb1", 1), ("lb2", 2)] {
        let name = lab.name(node);
        lab.ip(&format!(
            "-n {name} addr add fd00:9::{last}/64 dev eth0 nodad"
        ));
    }
    Some(lab)
}

#[test]
fn an_address_that_moves_to_another_router_of_the_node_never_leaves_the_interface() {
    let Some(lab) = lab_of_both_families() else {
        return;
    };
    let folder = Folder::new("reload-moves");
    let apart = file(&[("v", 77, &[100, 101]), ("w", 78, &[102])]);
    let (lb1, lb2) = pair_of(&lab, &folder, &apart);
    settled(&lab, "lb1", "lb2", &ALL);
    let monitor = Monitor::start(&lab, "lb1", &folder);
    let clients = Clients::of(&lab, "10.9.0.101");
    clients.asks.wait_answers(20);
    let moved = || (count(&lb2, "to=Active"), count(&lb1, "to=Leaving"));
    let before = moved();
    // To a router that holds others already.
    let other = file(&[("v", 77, &[100]), ("w", 78, &[102, 101])]);
    // Both become one.
    let one = file(&[("v", 77, &[100, 101, 102])]);
    for text in [&other, &apart, &one] {
        reload(&lb2, text);
        reload(&lb1, text);
        clients.asks.wait_answers(20);
        assert_eq!(monitor.removed(), [""; 0], "{text}");
        settled(&lab, "lb1", "lb2", &ALL);
    }
    // And two again, of which one is new: the node that holds them first.
    reload(&lb1, &other);
    reload(&lb2, &other);
    clients.asks.wait_answers(20);
    // Longer than a new router listens.
    let heard = || counted(&lb2, "adverts_received");
    let goal = heard() + 20;
    wait_for("lb2 to hear them all", SOON, || {
        (heard() >= goal).then_some(())
    });
    assert_eq!(monitor.removed(), [""; 0]);
    settled(&lab, "lb1", "lb2", &ALL);
    assert_eq!(moved(), before);
    clients.finish();
    // To one that the other node holds.
    let done = lbd(&lb1, &["failover", "w"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    settled(&lab, "lb2", "lb1", &["10.9.0.101", "10.9.0.102"]);
    let back = file(&[("v", 77, &[]), ("w", 78, &[102, 101, 100])]);
    let back = back.replace(&table("v", 77, false, &[]), "");
    let back = back.replace(&table("v6", 77, true, &[]), "");
    reload(&lb2, &back);
    reload(&lb1, &back);
    settled(&lab, "lb2", "lb1", &["10.9.0.100", "10.9.0.101"]);
    assert!(on(&lab, "lb1", "fd00:9::100"));
}

#[test]
fn a_router_that_gets_another_name_goes_on_as_it_is() {
    let Some(lab) = lab_of_both_families() else {
        return;
    };
    let folder = Folder::new("reload-renamed-vip");
    let first = file(&[("v", 77, &[100, 101]), ("w", 78, &[102])]);
    let (lb1, lb2) = pair_of(&lab, &folder, &first);
    settled(&lab, "lb1", "lb2", &ALL);
    let monitor = Monitor::start(&lab, "lb1", &folder);
    let clients = Clients::of(&lab, "10.9.0.100");
    clients.asks.wait_answers(20);
    let states = || (count(&lb1, "state changed"), count(&lb2, "state changed"));
    let (before, sent) = (states(), counted(&lb1, "adverts_sent"));
    let moved = || (count(&lb1, "from=Active"), count(&lb2, "to=Active"));
    let unmoved = moved();
    let x = file(&[("x", 77, &[100, 101]), ("w", 78, &[102])]);
    // They change places, also in the file.
    let swapped = file(&[("x", 78, &[102]), ("w", 77, &[100, 101])]);
    let said = reload(&lb1, &x);
    assert!(said.contains("~ vip.x: v → x"), "{said}");
    reload(&lb2, &x);
    for text in [&swapped, &first] {
        reload(&lb1, text);
        reload(&lb2, text);
    }
    assert_eq!(states(), before);
    assert!(counted(&lb1, "adverts_sent") >= sent, "counters go on");
    // With another address.
    let more = file(&[("x", 77, &[100, 101, 103]), ("w", 78, &[102])]);
    reload(&lb1, &more);
    reload(&lb2, &more);
    clients.asks.wait_answers(20);
    settled(&lab, "lb1", "lb2", &["10.9.0.103", "fd00:9::103"]);
    assert_eq!(monitor.removed(), [""; 0]);
    assert_eq!(moved(), unmoved);
    assert_eq!(counted(&lb2, "resigns_received"), 0);
    clients.finish();
}

/// Of two routers one goes, and the other gets its vrid.
fn gets_the_vrid(folder: &str, virtual_mac: bool) {
    let Some(lab) = lab_of_both_families() else {
        return;
    };
    let folder = Folder::new(folder);
    let two = file(&[("v", 77, &[100]), ("w", 78, &[101])]);
    let one = file(&[("v", 78, &[100])]);
    let (lb1, lb2) = pair_of(&lab, &folder, &two);
    let own_device = |text: &str| match virtual_mac {
        true => text.replace("preempt = false", "preempt = false\nvirtual-mac = true"),
        false => text.to_owned(),
    };
    let stay = ["10.9.0.100", "fd00:9::100"];
    for text in [&two, &one] {
        reload(&lb2, &own_device(text));
        reload(&lb1, &own_device(text));
        settled(&lab, "lb1", "lb2", &stay);
    }
    let heard = || counted(&lb2, "adverts_received");
    // Of two routers, for longer than one that leaves waits for another.
    let goal = heard() + 14;
    wait_for("lb2 to hear them all", SOON, || {
        (heard() >= goal).then_some(())
    });
    assert_eq!(counted(&lb2, "resigns_received"), 0);
    assert_eq!(count(&lb2, "to=Active"), 0);
    assert_eq!(count(&lb1, "to=Leaving"), 0);
    assert!(!on(&lab, "lb1", "10.9.0.101"));
    settled(&lab, "lb1", "lb2", &stay);
}

#[test]
fn a_router_that_gets_the_vrid_of_one_that_goes_is_not_ended_by_it() {
    gets_the_vrid("reload-vrid", false);
}

#[test]
fn a_router_that_gets_the_device_of_one_that_goes_keeps_it() {
    gets_the_vrid("reload-device", true);
}
