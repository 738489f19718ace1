//! The whole daemon: keeper, runner and proxy as real processes, killed and stopped under clients.
//! The pair of nodes needs root and iproute2; without them it is skipped and says so.

#![cfg(test)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lbd::ipc::message::{Hello, ToKeeper};
use lbd::net::clock;
use lbd::net::seqpacket::Connection;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// Waits until `condition` gives a value, at most `limit`.
fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = clock::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let waited = clock::now() - begin;
        assert!(waited < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

const SOON: Duration = Duration::from_secs(10);

/// A folder of this test alone.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lbd-keeper-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// One running lbd. Dropping it kills all its processes.
struct Node {
    keeper: Option<Child>,
    namespace: Option<String>,
    config: PathBuf,
    runtime: PathBuf,
    log: PathBuf,
}

impl Node {
    fn start(folder: &Folder, name: &str, config: &str, namespace: Option<&str>) -> Self {
        let mut node = Self::prepare(folder, name, config, namespace);
        node.restart();
        node
    }

    /// Everything but the process.
    fn prepare(folder: &Folder, name: &str, config: &str, namespace: Option<&str>) -> Self {
        let file = |suffix: &str| folder.0.join(format!("{name}{suffix}"));
        fs::write(file(".toml"), config).unwrap();
        Self {
            keeper: None,
            namespace: namespace.map(str::to_owned),
            config: file(".toml"),
            runtime: file(""),
            log: file(".log"),
        }
    }

    fn restart(&mut self) {
        self.keeper = Some(self.launch());
    }

    /// Another lbd with the same arguments.
    fn launch(&self) -> Child {
        let lbd = env!("CARGO_BIN_EXE_lbd");
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, lbd]);
                command
            }
            None => Command::new(lbd),
        };
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log);
        let log = log.unwrap();
        command
            .arg("--config")
            .arg(&self.config)
            .arg("--runtime-dir")
            .arg(&self.runtime)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn keeper(&mut self) -> &mut Child {
        self.keeper.as_mut().unwrap()
    }

    /// The exit code, once it has ended.
    fn exit_code(&mut self) -> Option<i32> {
        wait_for("the keeper's end", SOON, || {
            self.keeper().try_wait().unwrap()
        })
        .code()
    }

    fn signal_keeper(&self, signal: Signal) {
        let pid = i32::try_from(self.keeper.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Kills the keeper and waits until it is gone.
    fn kill_keeper(&mut self) {
        self.keeper().kill().unwrap();
        self.keeper().wait().unwrap();
    }

    /// The proxy processes of this node, which have its runtime directory among their arguments.
    fn proxies(&self) -> Vec<i32> {
        self.processes("\0proxy\0")
    }

    /// The runner of the present keeper.
    fn runner(&self) -> Option<i32> {
        let keeper = self.keeper.as_ref()?.id();
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let children = fs::read_to_string(path).ok()?;
        let mut runners = children.split_whitespace().filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line == b"lbd\0runner\0"
        });
        runners.next()?.parse().ok()
    }

    fn proxy(&self) -> i32 {
        wait_for("one proxy process", SOON, || match self.proxies()[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    fn processes(&self, word: &str) -> Vec<i32> {
        let runtime = self.runtime.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pid = |entry: fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&bytes).into_owned();
            (line.contains(word) && line.contains(runtime)).then_some(pid)
        };
        entries.filter_map(pid).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What `lbd status -o json` says, without blanks.
    fn status(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
        let socket = self.runtime.join("admin.sock");
        command
            .args(["status", "-o", "json", "--socket"])
            .arg(socket);
        let said = command.output().unwrap().stdout;
        let text = String::from_utf8_lossy(&said);
        text.split_whitespace().collect()
    }

    fn wait_log(&self, text: &str) {
        wait_for(text, SOON, || self.log().contains(text).then_some(()));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- {}\n{}", self.log.display(), self.log());
        }
        if let Some(keeper) = &mut self.keeper {
            drop(keeper.kill());
            drop(keeper.wait());
        }
        for pid in self.proxies() {
            // It may have ended meanwhile.
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
    }
}

/// An echo server on `listener`'s address until the test ends.
fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// One connection, one byte there and back, within a second.
fn ask(address: SocketAddr) -> std::io::Result<()> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

/// A client that asks again and again until it is stopped.
struct Client {
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default, Clone)]
struct Outcome {
    answered: u32,
    failed: Vec<String>,
    /// The longest time between two answers.
    gap: Duration,
    last: Option<Instant>,
}

impl Client {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let (stopped, results) = (Arc::clone(&stop), Arc::clone(&outcome));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let result = ask(address);
                let now = clock::now();
                let mut results = results.lock().unwrap();
                match result {
                    Ok(()) => {
                        results.answered += 1;
                        let gap = results.last.map_or(Duration::ZERO, |last| now - last);
                        results.gap = results.gap.max(gap);
                        results.last = Some(now);
                    }
                    Err(error) => results.failed.push(error.to_string()),
                }
                drop(results);
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            stop,
            outcome,
            thread: Some(thread),
        }
    }

    fn so_far(&self) -> Outcome {
        self.outcome.lock().unwrap().clone()
    }

    /// Waits for that many more answers.
    fn wait_answers(&self, count: u32) {
        let goal = self.so_far().answered + count;
        wait_for("answers", SOON, || {
            (self.so_far().answered >= goal).then_some(())
        });
    }

    fn finish(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.so_far()
    }
}

/// Moves this thread into a namespace.
fn enter(namespace: &str) {
    let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

/// A configuration with one proxy on a free port and one echo server; its address.
fn single() -> (SocketAddr, String) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = server.local_addr().unwrap();
    echo(server);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = format!(
        "[log]\ntarget = \"stderr\"\n[metrics]\nlisten = \"off\"\n[limits]\nworkers = 2\n\
         [proxy.p]\nlisten = \"{address}\"\nbackends = [\"{backend}\"]\n\
         check = {{ type = \"tcp\", interval = \"200ms\" }}\n"
    );
    (address, config)
}

fn wait_served(address: SocketAddr) {
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
    node.wait_log("reload is not supported yet");
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

/// Two nodes and a client on one segment, in network namespaces.
struct Lab {
    prefix: String,
    names: Vec<String>,
}

impl Lab {
    /// `None`, with the reason printed, where namespaces can't be made.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            println!("skipped: iproute2 is not installed");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self {
            prefix: format!("lbdk{}-{count}", std::process::id()),
            names: Vec::new(),
        };
        let switch = lab.namespace("sw");
        lab.ip(&format!("-n {switch} link add br0 type bridge"));
        lab.ip(&format!("-n {switch} link set br0 up"));
        for (name, address) in [("lb1", "10.9.0.1"), ("lb2", "10.9.0.2"), ("cl", "10.9.0.9")] {
            let node = lab.namespace(name);
            lab.ip(&format!(
                "link add eth0 netns {node} type veth peer name v{name} netns {switch}"
            ));
            lab.ip(&format!("-n {switch} link set v{name} master br0 up"));
            lab.ip(&format!("-n {node} addr add {address}/24 dev eth0"));
            lab.ip(&format!("-n {node} link set eth0 up"));
        }
        Some(lab)
    }

    fn namespace(&mut self, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        self.ip(&format!("netns add {full}"));
        self.names.push(full.clone());
        self.ip(&format!("-n {full} link set lo up"));
        full
    }

    fn ip(&self, line: &str) {
        let done = Command::new("ip").args(line.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{}: ip {line}: {said}", self.prefix);
    }

    fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.prefix)
    }

    /// Whether the VIP is on that node's interface.
    fn holds(&self, short: &str) -> bool {
        let name = self.name(short);
        let args = ["-n", &name, "-o", "addr", "show", "dev", "eth0"];
        let shown = Command::new("ip").args(args).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains("10.9.0.100/")
    }

    /// An echo server on that node itself, and its lbd.
    fn node(&self, folder: &Folder, short: &str, config: &str) -> Node {
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

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            drop(Command::new("ip").args(["netns", "del", name]).output());
        }
    }
}

const PAIR: &str = "
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
         interval = \"100ms\"\n",
        flag.display()
    );
    let config = PAIR.replace("preempt", "track = [\"proxy:p\", \"script:s\"]\npreempt");
    let (lb1, _lb2) = pair_of(&lab, &folder, &format!("{config}{script}"));
    lb1.wait_log("track script succeeds");
    fs::write(&flag, "").unwrap();
    let moved = || (lab.holds("lb2") && !lab.holds("lb1")).then_some(());
    wait_for("the vip to move", Duration::from_secs(3), moved);
    lb1.wait_log("track script fails");
}

/// lb1 holds the VIP, lb2 watches.
fn pair_of(lab: &Lab, folder: &Folder, config: &str) -> (Node, Node) {
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
