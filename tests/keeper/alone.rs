//! One node without a VIP: no rights needed.

use super::node::{Client, Folder, Node, SOON, ask, echo, wait_for};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use lbd::ipc::message::{Hello, ToKeeper};
use lbd::net::clock;
use lbd::net::seqpacket::Connection;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A configuration with one proxy on a free port and one echo server; its address.
pub(crate) fn single() -> (SocketAddr, String) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = server.local_addr().unwrap();
    echo(server);
    let address = crate::port::held();
    let config = format!(
        "[log]\ntarget = \"stderr\"\n[metrics]\nlisten = \"off\"\n[limits]\nworkers = 2\n\
         [proxy.p]\nlisten = \"{address}\"\nbackends = [\"{backend}\"]\n\
         check = {{ type = \"tcp\", interval = \"200ms\" }}\n"
    );
    (address, config)
}

pub(crate) fn wait_served(address: SocketAddr) {
    wait_for("an answer", SOON, || ask(address).ok());
}

#[test]
fn a_killed_proxy_is_replaced_and_nobody_is_refused() {
    let folder = Folder::new("killed");
    let (address, config) = single();
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let client = Client::start(address);
    for _ in 0..3 {
        client.wait_answers(20);
        let before = node.proxy();
        kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
        wait_for("another proxy", SOON, || {
            let proxies = node.proxies();
            (!proxies.is_empty() && !proxies.contains(&before)).then_some(())
        });
        client.wait_answers(20);
    }
    let outcome = client.finish();
    // A connection that the killed process had accepted is lost with it; none is refused.
    let refused = outcome.failed.iter().filter(|why| why.contains("refused"));
    assert_eq!(refused.count(), 0, "{outcome:?}");
    assert!(outcome.failed.len() <= 3, "{outcome:?}");
}

#[test]
fn a_killed_keeper_is_missed_by_nobody_and_the_next_one_adopts_the_proxy() {
    let folder = Folder::new("adopted");
    let (address, config) = single();
    let mut node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let client = Client::start(address);
    let proxy = node.proxy();
    for _ in 0..2 {
        node.kill_keeper();
        client.wait_answers(20);
        node.restart();
        node.wait_log("proxy adopted");
        client.wait_answers(20);
    }
    assert_eq!(node.proxies(), [proxy]);
    let outcome = client.finish();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    // The adopted proxy, no child of this keeper, is watched all the same.
    kill(Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    wait_served(address);
    assert_ne!(node.proxy(), proxy);
}

#[test]
fn a_restart_with_another_configuration_keeps_the_port_open() {
    let folder = Folder::new("replaced");
    let (address, config) = single();
    let mut node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let client = Client::start(address);
    client.wait_answers(20);
    let before = node.proxy();
    node.kill_keeper();
    fs::write(&node.config, format!("{config}retries = 1\n")).unwrap();
    node.restart();
    wait_for("the old proxy to leave", Duration::from_secs(20), || {
        let proxies = node.proxies();
        (!proxies.is_empty() && !proxies.contains(&before)).then_some(())
    });
    client.wait_answers(20);
    let outcome = client.finish();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
}

#[test]
fn a_hung_proxy_is_killed_after_two_seconds_and_replaced() {
    let folder = Folder::new("hung");
    let (address, config) = single();
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let before = node.proxy();
    let begin = clock::now();
    kill(Pid::from_raw(before), Signal::SIGSTOP).unwrap();
    wait_for("another proxy", SOON, || {
        let proxies = node.proxies();
        (!proxies.is_empty() && !proxies.contains(&before)).then_some(())
    });
    let took = clock::now() - begin;
    assert!(took >= Duration::from_secs(2), "{took:?}");
    wait_served(address);
    assert!(node.log().contains("proxy hangs reason=stopped"));
}

#[test]
fn sigterm_ends_every_process_and_a_second_keeper_is_refused() {
    let folder = Folder::new("term");
    let (address, config) = single();
    let mut node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let mut second = node.launch();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert!(node.log().contains("another lbd runs"));
    wait_served(address);
    node.signal_keeper(Signal::SIGHUP);
    node.wait_log("configuration reloaded result=unchanged");
    node.signal_keeper(Signal::SIGTERM);
    assert_eq!(node.exit_code(), Some(0));
    assert!(node.proxies().is_empty());
    assert!(ask(address).is_err());
}

#[test]
fn a_proxy_that_hangs_when_its_keeper_dies_gives_way_to_the_next() {
    let folder = Folder::new("stuck");
    let (address, config) = single();
    let mut node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let before = node.proxy();
    kill(Pid::from_raw(before), Signal::SIGSTOP).unwrap();
    node.kill_keeper();
    node.restart();
    wait_for("another proxy", SOON, || {
        let proxies = node.proxies();
        (!proxies.is_empty() && !proxies.contains(&before)).then_some(())
    });
    wait_served(address);
}

#[test]
fn sigterm_ends_a_proxy_that_no_keeper_has_adopted_yet() {
    let folder = Folder::new("orphan");
    let (address, config) = single();
    let mut node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let orphan = node.proxy();
    // It can't come to the next keeper, which waits for it.
    kill(Pid::from_raw(orphan), Signal::SIGSTOP).unwrap();
    node.kill_keeper();
    node.restart();
    wait_for("the next keeper", SOON, || {
        (node.log().matches("runner started").count() == 2).then_some(())
    });
    node.signal_keeper(Signal::SIGTERM);
    assert_eq!(node.exit_code(), Some(0), "{}", node.log());
    wait_for("no proxy", SOON, || node.proxies().is_empty().then_some(()));
}

#[test]
fn a_killed_or_hung_runner_is_replaced_and_the_proxy_stays() {
    let folder = Folder::new("runner");
    let (address, config) = single();
    let script = "[track.script.s]\ncommand = [\"/bin/true\"]\n\
                  interval = \"100ms\"\ntimeout = \"100ms\"\n";
    let node = Node::start(&folder, "lb", &format!("{config}{script}"), None);
    wait_served(address);
    let proxy = node.proxy();
    let runner = || wait_for("one runner", SOON, || node.runner());
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let before = runner();
        kill(Pid::from_raw(before), signal).unwrap();
        wait_for("another runner", SOON, || {
            node.runner().filter(|now| *now != before)
        });
    }
    assert_eq!(node.proxies(), [proxy]);
    kill(Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    wait_served(address);
}

#[test]
fn a_runner_killed_in_the_middle_of_a_run_costs_no_script_its_verdict() {
    let folder = Folder::new("midrun");
    let (address, config) = single();
    let script = |name| {
        format!(
            "[track.script.{name}]\ncommand = [\"/bin/sleep\", \"0.3\"]\n\
             interval = \"1s\"\ntimeout = \"1s\"\n"
        )
    };
    let config = format!("{config}{}{}", script("one"), script("two"));
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let runner = wait_for("one runner", SOON, || node.runner());
    let path = format!("/proc/{runner}/task/{runner}/children");
    wait_for("both scripts beside the proxy", SOON, || {
        let children = fs::read_to_string(&path).unwrap();
        (children.split_whitespace().count() == 3).then_some(())
    });
    kill(Pid::from_raw(runner), Signal::SIGKILL).unwrap();
    let next = wait_for("another runner", SOON, || {
        node.runner().filter(|now| *now != runner)
    });
    // A result that is missed is missed 3 s after its run began.
    let begin = clock::now();
    wait_for("some runs", SOON, || {
        let log = node.log();
        assert!(!log.contains("runner hangs"), "the next runner was blamed");
        assert!(!log.contains("track script fails"), "no result is none");
        (clock::now() - begin > Duration::from_secs(4)).then_some(())
    });
    assert_eq!(node.runner(), Some(next));
}

#[test]
fn strangers_at_the_keepers_socket_change_nothing() {
    let folder = Folder::new("strangers");
    let (address, config) = single();
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let proxy = node.proxy();
    let connect = || Connection::connect(&node.runtime.join("keeper.sock")).unwrap();
    let silent: Vec<Connection> = (0..12).map(|_| connect()).collect();
    connect().send(&[0xff; 512], &[]).unwrap();
    // A greeting in the name of another process, which asks for the listeners.
    let hello = ToKeeper::Hello(Hello {
        pid: 1,
        version: "0".into(),
        config_digest: 0,
        serving: false,
    });
    let impostor = connect();
    impostor.send(&hello.encode().unwrap(), &[]).unwrap();
    wait_for("the impostor to be turned away", SOON, || {
        let received = impostor.receive(&mut [0; 256]).ok()??;
        assert_eq!((received.len, received.fds.len()), (0, 0));
        Some(())
    });
    // The proxy is replaced all the same.
    kill(Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    wait_served(address);
    assert_ne!(node.proxy(), proxy);
    drop(silent);
}

/// What any process of our user can say to a keeper whose proxy serves: it is told to end.
fn surplus(node: &Node) -> Connection {
    let connection = Connection::connect(&node.runtime.join("keeper.sock")).unwrap();
    let hello = ToKeeper::Hello(Hello {
        pid: std::process::id(),
        version: "0".into(),
        config_digest: 0,
        serving: false,
    });
    connection.send(&hello.encode().unwrap(), &[]).unwrap();
    connection
}

#[test]
fn surplus_proxies_that_stay_cost_a_bounded_number_of_descriptors() {
    let folder = Folder::new("surplus");
    let (address, config) = single();
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let keeper = node.keeper.as_ref().unwrap().id();
    let open = || fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    let before = open();
    let mut stay = Vec::new();
    for told in 1..=60 {
        stay.push(surplus(&node));
        wait_for("it to be told", SOON, || {
            let said = node.log().matches("surplus proxy told to end").count();
            (said == told).then_some(())
        });
    }
    let now = open();
    assert!(now <= before + 16, "{before}, then {now}");
    wait_served(address);
    drop(stay);
}

#[test]
fn a_keeper_without_a_free_descriptor_does_not_spin() {
    let folder = Folder::new("emfile");
    let (address, config) = single();
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let keeper = node.keeper.as_ref().unwrap().id();
    let limit = |files: &str| {
        let mut command = Command::new("prlimit");
        let done = command.args(["--pid", &keeper.to_string(), &format!("--nofile={files}:")]);
        assert!(done.status().unwrap().success());
    };
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
        let fields: Vec<&str> = stat.split_whitespace().collect();
        fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
    };
    let path = |fd: u32| format!("/proc/{keeper}/fd/{fd}");
    let free = (0..).find(|fd| fs::symlink_metadata(path(*fd)).is_err());
    limit(&free.unwrap().to_string());
    let connection = surplus(&node);
    node.wait_log("keeper.sock does not accept");
    let begin = (clock::now(), ticks());
    wait_for("a second", SOON, || {
        (clock::now() - begin.0 > Duration::from_secs(1)).then_some(())
    });
    let used = ticks() - begin.1;
    assert!(used < 30, "{used} of 100 ticks");
    assert_eq!(node.log().matches("does not accept").count(), 1);
    limit("1024");
    node.wait_log("surplus proxy told to end");
    drop(connection);
}

#[test]
fn a_port_held_by_another_program_is_refused() {
    let folder = Folder::new("held");
    let (address, config) = single();
    let holder = TcpListener::bind(address).unwrap();
    let mut node = Node::start(&folder, "lb", &config, None);
    assert_eq!(node.exit_code(), Some(1));
    assert!(node.log().contains("held by another process"));
    drop(holder);
}
