//! The flight recorder in real pairs: what the daemon wrote down goes through the state machines
//! again and gives the same, step for step. With `LBD_KEEP_RECORDINGS=DIR` the recordings are copied
//! there: so those of tests/replay were made.

use super::node::{Folder, Node, SOON, enter, wait_for};
use super::pair::{Lab, PAIR, pair_of};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PASSWORD: &str = "s3cr3t-of-a-pair-that-nobody-may-read";

fn lbd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command.args(arguments).output().unwrap()
}

/// Orders a recording, replays it, and says what the timeline was.
fn record(node: &Node, folder: &Folder, name: &str) -> String {
    let file = folder.0.join(format!("{name}.rec"));
    let target = file.to_str().unwrap();
    let socket = node.runtime.join("admin.sock");
    let socket = socket.to_str().unwrap();
    wait_for("a recording", SOON, || {
        let done = lbd(&["record", "--output", target, "--socket", socket]);
        done.status.success().then_some(())
    });
    replay(&file, name)
}

fn replay(file: &PathBuf, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    assert!(
        !text.contains(PASSWORD),
        "{name}: the key is in the recording"
    );
    if let Some(keep) = std::env::var_os("LBD_KEEP_RECORDINGS") {
        fs::copy(file, PathBuf::from(keep).join(format!("{name}.rec"))).unwrap();
    }
    let done = lbd(&["replay", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{name}: {said}{wrong}");
    said
}

fn moved(lab: &Lab, to: &str, from: &str) {
    wait_for("the vip to move", SOON, || {
        (lab.holds(to) && !lab.holds(from)).then_some(())
    });
}

#[test]
fn failovers_of_a_real_pair_replay_as_they_were() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("pair-recorder");
    let config = PAIR.replace(
        "preempt = false",
        &format!(
            "preempt = false\nadvert-spacing = \"100ms\"\n\
             auth = {{ type = \"hmac\", keys = [{{ id = 1, key = \"{PASSWORD}\" }}] }}"
        ),
    );
    let (mut lb1, mut lb2) = pair_of(&lab, &folder, &config);

    // The proxy is killed and replaced, then it hangs: the other node takes over.
    kill(Pid::from_raw(lb1.proxy_that_serves()), Signal::SIGKILL).unwrap();
    lb1.wait_log("proxy process ended");
    let next = wait_for("the next proxy", SOON, || {
        lb1.status()
            .contains("\"proxy_starts\":2")
            .then(|| lb1.proxy_that_serves())
    });
    kill(Pid::from_raw(next), Signal::SIGSTOP).unwrap();
    moved(&lab, "lb2", "lb1");
    lb1.wait_log("hung proxy killed");
    lb1.proxy_that_serves();
    let said = record(&lb1, &folder, "proxy-killed");
    assert!(said.contains("not serving"), "{said}");
    assert!(said.contains("supervise proxy"), "{said}");

    // That node dies whole.
    for pid in lb2.proxies() {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
    }
    lb2.kill_keeper();
    wait_for("lb1 to take over", SOON, || lab.holds("lb1").then_some(()));
    let said = record(&lb1, &folder, "node-killed");
    assert!(said.contains("the active node fell silent"), "{said}");

    // It comes back, and the wire between the two is cut for a while.
    lb2.restart();
    wait_for("lb2 to be fit", SOON, || {
        let fit = lb2.status().contains("\"effective_priority\":190");
        fit.then_some(())
    });
    let switch = lab.name("sw");
    lab.ip(&format!("-n {switch} link set vlb1 nomaster"));
    wait_for("lb2 to take over", SOON, || lab.holds("lb2").then_some(()));
    assert!(lab.holds("lb1"), "a partition has two holders");
    lab.ip(&format!("-n {switch} link set vlb1 master br0"));
    wait_for("one holder", SOON, || {
        (lab.holds("lb1") != lab.holds("lb2")).then_some(())
    });
    let said = record(&lb2, &folder, "partition-lb2");
    assert!(said.contains("the active node fell silent"), "{said}");
    record(&lb1, &folder, "partition-lb1");

    // What the daemon wrote by itself because the address moved, five seconds after that.
    let of_itself = wait_for("a recording by itself", Duration::from_secs(20), || {
        let all = fs::read_dir(lb1.runtime.join("recorder")).ok()?.flatten();
        let mut all = all.map(|entry| entry.path());
        all.find(|path| path.to_string_lossy().ends_with("-vip-move.rec"))
    });
    let said = replay(&of_itself, "of-itself");
    assert!(said.contains("health p/"), "{said}");
    lb1.kill_keeper();
}

/// A server dies while the proxies watch, then a track script fails on the node that holds the VIP, so
/// its priority drops and the other one preempts it.
#[test]
fn one_recording_says_why_the_vip_moved_and_why_a_server_was_taken_out() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("pair-causes");
    let client = lab.name("cl");
    let server = std::thread::spawn(move || {
        enter(&client);
        TcpListener::bind("10.9.0.9:7444").unwrap()
    });
    let server = server.join().unwrap();
    let flag = folder.0.join("unfit");
    let config = PAIR
        .replace(
            "preempt = false",
            "preempt = true\ntrack = [\"proxy:p\", \"script:s:-20\"]",
        )
        .replace("backends = [\"127.0.0.1:7443\"]\n", "");
    let config = format!(
        "{config}[proxy.p.backends]\na = \"127.0.0.1:7443\"\nb = \"10.9.0.9:7444\"\n\
         [track.script.s]\ncommand = [\"/bin/sh\", \"-c\", \
         \"! test -e {} || ! ip -o addr | grep -q 10.9.0.1/\"]\ninterval = \"200ms\"\n",
        flag.display()
    );
    let (mut lb1, _lb2) = pair_of(&lab, &folder, &config);
    lb1.wait_log("track script succeeds");
    drop(server);
    lb1.wait_log("server down");
    fs::write(&flag, "").unwrap();
    moved(&lab, "lb2", "lb1");
    let said = record(&lb1, &folder, "server-and-track");
    for expected in [
        "health p/b",
        "because connection refused",
        "script s",
        "because script s became failed",
        "script:s failed (-20)",
        "because judge v became can-serve, weight -20",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("not complete"), "{said}");
    lb1.kill_keeper();
}
