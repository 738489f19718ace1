//! The place: load balancers, three servers and clients on one wire, addresses as in the guide.
//! Everything in it ends when it is dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use lbd::net::netns::Namespace;
use lbd::net::netns::wire::{Plug, Wire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const SERVERS: usize = 3;
pub const PORT: u16 = 6443;
/// Directories that each host has for itself.
const PRIVATE: [&str; 3] = ["/run", "/var/lib/haproxy", "/var/lib/lbd"];

/// The first load balancer's address.
pub const LB1: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 100);
/// Clients may have any address of it.
pub const CROWD: &str = "10.77.0.0/16";

pub struct Place {
    pub wire: Wire,
    /// Load balancers: 172.16.0.2, 172.16.0.3.
    pub nodes: Vec<Arc<Namespace>>,
    pub client: Arc<Namespace>,
    pub servers: Vec<Server>,
}

impl Place {
    /// With so many load balancers; the servers run.
    pub fn new(nodes: u8) -> Self {
        let mut place = Self::empty(nodes);
        for server in &mut place.servers {
            server.start();
        }
        place
    }

    /// The same, and the servers' hosts are idle.
    pub fn empty(nodes: u8) -> Self {
        let mut wire = Wire::new().unwrap();
        let nodes: Vec<_> = (1..=nodes)
            .map(|number| host(&mut wire, &format!("lb{number}"), ip(number + 1)))
            .collect();
        let client = host(&mut wire, "client", CLIENT);
        let servers: Vec<_> = (1..=3)
            .map(|number| Server {
                name: format!("kube-apiserver-{number}"),
                address: SocketAddr::new(IpAddr::V4(server_ip(number)), PORT),
                host: host(&mut wire, &format!("server{number}"), server_ip(number)),
                running: None,
            })
            .collect();
        for node in &nodes {
            // A host that vanished answers nobody; that nobody answers for it in ARP must not end
            // the wait either.
            for number in 1..=3 {
                let ip = server_ip(number);
                let [a, b, c, d] = ip.octets();
                let mac = format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
                shell(
                    node,
                    &format!("ip neigh replace {ip} lladdr {mac} dev eth0 nud permanent"),
                );
            }
            shell(node, &format!("ip route add {CROWD} via {CLIENT}"));
        }
        shell(&client, &format!("ip route add local {CROWD} dev lo"));
        Self {
            wire,
            nodes,
            client,
            servers,
        }
    }

    /// Takes a server off the wire without its noticing, or puts it back.
    pub fn black_hole(&mut self, server: usize, gone: bool) {
        let port = format!("server{}", server + 1);
        self.wire.bridge(&port, !gone).unwrap();
    }
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, last)
}

/// Servers count from 1.
pub fn server_ip(number: u8) -> Ipv4Addr {
    ip(number + 3)
}

fn host(wire: &mut Wire, name: &str, ip: Ipv4Addr) -> Arc<Namespace> {
    let host = Namespace::new(&PRIVATE.map(Path::new)).unwrap();
    let plug = Plug {
        host: name,
        interface: "eth0",
        ip: ip.into(),
        prefix: 24,
    };
    wire.attach(&host, &plug).unwrap();
    // Clients come and go quickly; answers to 10.77/16 come from here.
    shell(
        &host,
        "sysctl -qw net.ipv4.ip_local_port_range='10000 65000' net.ipv4.conf.all.rp_filter=0 \
         net.core.somaxconn=8192 net.ipv4.tcp_max_syn_backlog=8192",
    );
    Arc::new(host)
}

pub fn shell(host: &Namespace, line: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", line]).stdin(Stdio::null());
    let ended = host.spawn(&mut command).unwrap().wait().unwrap();
    assert!(ended.success(), "{line}");
}

/// A server's host and its process.
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    pub host: Arc<Namespace>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Returns when it listens.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs", self.name);
        // This program again, also when it was built anew meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--serve", &self.address.to_string(), &self.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = self.host.spawn(&mut command).unwrap();
        let mut running = Running {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(running.answer(), "ready");
        self.running = Some(running);
    }

    /// Ends it at once: connections break, further ones are refused.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().unwrap();
            running.child.wait().unwrap();
        }
    }

    pub fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().unwrap();
        let pid = i32::try_from(running.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// What it is to do from now on: `accept normal|reset|slow`, `readyz ok|fails|hangs`.
    pub fn order(&mut self, order: &str) {
        assert_eq!(self.ask(order), "done");
    }

    /// The most clients that it had at once.
    pub fn most(&mut self) -> usize {
        self.ask("most").parse().unwrap()
    }

    fn ask(&mut self, order: &str) -> String {
        let running = self.running.as_mut().unwrap();
        writeln!(running.input, "{order}").unwrap();
        running.answer()
    }
}

impl Running {
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
