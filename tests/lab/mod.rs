//! A pair in the laboratory of `lbd demo`, driven by tests: lbd or keepalived + HAProxy on each
//! node, a client that opens a connection each 5 ms, and someone who watches the VIP.

#![allow(
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test program uses its own part of this"
)]

pub mod cases;
pub mod noise;
pub mod peers;
pub mod scenario;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lbd::cli::demo::client::{Client, Habits};
use lbd::cli::demo::history::History;
use lbd::cli::demo::lab::Lab;
use lbd::cli::demo::plan::{Plan, PlanNode, PlanServer};
use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use noise::Noise;

/// The node with the lower priority, 100.
pub const LB1: usize = 0;
/// The preferred node, priority 110.
pub const LB2: usize = 1;

/// A new connection each.
const INTERVAL: Duration = Duration::from_millis(5);
/// A client gives up before its first SYN would be repeated (1 s): a lost SYN is a failure.
const TIMEOUT: Duration = Duration::from_millis(800);

/// Which processes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// lbd's keeper, or keepalived.
    Keeper,
    /// lbd's proxy, or HAProxy.
    Proxy,
    /// Everything on the node.
    All,
}

/// The program under test: `$LBD_BINARY` (a release build, say), else the one built beside the tests.
pub fn lbd() -> PathBuf {
    let chosen = std::env::var_os("LBD_BINARY");
    chosen.map_or_else(|| env!("CARGO_BIN_EXE_lbd").into(), PathBuf::from)
}

/// Two nodes, three servers, one client, on one wire.
pub struct Pair {
    pub lab: Lab,
    client: Option<Client>,
    /// How busy the machine is.
    pub noise: Noise,
    /// The longest gap while nothing happened.
    calm_gap: Duration,
    /// What was started on which node and has not ended yet.
    children: RefCell<Vec<(usize, Child)>>,
}

impl Pair {
    /// The hosts of the users' guide; no node runs anything yet.
    pub fn new() -> Self {
        let lab = Lab::build(&plan()).expect("the laboratory can be built");
        Self {
            lab,
            client: None,
            noise: Noise::start(),
            calm_gap: Duration::ZERO,
            children: RefCell::default(),
        }
    }

    /// The pair with lbd on both nodes, serving, lb2 in charge and quiet for a second.
    pub fn of_lbd(config: &str) -> Self {
        let mut pair = Self::new();
        pair.start_lbd(LB2, config);
        pair.start_lbd(LB1, config);
        pair.settle();
        pair
    }

    /// Waits until lb2 holds the VIP and a client has been served for half a second.
    pub fn settle(&mut self) {
        self.until("lb2 holds the VIP", 20_000, |pair| {
            pair.only_holder() == Some(LB2)
        });
        self.start_client();
        self.until_served(500, 10_000);
        let half_a_second_ago = clock::now() - Duration::from_millis(500);
        self.calm_gap = self.gap(half_a_second_ago);
    }

    /// What a machine this busy adds to a gap: three times the longest one that was seen while
    /// nothing happened.
    pub fn slack(&self) -> Duration {
        self.calm_gap * 3
    }

    /// A bound on what happened since then, as a machine this busy keeps it.
    pub fn bound(&self, alone: Duration, since: Instant) -> Duration {
        self.noise.stretched(alone, since) + self.slack()
    }

    pub fn start_lbd(&mut self, node: usize, config: &str) {
        let child = self.lab.nodes[node]
            .start_lbd(&lbd(), config)
            .expect("lbd starts");
        self.own(node, child);
    }

    pub fn start_client(&mut self) {
        if self.client.is_none() {
            self.client = Some(self.another_client(INTERVAL, 5));
        }
    }

    /// A client with so many long-lived connections that makes a new one each `interval`.
    pub fn another_client(&self, interval: Duration, held: usize) -> Client {
        let habits = Habits {
            target: plan().target,
            interval,
            timeout: TIMEOUT,
            held,
            held_interval: Duration::from_millis(50),
            servers: self.lab.server_names.clone(),
        };
        let tls = Arc::clone(&self.lab.tls.client);
        Client::start(&self.lab.client, habits, tls).expect("the client starts")
    }

    pub fn own(&self, node: usize, child: Child) {
        self.children.borrow_mut().push((node, child));
    }

    /// Whether everything that was started on a node has ended; it is waited for then, as a
    /// service manager does.
    pub fn ended(&self, node: usize) -> bool {
        let mut children = self.children.borrow_mut();
        children.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
        children.iter().all(|(of, _)| *of != node)
    }

    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("the client was started")
    }

    /// The node that alone holds the VIP.
    pub fn only_holder(&self) -> Option<usize> {
        self.lab.history(History::only_holder)
    }

    /// Whether this node holds it, alone or not.
    pub fn holds(&self, node: usize) -> bool {
        self.lab.history(|history| history.holders()[node])
    }

    /// The processes of one role, in the order of their ids.
    pub fn processes(&self, node: usize, role: Role) -> Vec<Pid> {
        let all = self.lab.nodes[node]
            .host
            .processes()
            .expect("/proc is there");
        let chosen = all.into_iter().filter(|process| {
            let found = role_of(&process.command);
            role == Role::All || found == Some(role)
        });
        chosen.map(|process| process.pid).collect()
    }

    /// Signals them; when that was.
    pub fn signal(&self, node: usize, role: Role, signal: Signal) -> Instant {
        let processes = self.processes(node, role);
        assert!(!processes.is_empty(), "node {node} has no {role:?}");
        let at = clock::now();
        for pid in processes {
            match kill(pid, signal) {
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => panic!("kill {pid}: {error}"),
            }
        }
        at
    }

    /// Pulls or puts back a node's cable; when that was.
    pub fn plug(&mut self, node: usize, plugged: bool) -> Instant {
        let at = clock::now();
        let port = format!("lb{}", node + 1);
        self.lab
            .wire
            .plug(&port, plugged)
            .expect("the cable is there");
        at
    }

    /// Takes a node off the switch, or puts it back, without its noticing; when that was.
    pub fn bridge(&mut self, node: usize, bridged: bool) -> Instant {
        let at = clock::now();
        let port = format!("lb{}", node + 1);
        self.lab
            .wire
            .bridge(&port, bridged)
            .expect("the cable is there");
        at
    }

    /// Deletes the VIP from a node's interface, as an administrator would; when that was.
    pub fn delete_vip(&self, node: usize) -> Instant {
        let mut rtnl = self.lab.nodes[node].host.rtnl().expect("a socket");
        let link = rtnl.link_index("eth0").expect("the interface is there");
        let at = clock::now();
        rtnl.delete_address(link, plan().target.ip(), 24)
            .expect("the node holds it");
        at
    }

    /// Waits for a condition, at most so many milliseconds, longer on a busy machine; how long it
    /// took.
    pub fn until(&self, what: &str, ms: u64, condition: impl Fn(&Self) -> bool) -> Duration {
        let start = clock::now();
        let alone = Duration::from_millis(ms);
        while !condition(self) {
            let took = clock::now() - start;
            assert!(
                took < alone || took < self.noise.stretched(alone, start),
                "not within {ms} ms: {what}\n{}",
                self.report()
            );
            thread::sleep(Duration::from_millis(2));
        }
        clock::now() - start
    }

    /// Waits until every attempt of the last `quiet_ms` was answered, and there were some.
    pub fn until_served(&self, quiet_ms: u64, bound_ms: u64) {
        let quiet = Duration::from_millis(quiet_ms);
        // Far fewer than it tries on a quiet machine: a starved client must not fail a test.
        let least = usize::try_from(quiet_ms / 100).unwrap();
        let start = clock::now();
        self.until("the client is served again", bound_ms, |pair| {
            let now = clock::now();
            let since = now - quiet;
            since >= start
                && pair.client().tally(|tally| {
                    let counts = tally.counts(since, now);
                    counts.failed() == 0 && counts.served >= least
                })
        });
    }

    /// The longest time nobody was served since then.
    pub fn gap(&self, since: Instant) -> Duration {
        self.client()
            .tally(|tally| tally.longest_gap(since, clock::now()))
    }

    /// The longest time since then with two holders.
    pub fn double(&self, since: Instant) -> Duration {
        self.lab
            .history(|history| history.longest_double(since, clock::now()))
    }

    /// How long the node went on holding the VIP after `since`; asserts that it ended.
    pub fn held_after(&self, node: usize, since: Instant) -> Duration {
        self.lab
            .history(|history| history.held_after(node, since, clock::now()))
            .unwrap_or_default()
    }

    /// The page for Prometheus of a node with lbd; nothing while it does not answer.
    pub fn metrics(&self, node: usize) -> Option<String> {
        let page = self.lab.nodes[node]
            .host
            .run(|| -> std::io::Result<String> {
                let mut stream = TcpStream::connect("127.0.0.1:9633")?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: lbd\r\n\r\n")?;
                let mut page = String::new();
                stream.read_to_string(&mut page)?;
                Ok(page)
            });
        page.and_then(|page| page).ok()
    }

    /// The sum over all samples whose name and labels begin like this; nothing while there is none.
    pub fn metric(&self, node: usize, start: &str) -> Option<u64> {
        let page = self.metrics(node)?;
        let samples = page.lines().filter(|line| line.starts_with(start));
        let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse().ok());
        let values: Vec<u64> = samples.filter_map(value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Waits until a Backup has lb1's full priority: until its own check interval has passed it
    /// counts itself as unfit to replace a holder.
    pub fn until_fit(&self, node: usize) {
        let full = [100, 110][node];
        self.until("the other node is fit", 10_000, |pair| {
            thread::sleep(Duration::from_millis(20));
            pair.metric(node, "lbd_vrrp_priority{") == Some(full)
        });
    }

    /// What to print when something went wrong.
    pub fn report(&self) -> String {
        let now = clock::now();
        let lately = now.checked_sub(Duration::from_secs(10)).unwrap_or(now);
        let mut report = format!(
            "holders: {:?}\nprocessors wanted, last 10 s: {} %\n",
            self.lab.history(|h| h.holders().to_vec()),
            self.noise.since(lately)
        );
        if let Some(client) = &self.client {
            let counts = client.tally(|tally| tally.counts(lately, now));
            report.push_str(&format!("client, last 10 s: {counts:?}\n"));
        }
        for node in &self.lab.nodes {
            let log = node.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(25);
            report.push_str(&format!(
                "--- log of {}\n{}\n",
                node.name,
                lines[last..].join("\n")
            ));
        }
        report
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.client = None;
        for node in &self.lab.nodes {
            // What can't be killed here dies with the process namespace.
            drop(node.host.signal(Signal::SIGKILL));
        }
        for (_, child) in self.children.get_mut() {
            drop(child.wait());
        }
    }
}

fn role_of(command: &[String]) -> Option<Role> {
    let program = command.first()?.rsplit('/').next()?;
    match program {
        "keepalived" => Some(Role::Keeper),
        "haproxy" => Some(Role::Proxy),
        _ => match command.get(1).map(String::as_str) {
            Some("proxy") => Some(Role::Proxy),
            Some("runner") => None,
            _ => Some(Role::Keeper),
        },
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(172, 16, 0, last))
}

fn plan() -> Plan {
    let node = |number: u8| PlanNode {
        name: format!("lb{number}"),
        ip: ip(number + 1),
        interface: "eth0".into(),
        twin: None,
    };
    let server = |number: u8| PlanServer {
        name: format!("kube-apiserver-{number}"),
        address: SocketAddr::new(ip(number + 3), 6443),
    };
    Plan {
        target: SocketAddr::new(ip(10), 6443),
        prefix: 24,
        nodes: (1..=2).map(node).collect(),
        servers: (1..=3).map(server).collect(),
        client: ip(100),
        about: String::new(),
        take_over: Duration::from_secs(5),
        admin_socket: "/run/lbd/admin.sock".into(),
        lease: Some(Duration::from_secs(2)),
        notes: Vec::new(),
    }
}

/// The seed's pair with the kube-apiserver check; `vip` are the virtual router's own lines.
pub fn config(vip: &str) -> String {
    format!(
        r#"
[log]
target = "stderr"
level = "debug"

[vip.haproxy-vip]
address = "172.16.0.10/24"
interface = "eth0"
vrid = 60
{vip}
nodes = [
  {{ name = "lb1", address = "172.16.0.2", priority = 100 }},
  {{ name = "lb2", address = "172.16.0.3", priority = 110 }},
]

[proxy.kube-apiserver]
listen = "0.0.0.0:6443"
check = "kube-apiserver"
backend-defaults = {{ max-connections = 250, max-queue = 256, weight = 100 }}

[proxy.kube-apiserver.backends]
kube-apiserver-1 = "172.16.0.4:6443"
kube-apiserver-2 = "172.16.0.5:6443"
kube-apiserver-3 = "172.16.0.6:6443"
"#
    )
}

/// The seed's virtual router: version 2, an advert each second, a password.
pub const SEED: &str = r#"version = 2
advert-interval = "1s"
preempt = true
auth = { type = "pass", key = "1111" }"#;

/// The same in version 3.
pub const V3: &str = r#"version = 3
advert-interval = "1s"
preempt = true"#;
