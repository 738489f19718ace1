//! Three members of etcd on the servers' hosts, by TLS, and etcdctl on the clients'.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::clock;
use lbd::net::netns::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::{LB1, Place, SERVERS, server_ip};

pub const PORT: u16 = 2379;
const PATIENCE: Duration = Duration::from_secs(60);

/// The members; they end when dropped.
pub struct Cluster {
    pub place: Place,
    members: [Option<Child>; SERVERS],
    /// Certificate and key, for members and clients alike, and the members' data.
    folder: PathBuf,
}

impl Cluster {
    /// Returns when every member is healthy.
    pub fn new() -> Self {
        let place = Place::empty(1);
        let number = clock::wall()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        // Members wait for their disk; what they write here is not worth it.
        let memory = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        let place_for_data = if memory.is_dir() { memory } else { &temporary };
        let folder = place_for_data.join(format!("lbd-etcd-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut names = vec![LB1.to_string()];
        names.extend((1..=3).map(|number| server_ip(number).to_string()));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        let mut cluster = Self {
            place,
            members: [None, None, None],
            folder,
        };
        for member in 0..SERVERS {
            cluster.start(member);
        }
        let end = clock::now() + PATIENCE;
        while (0..SERVERS).any(|member| !cluster.is_healthy(member)) {
            assert!(
                clock::now() < end,
                "no three healthy members\n{}",
                cluster.logs()
            );
            thread::sleep(Duration::from_millis(100));
        }
        cluster
    }

    /// Starts a member with the data it has, if any.
    pub fn start(&mut self, member: usize) {
        let url = |member: usize, port: u16| {
            let ip = server_ip(u8::try_from(member + 1).unwrap());
            format!("https://{ip}:{port}")
        };
        let all: Vec<String> = (0..SERVERS)
            .map(|member| format!("m{member}={}", url(member, 2380)))
            .collect();
        let host = &self.place.servers[member].host;
        let log = host.run(|| File::create("/run/etcd.log")).unwrap().unwrap();
        let file = |name: &str| self.folder.join(name).display().to_string();
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        let mut command = Command::new("etcd");
        command
            .args([
                "--name",
                &format!("m{member}"),
                "--data-dir",
                &file(&format!("m{member}")),
            ])
            .args(["--listen-client-urls", &url(member, PORT)])
            .args(["--advertise-client-urls", &url(member, PORT)])
            .args(["--listen-peer-urls", &url(member, 2380)])
            .args(["--initial-advertise-peer-urls", &url(member, 2380)])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--cert-file", &cert, "--key-file", &key])
            .args(["--peer-cert-file", &cert, "--peer-key-file", &key])
            .args(["--peer-trusted-ca-file", &cert, "--logger", "zap"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.members[member] = Some(host.spawn(&mut command).unwrap());
    }

    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    }

    /// The end of each member's log.
    fn logs(&self) -> String {
        let mut logs = String::new();
        for server in &self.place.servers {
            let log = server.host.run(|| std::fs::read_to_string("/run/etcd.log"));
            let log = log.and_then(|log| log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(10)..];
            logs.push_str(&format!("--- {}\n{}\n", server.name, last.join("\n")));
        }
        logs
    }

    fn is_healthy(&self, member: usize) -> bool {
        let ip = server_ip(u8::try_from(member + 1).unwrap());
        self.ask(&ip.to_string(), "endpoint health").is_some()
    }

    pub fn leader(&self) -> usize {
        let leads = |member: &usize| {
            let ip = server_ip(u8::try_from(*member + 1).unwrap());
            let status = self
                .ask(&ip.to_string(), "endpoint status")
                .unwrap_or_default();
            status.split(", ").nth(4) == Some("true")
        };
        let end = clock::now() + PATIENCE;
        loop {
            if let Some(leader) = (0..SERVERS).find(leads) {
                return leader;
            }
            assert!(clock::now() < end, "no leader");
        }
    }

    fn ask(&self, ip: &str, words: &str) -> Option<String> {
        let mut command = etcdctl(&self.folder, ip, words);
        let asked = self.place.client.run(|| command.output()).unwrap().unwrap();
        let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
        asked.status.success().then_some(answer)
    }

    /// A put through the load balancer.
    pub fn put(&self) -> impl Fn(usize) -> Put + Send + Clone + 'static {
        let (folder, client) = (self.folder.clone(), Arc::clone(&self.place.client));
        move |number| put(&folder, &client, number)
    }

    /// So many watches through the load balancer.
    pub fn watches(&self, count: usize) -> Vec<Watch> {
        let start = |_| Watch::start(&self.folder, &self.place.client);
        (0..count).map(start).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..SERVERS {
            self.kill(member);
        }
        // What is left is in the temporary folder.
        std::fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

fn etcdctl(folder: &Path, ip: &str, words: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=https://{ip}:{PORT}"))
        .arg(format!("--cacert={}", folder.join("cert.pem").display()))
        .args(["--command-timeout=10s", "--dial-timeout=10s"])
        .args(words.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[derive(Debug, Clone, Copy)]
pub struct Put {
    pub number: usize,
    pub started: Instant,
    pub ended: Instant,
    pub succeeded: bool,
}

fn put(folder: &Path, client: &Namespace, number: usize) -> Put {
    let started = clock::now();
    let mut command = etcdctl(folder, &LB1.to_string(), &format!("put beat {number}"));
    let ended = client.run(|| command.status()).unwrap();
    Put {
        number,
        started,
        ended: clock::now(),
        succeeded: ended.unwrap().success(),
    }
}

/// A running `etcdctl watch`, and when it told which value.
pub struct Watch {
    child: Child,
    pub told: Arc<Mutex<Vec<(Instant, usize)>>>,
}

impl Watch {
    fn start(folder: &Path, client: &Namespace) -> Self {
        let mut command = etcdctl(folder, &LB1.to_string(), "watch beat");
        let mut child = client.spawn(&mut command).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let told = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&told);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Ok(number) = line.parse() {
                    record.lock().unwrap().push((clock::now(), number));
                }
            }
        });
        Self { child, told }
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
