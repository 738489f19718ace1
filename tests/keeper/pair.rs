//! Two nodes with a VIP. Needs root and iproute2; without them it is skipped and says so.

use super::node::{Folder, Node, SOON, echo, enter, wait_for};
use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(super) use crate::segment::Segment as Lab;

impl Lab {
    /// An echo server on that node itself, and its lbd.
    pub(super) fn node(&self, folder: &Folder, short: &str, config: &str) -> Node {
        let namespace = self.name(short);
        let inside = namespace.clone();
        let server = thread::spawn(move || {
            enter(&inside);
            TcpListener::bind("127.0.0.1:7443").unwrap()
        });
        let server = server.join().unwrap();
        echo(server);
        Node::start(folder, short, config, Some(&namespace))
    }
}

pub(super) const PAIR: &str = "
[log]
target = \"stderr\"
[metrics]
listen = \"off\"
[vip.v]
address = \"10.9.0.100/24\"
vrid = 77
advert-interval = \"100ms\"
nodes = [\"10.9.0.1\", \"10.9.0.2\"]
preempt = false
[proxy.p]
listen = \":6443\"
backends = [\"127.0.0.1:7443\"]
check = { type = \"tcp\", interval = \"200ms\" }
";

#[test]
fn a_failing_track_script_hands_the_vip_over() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("pair-script");
    let flag = folder.0.join("unfit");
    // One file for both nodes; the script fails on lb1 alone, once the flag is there.
    let script = format!(
        "[track.script.s]\ncommand = [\"/bin/sh\", \"-c\", \
         \"test $LBD_TRACK = s && ! test -e {} || ! ip -o addr | grep -q 10.9.0.1/\"]\n\
         interval = \"100ms\"\ntimeout = \"5s\"\n",
        flag.display()
    );
    let config = PAIR.replace("preempt", "track = [\"proxy:p\", \"script:s\"]\npreempt");
    let (lb1, _lb2) = pair_of(&lab, &folder, &format!("{config}{script}"));
    lb1.wait_log("track script succeeds");
    fs::write(&flag, "").unwrap();
    let moved = || (lab.holds("lb2") && !lab.holds("lb1")).then_some(());
    wait_for("the vip to move", SOON, moved);
    lb1.wait_log("track script fails");
}

/// lb1 holds the VIP, lb2 watches.
pub(super) fn pair_of(lab: &Lab, folder: &Folder, config: &str) -> (Node, Node) {
    let lb1 = lab.node(folder, "lb1", config);
    wait_for("lb1 to hold the vip", SOON, || {
        lab.holds("lb1").then_some(())
    });
    let lb2 = lab.node(folder, "lb2", config);
    // Until its own check interval has passed it counts itself as unfit to replace a holder.
    wait_for("lb2 to be fit", SOON, || {
        lb2.status()
            .contains("\"effective_priority\":190")
            .then_some(())
    });
    (lb1, lb2)
}

/// One of the pair alone; its address has no lifetime.
fn lone(lab: &Lab, folder: &Folder) -> Node {
    let config = PAIR
        .replace("100ms\"\nnodes", "1s\"\nnodes")
        .replace("preempt", "lease = \"off\"\npreempt");
    let node = lab.node(folder, "lb1", &config);
    wait_for("lb1 to hold the vip", SOON, || {
        lab.holds("lb1").then_some(())
    });
    node
}

#[test]
fn a_second_sigterm_does_not_wait_and_leaves_no_address_behind() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("term-twice");
    let mut lb1 = lone(&lab, &folder);
    lb1.signal_keeper(Signal::SIGTERM);
    lb1.wait_log("to=Leaving");
    let begin = clock::now();
    lb1.signal_keeper(Signal::SIGTERM);
    assert_eq!(lb1.exit_code(), Some(0));
    let took = clock::now() - begin;
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(!lab.holds("lb1"));
}

#[test]
fn a_keeper_that_cannot_start_leaves_no_address_behind() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("no-start");
    let mut lb1 = lone(&lab, &folder);
    let proxy = lb1.proxy();
    lb1.kill_keeper();
    kill(Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    let namespace = lab.name("lb1");
    let holder = thread::spawn(move || {
        enter(&namespace);
        wait_for("the port", SOON, || TcpListener::bind("[::]:6443").ok())
    });
    let holder = holder.join().unwrap();
    assert!(lab.holds("lb1"));
    lb1.restart();
    assert_eq!(lb1.exit_code(), Some(1));
    assert!(lb1.log().contains("held by another process"));
    assert!(!lab.holds("lb1"));
    drop(holder);
}

#[test]
fn an_address_that_the_file_no_longer_has_is_removed_at_start() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("forgotten");
    let mut lb1 = lone(&lab, &folder);
    lb1.kill_keeper();
    let config = fs::read_to_string(&lb1.config).unwrap();
    fs::write(&lb1.config, config.replace("0.100/24", "0.101/24")).unwrap();
    assert!(lab.holds("lb1"));
    lb1.restart();
    wait_for("the old vip to go", SOON, || {
        (!lab.holds("lb1")).then_some(())
    });
}

#[test]
fn a_node_whose_address_is_late_is_tried_again() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("late");
    let here = lab.name("lb1");
    lab.ip(&format!("-n {here} addr del 10.9.0.1/24 dev eth0"));
    let mut lb1 = lab.node(&folder, "lb1", PAIR);
    assert_eq!(lb1.exit_code(), Some(1));
    assert!(lb1.log().contains("not among the nodes"));
}
