//! The tapes of a proxy process that dies outlive it. No rights needed.

use super::alone::{single, wait_served};
use super::node::{Folder, Node, SOON, wait_for};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A node with a state directory and a second server, `b`, that is there until it is dropped.
fn node(folder: &Folder) -> (Node, TcpListener) {
    node_with(folder, 2)
}

fn node_with(folder: &Folder, workers: u32) -> (Node, TcpListener) {
    let (address, config) = single();
    let config = config.replace("workers = 2", &format!("workers = {workers}"));
    let state = folder.0.join("state");
    fs::create_dir(&state).unwrap();
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = config.split("backends = [\"").nth(1).unwrap();
    let first = first.split('"').next().unwrap().to_owned();
    let backends = format!("backends = [\"{first}\"]\n");
    let servers = format!(
        "[proxy.p.backends]\na = \"{first}\"\nb = \"{}\"\n",
        second.local_addr().unwrap()
    );
    let config = format!(
        "state-dir = \"{}\"\n{}{servers}",
        state.display(),
        config.replace(&backends, "")
    );
    let node = Node::start(folder, "lb", &config, None);
    wait_served(address);
    (node, second)
}

fn end(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn next_proxy(node: &Node, before: i32) -> i32 {
    wait_for("the next proxy", SOON, || {
        let pid = node.proxy_that_serves();
        (pid != before).then_some(pid)
    })
}

/// The recordings of processes that ended, the oldest first.
fn kept(folder: &Folder) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.0.join("state/recorder"));
    let all = all.into_iter().flatten().flatten().map(|e| e.path());
    let mut all: Vec<PathBuf> = all
        .filter(|path| path.to_string_lossy().ends_with("-proxy-ended.rec"))
        .collect();
    all.sort();
    all
}

fn wait_kept(folder: &Folder) -> PathBuf {
    wait_for("a recording of the end", SOON, || kept(folder).pop())
}

fn record(node: &Node, folder: &Folder) -> PathBuf {
    let file = folder.0.join("ordered.rec");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command.args(["record", "--output"]).arg(&file);
    command.arg("--socket").arg(node.runtime.join("admin.sock"));
    wait_for("a recording", SOON, || {
        command.output().unwrap().status.success().then_some(())
    });
    file
}

fn replay(file: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    let done = command.arg("replay").args(arguments).arg(file).output();
    let done = done.unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let wrong = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{said}{wrong}");
    said
}

/// The machines of process `pid`, which ended `how`, by name with their steps; and when it ended.
fn machines_of(file: &Path, pid: i32, how: &str) -> (Vec<(String, Vec<Value>)>, i64) {
    let said: Value = serde_json::from_str(&replay(file, &["-o", "json"])).unwrap();
    let mut at = None;
    let mut found = Vec::new();
    for machine in said["machines"].as_array().unwrap() {
        let ended = &machine["ended"];
        if ended["pid"].as_i64() != Some(pid.into()) {
            continue;
        }
        assert_eq!(ended["how"], how, "{ended}");
        assert_eq!(machine["kind"], "health");
        at = ended["t"].as_i64();
        let name = machine["name"].as_str().unwrap().to_owned();
        found.push((name, machine["steps"].as_array().unwrap().clone()));
    }
    (found, at.unwrap())
}

fn names(machines: &[(String, Vec<Value>)]) -> Vec<&str> {
    machines.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn what_a_killed_proxy_was_told_last_is_in_the_recordings_after_its_end() {
    let folder = Folder::new("black-box");
    let (node, second) = node(&folder);
    let before = node.proxy_that_serves();
    drop(second);
    node.wait_log("server down");
    end(before, Signal::SIGKILL);
    let after = next_proxy(&node, before);

    // By itself, and where the log and the events say.
    let by_itself = wait_kept(&folder);
    let lost = wait_for("the log line", SOON, || {
        let log = node.log();
        let line = log.lines().find(|line| line.contains("proxy lost"));
        line.map(str::to_owned)
    });
    let tapes_to = format!("tapes_to={}", by_itself.display());
    assert!(lost.contains(&tapes_to), "{lost}");
    let mut events = Command::new(env!("CARGO_BIN_EXE_lbd"));
    events.arg("events").arg("--socket");
    let events = events.arg(node.runtime.join("admin.sock"));
    wait_for("the event", SOON, || {
        let said = events.output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let name = by_itself.file_name().unwrap().to_str().unwrap();
        let said = said.lines().find(|line| line.contains(name))?;
        said.contains("are to be written to").then_some(())
    });

    let ordered = record(&node, &folder);
    for file in [&by_itself, &ordered] {
        let (machines, ended) = machines_of(file, before, "killed by signal 9");
        assert_eq!(names(&machines), ["p/a", "p/b"]);
        for (name, steps) in &machines {
            let last = steps.last().unwrap();
            // Checked each 200 ms, and the clocks are on one line.
            let ago_ms = (ended - last["t"].as_i64().unwrap()) / 1_000_000;
            assert!((0..5_000).contains(&ago_ms), "{name}: {ago_ms} ms");
            let (found, state) = match name.as_str() {
                "p/a" => ("ready", "ready"),
                _ => ("unresponsive", "unresponsive"),
            };
            assert_eq!(last["is"]["state"], state, "{name}: {last}");
            assert_eq!(last["in"]["result"]["found"], found, "{name}: {last}");
        }
        let said = replay(file, &["--all"]);
        for expected in [
            format!("health p/b (ended {before})"),
            format!("(ended {before}): of proxy process {before}, which ended"),
            "because connection refused".to_owned(),
        ] {
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
    // Those of the living one are beside them.
    let said = replay(&ordered, &[]);
    assert!(said.contains("\nhealth p/b: "), "{said}");
    assert!(!said.contains("not complete"), "{said}");
    assert_ne!(after, before);
}

/// It comes back from its own code, and drops all it has.
#[test]
fn a_proxy_that_ends_by_an_error_of_its_own_leaves_its_tapes_too() {
    let folder = Folder::new("black-box-error");
    let (node, _second) = node_with(&folder, 128);
    let first = node.proxy_that_serves();
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let all = status.split_once("VmSize:").unwrap().1;
    let all: u64 = all.split_whitespace().next().unwrap().parse().unwrap();
    // The next one has room for half of its threads' stacks.
    let runner = wait_for("a runner", SOON, || node.runner());
    let limit = |bytes: &str| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &runner.to_string(), &format!("--as={bytes}:")]);
        assert!(command.status().unwrap().success());
    };
    limit(&(all * 1024 / 2).to_string());
    end(first, Signal::SIGKILL);
    node.wait_log("cannot start worker");
    wait_for("its end", SOON, || {
        (node.log().matches("proxy lost").count() >= 2).then_some(())
    });
    limit("unlimited");
    let file = record(&node, &folder);
    let said = replay(&file, &[]);
    let (_, pid) = said.split_once("health p/b (ended ").expect(&said);
    let pid: i32 = pid.split(')').next().unwrap().parse().unwrap();
    assert_ne!(pid, first);
    let (machines, _) = machines_of(&file, pid, "exit code 1");
    assert_eq!(names(&machines), ["p/a", "p/b"]);
    assert!(machines.iter().all(|(_, steps)| !steps.is_empty()));
}

#[test]
fn of_processes_that_ended_the_last_one_is_in_a_recording_and_not_each_end_writes_one() {
    let folder = Folder::new("black-box-twice");
    let (node, _second) = node(&folder);
    let first = node.proxy_that_serves();
    end(first, Signal::SIGKILL);
    let second = next_proxy(&node, first);
    wait_kept(&folder);
    end(second, Signal::SIGABRT);
    next_proxy(&node, second);
    let ordered = record(&node, &folder);
    let (machines, _) = machines_of(&ordered, second, "killed by signal 6");
    assert_eq!(names(&machines), ["p/a", "p/b"]);
    let said = replay(&ordered, &[]);
    assert!(!said.contains(&format!("ended {first}")), "{said}");
    assert_eq!(kept(&folder).len(), 1);
    let log = node.log();
    let lost: Vec<&str> = log.lines().filter(|l| l.contains("proxy lost")).collect();
    assert_eq!(lost.len(), 2, "{log}");
    assert!(!lost[1].contains("proxy-ended"), "{lost:?}");
}

#[test]
fn a_proxy_that_outlived_its_keeper_has_its_tapes_at_the_next_one() {
    let folder = Folder::new("black-box-adopted");
    let (mut node, second) = node(&folder);
    let proxy = node.proxy_that_serves();
    drop(second);
    node.wait_log("server down");
    node.kill_keeper();
    node.restart();
    // It is welcome.
    node.wait_log("taken over by a new keeper");
    end(proxy, Signal::SIGKILL);
    next_proxy(&node, proxy);
    // Its end is not this keeper's child's.
    let (machines, _) = machines_of(&wait_kept(&folder), proxy, "how is not known");
    let (_, steps) = machines.iter().find(|(name, _)| name == "p/b").unwrap();
    let states = steps.iter().map(|step| step["is"]["state"].as_str());
    let states: Vec<_> = states.flatten().collect();
    assert!(states.contains(&"ready"), "{states:?}");
    assert_eq!(states.last(), Some(&"unresponsive"));
}

#[test]
fn the_tapes_of_a_hung_proxy_say_that_it_hung() {
    let folder = Folder::new("black-box-hung");
    let (node, _second) = node(&folder);
    let proxy = node.proxy_that_serves();
    end(proxy, Signal::SIGSTOP);
    next_proxy(&node, proxy);
    let how = "killed by signal 9, because it hung";
    let (machines, ended) = machines_of(&wait_kept(&folder), proxy, how);
    assert_eq!(names(&machines), ["p/a", "p/b"]);
    for (name, steps) in &machines {
        let last = steps.last().unwrap()["t"].as_i64().unwrap();
        assert!(last < ended, "{name}: {last} {ended}");
    }
}
