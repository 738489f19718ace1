//! A router with FRR between clients and two load balancers, each with lbd and FRR: the address
//! reaches the router by BGP, and the router spreads connections over who announces it.
//!
//! client 10.8.0.2 — 10.8.0.1 router 10.9.0.1 — 10.9.0.2 lb1, 10.9.0.3 lb2, 10.9.0.4 server

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lbd::cli::demo::lab::Node;
use lbd::net::clock;
use lbd::net::netns::Namespace;
use lbd::net::netns::wire::{Plug, Wire};

use super::lab::noise::Noise;

pub const LB1: usize = 0;
pub const LB2: usize = 1;
/// The announced address, outside of both networks.
pub const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 10));
const TARGET: SocketAddr = SocketAddr::new(VIP, 6443);
const SERVER: &str = "10.9.0.4";

/// Attempts at once, each repeated this often: one each 5 ms.
const CALLERS: u32 = 4;
const CALL_EVERY: Duration = Duration::from_millis(20);
/// Before the first SYN would be sent again: a lost packet is a failure.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(400);

const LBD: &str = r#"
[log]
target = "stderr"
level = "debug"
[metrics]
listen = "off"
[vip.anycast]
announce = "route"
address = "10.1.1.10"
[proxy.echo]
listen = ":6443"
backends = ["10.9.0.4:6443"]
check = { type = "tcp", interval = "300ms", fast-interval = "100ms", down-interval = "200ms", timeout = "500ms" }
"#;

/// One attempt of the client.
#[derive(Debug, Clone, Copy)]
struct Call {
    began: Instant,
    ended: Instant,
    /// Which load balancer it went through; `None`: it failed.
    through: Option<usize>,
}

pub struct Routed {
    pub nodes: Vec<Node>,
    router: Arc<Namespace>,
    client: Arc<Namespace>,
    _server: Arc<Namespace>,
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Arc<AtomicBool>,
    children: Vec<Child>,
    noise: Noise,
    _wires: [Wire; 2],
}

impl Routed {
    /// So many failures, more on a busy machine.
    pub fn at_most(&self, failures: usize, since: Instant) -> usize {
        failures * usize::try_from(self.noise.since(since)).unwrap() / 100
    }

    /// The hosts and FRR on three of them; lbd runs nowhere yet.
    pub fn new() -> Self {
        let mut inner = Wire::new().unwrap();
        let mut outer = Wire::new().unwrap();
        let router = host(&mut inner, "router", "eth0", [10, 9, 0, 1]);
        attach(&mut outer, &router, "router", "eth1", [10, 8, 0, 1]);
        let client = host(&mut outer, "client", "eth0", [10, 8, 0, 2]);
        let server = host(&mut inner, "server", "eth0", [10, 9, 0, 4]);
        for (file, value) in [
            ("ip_forward", "1"),
            // Over ports, too: one client is enough to see both.
            ("fib_multipath_hash_policy", "1"),
        ] {
            let path = format!("/proc/sys/net/ipv4/{file}");
            router
                .run(|| std::fs::write(&path, value))
                .unwrap()
                .unwrap();
        }
        ip(&client, "route add default via 10.8.0.1");
        let mut lab = Self {
            nodes: Vec::new(),
            router,
            client,
            _server: Arc::clone(&server),
            calls: Arc::default(),
            stop: Arc::default(),
            children: Vec::new(),
            noise: Noise::start(),
            _wires: [inner, outer],
        };
        for number in 1..=2_u8 {
            let name = format!("lb{number}");
            let address = [10, 9, 0, number + 1];
            let [inner, _] = &mut lab._wires;
            let host = host(inner, &name, "eth0", address);
            ip(&host, "route add default via 10.9.0.1");
            lab.start_frr(&Arc::clone(&host), &frr_of_node(number));
            lab.nodes.push(Node {
                name,
                ip: address.into(),
                interface: "eth0".into(),
                host,
            });
        }
        let router = Arc::clone(&lab.router);
        lab.start_frr(&router, FRR_OF_ROUTER);
        serve(&server, &lab.stop);
        lab.until("both BGP sessions are up", 20_000, |lab| {
            lab.sessions().matches("\"state\":\"Established\"").count() == 2
        });
        lab
    }

    fn start_frr(&mut self, host: &Arc<Namespace>, bgpd: &str) {
        let prepared = host.run(|| {
            std::fs::create_dir_all("/run/frr")?;
            std::fs::write("/run/frr/zebra.conf", "")?;
            std::fs::write("/run/frr/bgpd.conf", bgpd)?;
            let chown = Command::new("chown")
                .args(["-R", "frr:frr", "/run/frr"])
                .status()?;
            assert!(chown.success(), "chown: {chown}");
            std::fs::File::create("/run/frr-log")
        });
        let log = prepared.unwrap().unwrap();
        for daemon in ["zebra", "bgpd"] {
            let mut command = Command::new(format!("/usr/lib/frr/{daemon}"));
            command
                .args(["-u", "frr", "-g", "frr", "-A", "127.0.0.1", "-P", "0"])
                .args([
                    "--log",
                    "stdout",
                    "-z",
                    "/run/frr/zserv.api",
                    "--vty_socket",
                    "/run/frr",
                ])
                .args(["-f", &format!("/run/frr/{daemon}.conf")])
                .args(["-i", &format!("/run/frr/{daemon}.pid")])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log.try_clone().unwrap());
            self.children.push(host.spawn(&mut command).unwrap());
            let socket = Path::new("/run/frr/zserv.api");
            let up = || host.run(|| socket.exists()).unwrap();
            wait("zebra listens", 5_000, up, String::new);
        }
    }

    /// The router's BGP sessions, without blanks.
    fn sessions(&self) -> String {
        let mut command = Command::new("vtysh");
        command.args(["--vty_socket", "/run/frr", "-c", "show bgp summary json"]);
        let said = output(&self.router, &mut command);
        said.split_whitespace().collect()
    }

    pub fn start_lbd(&mut self, node: usize) {
        let program = Path::new(env!("CARGO_BIN_EXE_lbd"));
        self.children
            .push(self.nodes[node].start_lbd(program, LBD).unwrap());
    }

    /// Waits for a condition, at most so many milliseconds; when it was met.
    pub fn until(&self, what: &str, ms: u64, condition: impl Fn(&Self) -> bool) -> Instant {
        wait(what, ms, || condition(self), || self.report())
    }

    /// Whether the node has the address.
    pub fn holds(&self, node: usize) -> bool {
        let rtnl = self.nodes[node].host.rtnl();
        rtnl.unwrap().addresses().unwrap().contains(&VIP)
    }

    /// The load balancers that the router sends to.
    pub fn next_hops(&self) -> Vec<usize> {
        let route = ip(&self.router, "route show 10.1.1.10");
        let hops = [LB1, LB2].into_iter();
        hops.filter(|node| route.contains(&format!("via 10.9.0.{} ", node + 2)))
            .collect()
    }

    pub fn start_client(&self) {
        for number in 0..CALLERS {
            let (calls, stop) = (Arc::clone(&self.calls), Arc::clone(&self.stop));
            let start = clock::now() + CALL_EVERY * number / CALLERS;
            let call = move || call_again_and_again(start, &calls, &stop);
            drop(self.client.thread("caller", call).unwrap());
        }
    }

    /// A connection that stays.
    pub fn dial(&self) -> TcpStream {
        let stream = self.client.run(|| TcpStream::connect(TARGET)).unwrap();
        stream.unwrap()
    }

    /// Attempts begun since then, those of them that failed, and the longest time between two
    /// answers.
    pub fn tally(&self, since: Instant) -> (usize, usize, Duration) {
        let mut calls = self.calls.lock().unwrap().clone();
        calls.retain(|call| call.began >= since);
        let failed = calls.iter().filter(|call| call.through.is_none()).count();
        let mut answers: Vec<Instant> = calls
            .iter()
            .filter(|call| call.through.is_some())
            .map(|call| call.ended)
            .collect();
        answers.extend([since, clock::now()]);
        answers.sort_unstable();
        let gaps = answers.windows(2).map(|pair| pair[1] - pair[0]);
        (calls.len(), failed, gaps.max().unwrap_or_default())
    }

    /// Through whom attempts of this time went.
    pub fn used(&self, since: Instant) -> [usize; 2] {
        let calls = self.calls.lock().unwrap();
        let through = |node| {
            let calls = calls.iter().filter(|call| call.began >= since);
            calls.filter(|call| call.through == Some(node)).count()
        };
        [through(LB1), through(LB2)]
    }

    /// Cuts a load balancer off from the server, and back.
    pub fn server_reachable(&self, node: usize, reachable: bool) {
        let verb = if reachable { "del" } else { "add" };
        ip(
            &self.nodes[node].host,
            &format!("route {verb} prohibit {SERVER}/32"),
        );
    }

    /// Which of our own local routes a node has.
    pub fn local_routes(&self, node: usize) -> String {
        ip(&self.nodes[node].host, "route show table local proto 108")
    }

    pub fn status(&self, node: usize) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
        command.args(["status", "--socket", "/run/lbd/admin.sock"]);
        output(&self.nodes[node].host, &mut command)
    }

    pub fn report(&self) -> String {
        let mut report = format!("next hops {:?}\n", self.next_hops());
        for node in &self.nodes {
            let log = node.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(25);
            report.push_str(&format!(
                "--- {}\n{}\n",
                node.name,
                lines[last..].join("\n")
            ));
        }
        let log = self.router.run(|| std::fs::read_to_string("/run/frr-log"));
        report.push_str(&format!(
            "--- router\n{}\n",
            log.unwrap().unwrap_or_default()
        ));
        report
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let hosts = self.nodes.iter().map(|node| &node.host);
        for host in hosts.chain([&self.router]) {
            drop(host.signal(nix::sys::signal::Signal::SIGKILL));
        }
        for child in &mut self.children {
            drop(child.wait());
        }
    }
}

const FRR_OF_ROUTER: &str = "\
router bgp 65000
 bgp router-id 10.9.0.1
 no bgp ebgp-requires-policy
 timers bgp 1 3
 neighbor lb peer-group
 neighbor lb remote-as 65001
 neighbor lb timers connect 1
 neighbor 10.9.0.2 peer-group lb
 neighbor 10.9.0.3 peer-group lb
 address-family ipv4 unicast
  maximum-paths 8
 exit-address-family
";

/// Host addresses of the VIPs' network, and nothing else, are announced.
fn frr_of_node(number: u8) -> String {
    let own = number + 1;
    format!(
        "\
router bgp 65001
 bgp router-id 10.9.0.{own}
 no bgp ebgp-requires-policy
 timers bgp 1 3
 neighbor 10.9.0.1 remote-as 65000
 neighbor 10.9.0.1 timers connect 1
 address-family ipv4 unicast
  redistribute connected route-map vips
 exit-address-family
ip prefix-list vips permit 10.1.1.0/24 ge 32
route-map vips permit 10
 match ip address prefix-list vips
"
    )
}

fn wait(what: &str, ms: u64, condition: impl Fn() -> bool, report: impl Fn() -> String) -> Instant {
    let end = clock::now() + Duration::from_millis(ms);
    while !condition() {
        assert!(
            clock::now() < end,
            "not within {ms} ms: {what}\n{}",
            report()
        );
        thread::sleep(Duration::from_millis(2));
    }
    clock::now()
}

fn host(wire: &mut Wire, name: &str, interface: &str, ip: [u8; 4]) -> Arc<Namespace> {
    let host = Namespace::new(&[Path::new("/run")]).unwrap();
    attach(wire, &host, name, interface, ip);
    Arc::new(host)
}

fn attach(wire: &mut Wire, host: &Namespace, name: &str, interface: &str, ip: [u8; 4]) {
    let plug = Plug {
        host: name,
        interface,
        ip: ip.into(),
        prefix: 24,
    };
    wire.attach(host, &plug).unwrap();
}

fn ip(host: &Namespace, arguments: &str) -> String {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    output(host, &mut command)
}

fn output(host: &Namespace, command: &mut Command) -> String {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let child = host.spawn(command).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A server that names the load balancer a byte came through, again and again.
fn serve(host: &Arc<Namespace>, stop: &Arc<AtomicBool>) {
    let listener = host.run(|| TcpListener::bind(("0.0.0.0", 6443))).unwrap();
    let (listener, stop) = (listener.unwrap(), Arc::clone(stop));
    drop(thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            drop(thread::spawn(move || {
                let Ok(SocketAddr::V4(peer)) = stream.peer_addr() else {
                    return;
                };
                let [.., last] = peer.ip().octets();
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    if stream.write_all(&[last]).is_err() {
                        return;
                    }
                }
            }));
        }
    }));
}

fn call_again_and_again(start: Instant, calls: &Mutex<Vec<Call>>, stop: &AtomicBool) {
    let mut next = start;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(clock::now()));
        next = (next + CALL_EVERY).max(clock::now());
        let began = clock::now();
        let through = call().ok();
        let ended = clock::now();
        calls.lock().unwrap().push(Call {
            began,
            ended,
            through,
        });
    }
}

fn call() -> std::io::Result<usize> {
    let mut stream = TcpStream::connect_timeout(&TARGET, CALL_TIMEOUT)?;
    ask(&mut stream)
}

/// Through which load balancer this connection goes.
pub fn ask(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.set_read_timeout(Some(CALL_TIMEOUT))?;
    stream.write_all(b"?")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(usize::from(byte[0]) - 2)
}
