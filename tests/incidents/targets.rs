//! What is compared: lbd, Debian's HAProxy with the guide's file, and the same HAProxy tuned by
//! everything its manual offers. How each is started, and how its verdicts are watched.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lbd::net::clock;
use lbd::net::netns::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab::peers::HAPROXY_CFG;
use super::place::{SERVERS, server_ip};

/// How often verdicts are looked up.
const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Lbd,
    /// HAProxy with the guide's file.
    Seed,
    /// HAProxy as well as it can be set up.
    Tuned,
}

impl Target {
    pub const ALL: [Self; 3] = [Self::Lbd, Self::Seed, Self::Tuned];

    /// What the tables say.
    pub fn title(self) -> &'static str {
        match self {
            Self::Lbd => "lbd",
            Self::Seed => "HAProxy, guide",
            Self::Tuned => "HAProxy, tuned",
        }
    }

    /// The word that `--target` takes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lbd => "lbd",
            Self::Seed => "seed",
            Self::Tuned => "tuned",
        }
    }
}

/// What is asked of a load balancer; the guide's file stands as it is.
#[derive(Debug, Clone)]
pub struct Wish {
    pub port: u16,
    /// Seconds.
    pub slowstart: u64,
    pub weights: [u16; SERVERS],
    /// By the client's address instead of in turn.
    pub by_source: bool,
    /// 250 connections for each server, and 256 that wait.
    pub limits: bool,
    /// etcd's `/health` instead of kube-apiserver's `/readyz`.
    pub etcd: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            port: super::place::PORT,
            slowstart: 30,
            weights: [100; SERVERS],
            by_source: false,
            limits: true,
            etcd: false,
        }
    }
}

/// A running load balancer, and the record of its verdicts.
pub struct Running {
    pub target: Target,
    host: Arc<Namespace>,
    child: Child,
    verdicts: Arc<Mutex<Vec<Verdicts>>>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<io::Result<()>>>,
}

/// Which servers take new connections, from then on.
#[derive(Debug, Clone, Copy)]
pub struct Verdicts {
    pub at: Instant,
    pub up: [bool; SERVERS],
}

impl Running {
    /// Returns when it counts all servers as up.
    pub fn start(host: &Arc<Namespace>, target: Target, wish: &Wish) -> Self {
        let running = Self::start_anyhow(host, target, wish);
        running.until("all servers are up", |up| *up == [true; SERVERS]);
        running
    }

    pub fn start_anyhow(host: &Arc<Namespace>, target: Target, wish: &Wish) -> Self {
        let (file, text) = match target {
            Target::Lbd => ("lb.toml", lbd_toml(wish)),
            Target::Seed => ("haproxy.cfg", guide_cfg(wish)),
            Target::Tuned => ("haproxy.cfg", tuned_cfg(wish)),
        };
        let path = format!("/run/lab/{file}");
        let log = host
            .run(|| {
                std::fs::create_dir_all("/run/lab")?;
                std::fs::write(&path, text)?;
                File::create("/run/lab/log")
            })
            .and_then(|log| log)
            .unwrap();
        let mut command = match target {
            Target::Lbd => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
                command.args(["--config", &path, "--runtime-dir", "/run/lbd"]);
                command
            }
            Target::Seed | Target::Tuned => {
                let mut command = Command::new("haproxy");
                command.args(["-db", "-f", &path]);
                command
            }
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = host.spawn(&mut command).unwrap();
        let (verdicts, stop) = (Arc::default(), Arc::default());
        let (record, stopped) = (Arc::clone(&verdicts), Arc::clone(&stop));
        let watch = move || watch(target, &record, &stopped);
        Self {
            target,
            host: Arc::clone(host),
            child,
            verdicts,
            stop,
            watcher: Some(host.thread("verdicts", watch).unwrap()),
        }
    }

    /// Waits until its verdicts are like that; when they became so.
    pub fn until(&self, what: &str, is: impl Fn(&[bool; SERVERS]) -> bool) -> Instant {
        let end = clock::now() + PATIENCE;
        loop {
            let last = self.verdicts.lock().unwrap().last().copied();
            if let Some(last) = last.filter(|last| is(&last.up)) {
                return last.at;
            }
            assert!(
                clock::now() < end,
                "{}: not within {PATIENCE:?}: {what}: {last:?}\n{}",
                self.target.title(),
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// When a server was first not up after `since`.
    pub fn first_down(&self, server: usize, since: Instant) -> Option<Instant> {
        self.first(since, |up| !up[server])
    }

    /// When the verdicts were first like that after `since`.
    pub fn first(&self, since: Instant, is: impl Fn(&[bool; SERVERS]) -> bool) -> Option<Instant> {
        let verdicts = self.verdicts.lock().unwrap();
        let mut later = verdicts.iter().filter(|verdicts| verdicts.at >= since);
        later
            .find(|verdicts| is(&verdicts.up))
            .map(|verdicts| verdicts.at)
    }

    pub fn log(&self) -> String {
        let log = self.host.run(|| std::fs::read_to_string("/run/lab/log"));
        let log = log.and_then(|log| log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let ended = watcher.join();
            assert!(
                matches!(ended, Ok(Ok(()))) || thread::panicking(),
                "nobody watched the verdicts"
            );
        }
        if thread::panicking() {
            println!("--- log of {}\n{}", self.target.title(), self.log());
        }
        // lbd ends its proxy with it; the rest ends with the namespace.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
        self.host
            .signal(Signal::SIGKILL)
            .map(drop)
            .unwrap_or_default();
    }
}

/// Keeps the record; runs on the load balancer's host.
fn watch(target: Target, record: &Mutex<Vec<Verdicts>>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        let up = match target {
            Target::Lbd => lbd_verdicts(),
            Target::Seed | Target::Tuned => haproxy_verdicts(),
        };
        // Not there yet.
        if let Ok(up) = up {
            let mut record = record.lock().unwrap();
            if record.last().is_none_or(|last| last.up != up) {
                let at = clock::now();
                record.push(Verdicts { at, up });
            }
        }
        thread::sleep(LOOK);
    }
}

fn lbd_verdicts() -> io::Result<[bool; SERVERS]> {
    let mut stream = TcpStream::connect("127.0.0.1:9633")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: lbd\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let says = |metric: &str, server: usize, more: &str| {
        let name = format!("server=\"kube-apiserver-{}\"", server + 1);
        page.lines().any(|line| {
            line.starts_with(metric)
                && line.ends_with(" 1")
                && line.contains(&name)
                && line.contains(more)
        })
    };
    Ok(std::array::from_fn(|server| {
        says("lbd_server_state{", server, "state=\"up\"")
            && !says("lbd_server_ejected{", server, "")
    }))
}

fn haproxy_verdicts() -> io::Result<[bool; SERVERS]> {
    let mut stream = UnixStream::connect("/var/lib/haproxy/stats")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"show stat\n")?;
    let mut table = String::new();
    stream.read_to_string(&mut table)?;
    let mut up = [false; SERVERS];
    for row in table.lines() {
        let fields: Vec<&str> = row.split(',').collect();
        for (server, up) in up.iter_mut().enumerate() {
            let is_it = fields.get(1) == Some(&format!("kube-apiserver-{}", server + 1).as_str());
            *up |= is_it && fields.get(17).is_some_and(|state| state.starts_with("UP"));
        }
    }
    Ok(up)
}

fn lbd_toml(wish: &Wish) -> String {
    let Wish {
        port, slowstart, ..
    } = wish;
    let check = if wish.etcd {
        "{ type = \"https\", path = \"/health\", verify = false, interval = \"1s\", \
         fast-interval = \"250ms\", timeout = \"500ms\" }"
    } else {
        "\"kube-apiserver\""
    };
    let balance = if wish.by_source {
        "source-hash"
    } else {
        "round-robin"
    };
    let limits = if wish.limits {
        "max-queue = 256\nbackend-defaults = { max-connections = 250 }"
    } else {
        ""
    };
    let mut text = format!(
        "[log]\ntarget = \"stderr\"\nlevel = \"info\"\n[metrics]\nlisten = \"127.0.0.1:9633\"\n\
         [limits]\nmax-connections = 4000\n[proxy.kube-apiserver]\nlisten = \"0.0.0.0:{port}\"\n\
         check = {check}\nbalance = \"{balance}\"\nslowstart = \"{slowstart}s\"\n{limits}\n\
         [proxy.kube-apiserver.backends]\n"
    );
    for (number, weight) in (1..).zip(wish.weights) {
        let ip = server_ip(number);
        text.push_str(&format!(
            "kube-apiserver-{number} = {{ address = \"{ip}:{port}\", weight = {weight} }}\n"
        ));
    }
    text
}

fn guide_cfg(wish: &Wish) -> String {
    HAPROXY_CFG.replace(":6443", &format!(":{}", wish.port))
}

/// What the manual offers against each of the faults: short checks of the answer, not of the port
/// alone, errors of connections observed, other servers tried at once, sessions of a server that
/// is down ended.
fn tuned_cfg(wish: &Wish) -> String {
    let Wish {
        port, slowstart, ..
    } = wish;
    let path = if wish.etcd { "/health" } else { "/readyz" };
    let balance = if wish.by_source {
        "source\n    hash-type consistent"
    } else {
        "roundrobin"
    };
    let limits = if wish.limits {
        "maxconn 250 maxqueue 256"
    } else {
        ""
    };
    let mut text = format!(
        "global
    maxconn 4000
    stats socket /var/lib/haproxy/stats

defaults
    mode tcp
    timeout connect 500ms
    timeout queue 5s
    timeout check 500ms
    timeout client 1h
    timeout server 1h
    option redispatch 1
    retries 3

frontend front
    bind *:{port}
    default_backend kube-apiserver

backend kube-apiserver
    option httpchk
    http-check send meth GET uri {path}
    http-check expect status 200
    balance {balance}
    default-server check check-ssl verify none inter 1s fastinter 200ms downinter 1s rise 2 fall 2 \
         slowstart {slowstart}s {limits} observe layer4 error-limit 1 on-error mark-down \
         on-marked-down shutdown-sessions
"
    );
    for (number, weight) in (1..).zip(wish.weights) {
        let ip = server_ip(number);
        text.push_str(&format!(
            "    server kube-apiserver-{number} {ip}:{port} weight {weight} check\n"
        ));
    }
    text
}
