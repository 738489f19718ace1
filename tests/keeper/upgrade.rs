//! The program is changed under load, without a VIP: no rights needed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use super::alone::{single, wait_served};
use super::node::{Client, Folder, Node, SOON, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A node that serves, and runs from a copy of the program that can be replaced.
struct Installed {
    node: Node,
    program: PathBuf,
    address: SocketAddr,
    /// Last: the node's files are in it.
    _folder: Folder,
}

fn installed(name: &str) -> Installed {
    let folder = Folder::new(name);
    let (address, config) = single();
    let program = folder.0.join("lbd");
    install(Path::new(env!("CARGO_BIN_EXE_lbd")), &program);
    let mut node = Node::prepare(&folder, "lb", &config, None);
    node.program = program.clone();
    node.restart();
    wait_served(address);
    Installed {
        node,
        program,
        address,
        _folder: folder,
    }
}

/// As a package manager does: the new file takes the old one's name.
fn install(program: &Path, path: &Path) {
    let beside = path.with_extension("new");
    fs::copy(program, &beside).unwrap();
    fs::rename(&beside, path).unwrap();
}

fn install_script(text: &str, path: &Path) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&beside, path).unwrap();
}

pub(crate) fn upgrade(node: &Node) -> Output {
    node.lbd(&["upgrade"])
}

/// A connection that lives on.
pub(crate) struct Stream(pub(crate) TcpStream);

impl Stream {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut stream = Self(stream);
        stream.ask();
        stream
    }

    pub(crate) fn ask(&mut self) {
        self.0.write_all(b"x").unwrap();
        self.0.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn an_upgrade_under_load_refuses_nobody_and_cuts_no_stream() {
    let Installed {
        mut node,
        program,
        address,
        _folder,
    } = installed("upgrade");
    let client = Client::start(address);
    client.wait_answers(20);
    let mut streams: Vec<Stream> = (0..10).map(|_| Stream::open(address)).collect();
    let keeper = node.keeper().id();
    for round in 1..=3 {
        let before = node.proxy_that_serves();
        install(Path::new(env!("CARGO_BIN_EXE_lbd")), &program);
        let output = upgrade(&node);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}\n{}", node.log());
        assert!(said.starts_with("upgraded from "), "{said}");
        assert_eq!(node.log().matches("keeper replaced from").count(), round);
        wait_for("another proxy", SOON, || {
            (node.proxy_that_serves() != before).then_some(())
        });
        client.wait_answers(20);
        streams.iter_mut().for_each(Stream::ask);
        assert_eq!(node.keeper().id(), keeper);
        assert!(node.keeper().try_wait().unwrap().is_none());
    }
    // The streams keep the first process; without them it goes.
    assert!(node.proxies().len() >= 2, "{:?}", node.proxies());
    drop(streams);
    wait_for("one proxy", SOON, || {
        (node.proxies().len() == 1).then_some(())
    });
    let outcome = client.finish();
    assert!(outcome.failed.is_empty(), "{outcome:?}\n{}", node.log());
    node.signal_keeper(Signal::SIGTERM);
    assert_eq!(node.exit_code(), Some(0), "{}", node.log());
    assert!(node.proxies().is_empty());
}

#[test]
fn a_program_that_does_not_come_up_changes_nothing() {
    let Installed {
        node,
        program,
        address,
        _folder,
    } = installed("no-upgrade");
    let client = Client::start(address);
    let proxy = node.proxy();
    // One that ends, one that is none, and none.
    install_script("#!/bin/sh\nexit 3\n", &program);
    let output = upgrade(&node);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    install_script("no program", &program);
    assert_eq!(upgrade(&node).status.code(), Some(1));
    fs::remove_file(&program).unwrap();
    assert_eq!(upgrade(&node).status.code(), Some(1));
    let log = node.log();
    assert_eq!(
        log.matches("upgrade failed: what ran before goes on")
            .count(),
        3,
        "{log}"
    );
    assert!(log.contains("exit code 3"), "{log}");
    client.wait_answers(20);
    assert_eq!(node.proxies(), [proxy]);
    let outcome = client.finish();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
}

#[test]
fn a_keeper_program_that_does_not_come_up_gives_way_to_the_one_before() {
    let Installed {
        node,
        program,
        address,
        _folder,
    } = installed("way-back");
    let client = Client::start(address);
    let first = node.proxy();
    // Its proxy works; its keeper finds no runtime directory it may use.
    let real = env!("CARGO_BIN_EXE_lbd");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = proxy ]; then exec {real} \"$@\"; fi\n\
         exec {real} --config \"$2\" --runtime-dir /proc/nowhere\n"
    );
    install_script(&script, &program);
    let output = upgrade(&node);
    assert_eq!(output.status.code(), Some(1), "{output:?}\n{}", node.log());
    node.wait_log("back to the one before");
    wait_for("the keeper before", SOON, || {
        node.log().contains("upgrade failed").then_some(())
    });
    client.wait_answers(20);
    // The proxy that it left is watched as any other.
    let second = node.proxy_that_serves();
    assert_ne!(second, first);
    kill(Pid::from_raw(second), Signal::SIGKILL).unwrap();
    wait_served(address);
    let outcome = client.finish();
    let refused = outcome.failed.iter().filter(|why| why.contains("refused"));
    assert_eq!(refused.count(), 0, "{outcome:?}");
    assert!(outcome.failed.len() <= 1, "{outcome:?}");
}

#[test]
fn sigusr2_upgrades_too_and_a_drained_process_is_told_apart_from_a_new_one() {
    let Installed {
        node,
        program: _,
        address,
        _folder,
    } = installed("usr2");
    let mut stream = Stream::open(address);
    let first = node.proxy();
    node.signal_keeper(Signal::SIGUSR2);
    node.wait_log("keeper replaced from");
    node.wait_log("a proxy that was succeeded still drains");
    stream.ask();
    // Longer than a surplus process would get.
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    wait_for("one proxy", Duration::from_secs(5), || {
        (node.proxies().len() == 1).then_some(())
    });
    wait_served(address);
}

/// Three connections are allowed; two live on in the process that was succeeded.
fn keeps_limit_over_an_upgrade(name: &str, limited: impl Fn(&str) -> String) {
    let folder = Folder::new(name);
    let (address, config) = single();
    let mut node = Node::prepare(&folder, "lb", &limited(&config), None);
    node.restart();
    wait_served(address);
    let mut old = vec![Stream::open(address), Stream::open(address)];
    let before = node.proxy();
    let output = upgrade(&node);
    assert!(output.status.success(), "{output:?}\n{}", node.log());
    let mut third = Stream::open(address);
    let mut fourth = TcpStream::connect(address).unwrap();
    fourth.write_all(b"x").unwrap();
    fourth
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    // It waits: for the limit, not for want of a server.
    let early = fourth.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock, "{early}");
    third.ask();
    old.iter_mut().for_each(Stream::ask);
    assert_eq!(node.proxies().len(), 2);
    // One less there is one more here.
    old.pop();
    fourth
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    fourth.read_exact(&mut [0]).unwrap();
    // What a process had that died is free, too.
    let mut fifth = TcpStream::connect(address).unwrap();
    fifth.write_all(b"x").unwrap();
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    fifth
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    fifth.read_exact(&mut [0]).unwrap();
    node.wait_log("limits are kept together with another process shared=false");
}

#[test]
fn a_servers_limit_is_exact_over_two_processes() {
    let limit = "backend-defaults = { max-connections = 3, max-queue = 8 }";
    keeps_limit_over_an_upgrade("server-limit", |config| format!("{config}{limit}\n"));
}

#[test]
fn a_proxys_limit_is_exact_over_two_processes() {
    let limit = "max-connections = 3";
    keeps_limit_over_an_upgrade("proxy-limit", |config| format!("{config}{limit}\n"));
}

#[test]
fn the_limit_of_all_proxies_is_exact_over_two_processes() {
    let limit = "[limits]\nmax-connections = 3\n";
    keeps_limit_over_an_upgrade("process-limit", |config| {
        config.replace("[limits]\n", limit)
    });
}
