//! Servers that operators change at run time: the whole daemon, confined as it always is, `lbd
//! drain`, `ready`, `maint`, `weight` and `server` beside it, and clients that count who answered.

#![cfg(test)]

#[path = "lab/port.rs"]
mod port;
#[path = "lab/program.rs"]
mod program;

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::thread;
use std::time::{Duration, Instant};

use lbd::admin::protocol::{ask_events, ask_status};
use lbd::admin::status::{ProxyStatus, ServerState, ServerStatus};
use lbd::ipc::event::{Event, EventKind};
use lbd::net::clock;
use program::Folder;

const PATIENCE: Duration = Duration::from_secs(20);

fn wait_for<T>(what: &str, seen: impl FnMut() -> Option<T>) -> T {
    program::wait_for(what, PATIENCE, seen)
}

/// A server that says its name and then nothing until its client leaves.
fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                use std::io::Write;
                let mut stream = stream;
                if stream.write_all(name.as_bytes()).is_ok() {
                    let mut rest = [0; 16];
                    while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
                }
            });
        }
    });
    address
}

struct Daemon<'a> {
    dir: &'a Path,
    keeper: Child,
    listen: SocketAddr,
}

impl<'a> Daemon<'a> {
    /// `rest`: further keys of `[proxy.kube]`, then its `[proxy.kube.backends]`.
    fn start(dir: &'a Folder, top: &str, rest: &str) -> Self {
        let (dir, listen) = (dir.0.as_path(), port::held());
        let text = format!(
            "{top}\n[log]\ntarget = \"stderr\"\n[proxy.kube]\nlisten = \"{listen}\"\n\
             slowstart = \"off\"\n\
             check = {{ type = \"tcp\", interval = \"200ms\", timeout = \"200ms\" }}\n{rest}"
        );
        fs::write(dir.join("lb.toml"), text).unwrap();
        fs::create_dir_all(dir.join("state")).unwrap();
        let keeper = program::start_in(dir, program::lbd());
        let daemon = Self {
            dir,
            keeper,
            listen,
        };
        daemon.wait_served();
        daemon
    }

    /// The keeper dies; the next one takes the proxy process over.
    fn crash_keeper(&mut self) {
        self.keeper.kill().unwrap();
        self.keeper.wait().unwrap();
        self.keeper = program::start_in(self.dir, program::lbd());
        wait_for("the next keeper", || {
            self.log().contains("proxy adopted").then_some(())
        });
        self.wait_served();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/admin.sock")
    }

    fn proxy(&self) -> Option<ProxyStatus> {
        let status = ask_status(&self.socket()).ok()?;
        let served = status.process.serving && status.process.keeper_heard_ms.is_some();
        served.then_some(())?;
        status.proxies.into_iter().next()
    }

    fn wait_served(&self) {
        wait_for("it serves", || {
            self.proxy().filter(|proxy| proxy.probed).map(drop)
        });
    }

    fn server(&self, name: &str) -> Option<ServerStatus> {
        let servers = self.proxy()?.servers;
        servers.into_iter().find(|server| server.name == name)
    }

    fn wait_state(&self, name: &str, state: ServerState) -> ServerStatus {
        wait_for(&format!("{name} {}", state.word()), || {
            self.server(name).filter(|server| server.state == state)
        })
    }

    /// `lbd WORDS`.
    fn lbd(&self, words: &[&str]) -> Output {
        program::order(&self.socket(), words)
    }

    /// What it said, if it said that it was done.
    fn done(&self, words: &[&str]) -> String {
        let output = self.lbd(words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap() + &errors
    }

    fn refused(&self, words: &[&str]) -> String {
        let output = self.lbd(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A client: its connection, and who answered.
    fn client(&self) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut name = [0; 16];
        let read = stream.read(&mut name).unwrap();
        (stream, String::from_utf8_lossy(&name[..read]).into_owned())
    }

    /// Who answers so many clients, in alphabetical order.
    fn answers(&self, count: usize) -> String {
        let mut names: Vec<String> = (0..count).map(|_| self.client().1).collect();
        names.sort_unstable();
        names.concat()
    }

    fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        ask_events(&self.socket(), 1_000, false, |events| {
            all.extend(events);
            false
        })
        .unwrap();
        all.retain(|event| event.kind == EventKind::Server);
        all
    }

    /// The proxy process dies; the next one serves.
    fn crash_proxy(&self) {
        let pid = ask_status(&self.socket()).unwrap().process.pid;
        let raw = i32::try_from(pid).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(raw),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        wait_for("another proxy process", || {
            let status = ask_status(&self.socket()).ok()?;
            (status.process.pid != pid && status.process.serving).then_some(())
        });
        self.wait_served();
    }

    /// As a service manager does it: SIGTERM, then the end.
    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        program::end(&mut self.keeper, PATIENCE);
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Servers a and b, and where they are.
fn two() -> (String, [SocketAddr; 2]) {
    let addresses = [server("a"), server("b")];
    let [a, b] = addresses;
    let text = format!("[proxy.kube.backends]\na = \"{a}\"\nb = \"{b}\"\n");
    (text, addresses)
}

#[test]
fn a_drained_server_keeps_its_connections_and_gets_no_more() {
    let dir = Folder::new("drain");
    let daemon = Daemon::start(&dir, "", &two().0);
    assert_eq!(daemon.answers(4), "aabb");
    let held: Vec<_> = (0..2).map(|_| daemon.client()).collect();
    let said = daemon.done(&["drain", "kube/a"]);
    assert!(
        said.starts_with("kube/a: ready → drain, 1 connection goes on\n"),
        "{said}"
    );
    assert!(said.contains("not kept over a reboot"), "{said}");
    assert_eq!(daemon.answers(4), "bbbb");
    let drained = daemon.wait_state("a", ServerState::Drain);
    assert_eq!((drained.connections, drained.admin.as_str()), (1, "drain"));
    for (stream, name) in &held {
        stream.set_nonblocking(true).unwrap();
        let mut stream = stream;
        let alive = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(alive.kind(), std::io::ErrorKind::WouldBlock, "{name}");
    }
    let said = daemon.done(&["drain", "b"]);
    assert!(
        said.contains("no server of kube takes new connections"),
        "{said}"
    );
    daemon.done(&["ready", "a", "b"]);
    assert_eq!(daemon.answers(4), "aabb");
    let changes: Vec<_> = wait_for("four events", || {
        let events = daemon.events();
        (events.len() == 4).then_some(events)
    })
    .into_iter()
    .map(|event| {
        let subject = event.subject.unwrap_or_default();
        format!("{subject} {} {}", event.from.unwrap(), event.to.unwrap())
    })
    .collect();
    assert_eq!(
        changes,
        [
            "kube/a ready drain",
            "kube/b ready drain",
            "kube/a drain ready",
            "kube/b drain ready"
        ]
    );
}

#[test]
fn a_server_out_of_service_is_not_probed_and_comes_back_probed() {
    let dir = Folder::new("maint");
    let daemon = Daemon::start(&dir, "", &two().0);
    daemon.done(&["maint", "a"]);
    let before = daemon.wait_state("a", ServerState::Maint);
    assert_eq!((before.checks, before.verdict), (0, None));
    // Three rounds of b's checks.
    let checks = daemon.server("b").unwrap().checks;
    wait_for("checks of b", || {
        daemon.server("b").filter(|b| b.checks >= checks + 3)
    });
    assert_eq!(daemon.server("a").unwrap().checks, 0);
    assert_eq!(daemon.answers(3), "bbb");
    assert!(daemon.proxy().unwrap().probed);
    daemon.done(&["ready", "a"]);
    let back = daemon.wait_state("a", ServerState::Up);
    assert!(back.checks > 0);
    assert_eq!(daemon.answers(4), "aabb");
}

#[test]
fn weights_change_shares_at_once() {
    let dir = Folder::new("weight");
    let daemon = Daemon::start(&dir, "", &two().0);
    let said = daemon.done(&["weight", "kube/b", "3"]);
    assert!(said.starts_with("kube/b: weight 1 → weight 3\n"), "{said}");
    assert_eq!(daemon.answers(8), "aabbbbbb");
    let b = daemon.server("b").unwrap();
    assert_eq!((b.weight, b.own_weight), (3, Some(1)));
    daemon.done(&["weight", "a", "0"]);
    assert_eq!(daemon.answers(3), "bbb");
    daemon.done(&["weight", "a", "own"]);
    daemon.done(&["weight", "b", "own"]);
    assert_eq!(daemon.answers(4), "aabb");
    assert_eq!(daemon.server("b").unwrap().own_weight, None);
}

#[test]
fn a_server_is_added_serves_and_is_removed_again() {
    let dir = Folder::new("add");
    let daemon = Daemon::start(&dir, "", &two().0);
    let c = server("c").to_string();
    daemon.done(&["server", "add", "kube/c", &c, "--weight", "2"]);
    let added = daemon.wait_state("c", ServerState::Up);
    assert_eq!((added.origin.as_str(), added.weight), ("operator", 2));
    assert_eq!(daemon.answers(8), "aabbcccc");
    let again = daemon.refused(&["server", "add", "c", &c]);
    assert!(again.contains("a server of this name already"), "{again}");
    let twin = daemon.refused(&["server", "add", "twin", &c]);
    assert!(twin.contains("is the address of c"), "{twin}");
    let itself = daemon.refused(&["server", "add", "me", &daemon.listen.to_string()]);
    assert!(itself.contains("kube itself listens"), "{itself}");
    // An added server that is not there is checked, and gets nobody.
    let nobody = port::held().to_string();
    daemon.done(&["server", "add", "d", &nobody]);
    daemon.wait_state("d", ServerState::Down);
    assert_eq!(daemon.answers(4), "abcc");
    let (stream, name) = (0..8)
        .map(|_| daemon.client())
        .find(|(_, name)| name == "c")
        .unwrap();
    assert_eq!(name, "c");
    let said = daemon.done(&["server", "remove", "c"]);
    assert!(said.starts_with("kube/c: ready → absent, "), "{said}");
    assert_eq!(daemon.answers(4), "aabb");
    let left = wait_for("c is leaving", || daemon.proxy().map(|proxy| proxy.leaving));
    assert_eq!((left[0].name.as_str(), left[0].connections), ("c", 1));
    drop(stream);
    wait_for("c has left", || {
        daemon.proxy().filter(|proxy| proxy.leaving.is_empty())
    });
    // One of the file's can be removed, too, and comes back by its name.
    daemon.done(&["server", "remove", "kube/a"]);
    assert_eq!(daemon.proxy().unwrap().removed, ["a"]);
    assert_eq!(daemon.answers(3), "bbb");
    let elsewhere = daemon.refused(&["server", "add", "kube/a", &c]);
    assert!(
        elsewhere.contains("comes back as it is there"),
        "{elsewhere}"
    );
    daemon.done(&["server", "add", "kube/a"]);
    daemon.wait_state("a", ServerState::Up);
    assert_eq!(daemon.answers(4), "aabb");
}

#[test]
fn neither_a_crash_of_the_proxy_nor_one_of_the_keeper_forgets_anything() {
    let dir = Folder::new("crash");
    let mut daemon = Daemon::start(&dir, "", &two().0);
    let c = server("c").to_string();
    daemon.done(&["server", "add", "c", &c]);
    daemon.wait_state("c", ServerState::Up);
    daemon.done(&["drain", "a"]);
    daemon.done(&["weight", "b", "2"]);
    for _ in 0..2 {
        // The keeper has it within a beat.
        wait_for("events at the keeper", || {
            (daemon.events().len() == 3).then_some(())
        });
        daemon.crash_proxy();
        daemon.wait_state("a", ServerState::Drain);
        daemon.wait_state("c", ServerState::Up);
        assert_eq!(daemon.answers(6), "bbbbcc");
    }
    // The proxy process is the one that knows, then.
    daemon.crash_keeper();
    assert_eq!(daemon.answers(6), "bbbbcc");
    daemon.crash_proxy();
    daemon.wait_state("a", ServerState::Drain);
    daemon.wait_state("c", ServerState::Up);
    assert_eq!(daemon.answers(6), "bbbbcc");
}

#[test]
fn what_lies_in_the_state_dir_outlasts_the_daemon_and_a_broken_file_is_set_aside() {
    let dir = Folder::new("state");
    let state = dir.0.join("state");
    let top = format!("state-dir = \"{}\"", state.display());
    let (mut backends, [_, b]) = two();
    backends = backends.replace(
        &format!("b = \"{b}\""),
        &format!("b = {{ address = \"{b}\", disabled = true }}"),
    );
    let daemon = Daemon::start(&dir, &top, &backends);
    assert!(daemon.log().contains("landlock on"), "{}", daemon.log());
    let c = server("c").to_string();
    daemon.wait_state("b", ServerState::Maint);
    let said = daemon.done(&["ready", "b"]);
    assert!(!said.contains("not kept"), "{said}");
    daemon.wait_state("b", ServerState::Up);
    daemon.done(&["server", "add", "c", &c, "--max-connections", "7"]);
    daemon.done(&["weight", "c", "2"]);
    daemon.done(&["server", "remove", "a"]);
    daemon.stop();
    let file = state.join("servers.json");
    assert!(!state.join("servers.json.new").exists());
    let kept = fs::read(&file).unwrap();
    let daemon = Daemon::start(&dir, &top, &backends);
    daemon.wait_state("b", ServerState::Up);
    let c = daemon.wait_state("c", ServerState::Up);
    assert_eq!((c.weight, c.max_connections), (2, Some(7)));
    assert_eq!(daemon.answers(3), "bcc");
    assert_eq!(daemon.proxy().unwrap().removed, ["a"]);
    daemon.stop();
    fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    let daemon = Daemon::start(&dir, &top, &backends);
    daemon.wait_state("b", ServerState::Maint);
    assert_eq!(daemon.answers(2), "aa");
    assert!(daemon.log().contains("set aside"), "{}", daemon.log());
    assert!(state.join("servers.json.broken").exists());
    let said = daemon.done(&["drain", "a"]);
    assert!(!said.contains("not kept"), "{said}");
    assert!(file.exists());
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let dir = Folder::new("refused");
    let daemon = Daemon::start(&dir, "", &two().0);
    let table = [
        (
            vec!["drain", "kube/aa"],
            "no server aa in proxy kube: did you mean `a`?",
        ),
        (vec!["drain", "cube/a"], "no [proxy.cube]: there are: kube"),
        (
            vec!["drain", "a", "zzzz"],
            "no server zzzz: there are: a, b",
        ),
        (vec!["server", "add", "x"], "an address is needed"),
        (
            vec!["server", "add", "x y", "127.0.0.1:1"],
            "can't be a name",
        ),
        (vec!["server", "add", "x", "127.0.0.1:0"], "port 0"),
        (
            vec!["server", "add", "x", "0.0.0.0:1"],
            "no server's address",
        ),
        (vec!["server", "remove", "x"], "no server x"),
    ];
    for (words, expected) in table {
        let said = daemon.refused(&words);
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    let usage = daemon.lbd(&["weight", "a", "257"]);
    assert_eq!(usage.status.code(), Some(2));
    assert_eq!(daemon.answers(4), "aabb");
    assert!(daemon.events().is_empty());
    let begun: Instant = clock::now();
    let names: Vec<String> = (0..65).map(|n| format!("s{n}")).collect();
    let mut words = vec!["maint"];
    words.extend(names.iter().map(String::as_str));
    assert!(daemon.refused(&words).contains("more than 64 names"));
    assert!(clock::now() - begun < PATIENCE);
}

#[test]
fn a_full_table_refuses_the_next_one_and_serves_those_it_has() {
    let dir = Folder::new("full");
    let daemon = Daemon::start(&dir, "", &two().0);
    for number in 0..64 {
        let c = server("c").to_string();
        daemon.done(&["server", "add", &format!("c{number}"), &c]);
    }
    let c = server("c").to_string();
    let said = daemon.refused(&["server", "add", "late", &c]);
    assert!(said.contains("all 66 places are taken"), "{said}");
    wait_for("all are up", || {
        daemon.proxy().filter(|proxy| proxy.usable == 66)
    });
    let answers = daemon.answers(66);
    assert_eq!(answers.matches('c').count(), 64, "{answers}");
    daemon.done(&["server", "remove", "c0"]);
    // Its place rests for a second.
    wait_for("a free place", || {
        let added = daemon.lbd(&["server", "add", "late", &c]);
        added.status.success().then_some(())
    });
}
