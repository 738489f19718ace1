//! Hosts as a template's files want them: interfaces by their names, nodes and servers at their
//! addresses, and lbd with the imported file or keepalived and HAProxy with the old ones on each node.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lbd::cli::demo::certificate::Tls;
use lbd::cli::demo::lab::Node;
use lbd::cli::demo::server::TlsServer;
use lbd::import::{Input, Node as Hint, Source, import};
use lbd::net::clock;
use lbd::net::netns::Namespace;
use lbd::net::netns::wire::{Plug, Wire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab;

/// Directories that each host has for itself.
const PRIVATE: [&str; 5] = [
    "/run",
    "/tmp",
    "/var/lib/haproxy",
    "/var/lib/lbd",
    "/etc/keepalived",
];
/// Within this time a busy machine answers.
const ANSWER: Duration = Duration::from_secs(2);

/// A folder of tests/data/import, and the hosts that its files are about.
pub struct Template {
    pub folder: &'static str,
    /// Each node's keepalived.conf, name and address.
    pub nodes: &'static [(&'static str, &'static str, &'static str)],
    /// Whether keepalived.conf doesn't say those addresses.
    pub told: bool,
    pub interface: &'static str,
    /// What the last node's file and its scripts make of its priority, for each virtual router.
    pub priorities: &'static [u64],
    /// The virtual addresses, in the order of the virtual routers.
    pub vips: &'static [&'static str],
    /// Where clients connect; where it is a loopback address, on the node itself.
    pub targets: &'static [&'static str],
    /// Where servers answer `GET`, by TLS.
    pub servers: &'static [&'static str],
    /// A server that accepts connections, and speaks no TLS.
    pub deaf: &'static str,
    /// Whether the check finds that out.
    pub found_out: bool,
    pub client: &'static str,
    /// The listener for health and metrics.
    pub metrics: &'static str,
    /// Programs that keepalived.conf names.
    pub scripts: &'static [&'static str],
}

pub struct Hosts {
    pub nodes: Vec<Node>,
    pub config: String,
    pub template: &'static Template,
    client: Arc<Namespace>,
    tls: Tls,
    children: RefCell<Vec<(usize, Child)>>,
    _others: Vec<Arc<Namespace>>,
    _servers: Vec<TlsServer>,
    _wire: Wire,
}

impl Template {
    fn read(&self, file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import");
        let path = path.join(self.folder).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// lb.toml, as `lbd import --allow-loss` writes it.
    fn imported(&self) -> String {
        let haproxy = self.read("haproxy.cfg");
        let files: Vec<(&str, String)> = self
            .nodes
            .iter()
            .filter(|(file, ..)| !file.is_empty())
            .map(|(file, ..)| (*file, self.read(file)))
            .collect();
        let hint = |(_, name, address): &(&str, &str, &str)| Hint {
            name: Some((*name).to_owned()),
            address: Some(address.parse().unwrap()),
        };
        let outcome = import(&Input {
            haproxy: Some(Source {
                name: "haproxy.cfg",
                text: &haproxy,
            }),
            keepalived: files
                .iter()
                .map(|(name, text)| Source { name, text })
                .collect(),
            nodes: if self.told {
                self.nodes.iter().map(hint).collect()
            } else {
                Vec::new()
            },
        });
        assert!(outcome.accepted && outcome.needs.is_empty(), "{outcome:?}");
        outcome.text
    }
}

impl Hosts {
    /// The template's hosts with its servers; no node runs anything yet.
    pub fn new(template: &'static Template) -> Self {
        let mut wire = Wire::new().unwrap();
        let mut nodes = Vec::new();
        for (number, (_, name, address)) in template.nodes.iter().enumerate() {
            let ip = address.parse().unwrap();
            let host = host(&mut wire, &format!("lb{number}"), template.interface, ip);
            host.run(|| scripts(template.scripts)).unwrap();
            nodes.push(Node {
                name: (*name).to_owned(),
                ip,
                interface: template.interface.to_owned(),
                host,
            });
        }
        let client = host(
            &mut wire,
            "client",
            "eth0",
            template.client.parse().unwrap(),
        );
        let target: SocketAddr = template.targets[0].parse().unwrap();
        let tls = Tls::new(&[target.ip()]).unwrap();
        let (mut others, mut servers) = (Vec::new(), Vec::new());
        let mut hosts: Vec<(IpAddr, Arc<Namespace>)> = nodes
            .iter()
            .map(|node| (node.ip, Arc::clone(&node.host)))
            .collect();
        for address in template.servers.iter().chain([&template.deaf]) {
            let address: SocketAddr = address.parse().unwrap();
            let known = hosts.iter().find(|(ip, _)| *ip == address.ip());
            let host = known.map(|(_, host)| Arc::clone(host)).unwrap_or_else(|| {
                let name = format!("server{}", others.len());
                let made = host(&mut wire, &name, "eth0", address.ip());
                others.push(Arc::clone(&made));
                hosts.push((address.ip(), Arc::clone(&made)));
                made
            });
            if address.to_string() == template.deaf {
                deaf(&host, address);
            } else {
                let tls = Arc::clone(&tls.server);
                let name = address.to_string();
                servers.push(TlsServer::start(&host, address, &name, tls).unwrap());
            }
        }
        Self {
            nodes,
            config: template.imported(),
            template,
            client,
            tls,
            children: RefCell::default(),
            _others: others,
            _servers: servers,
            _wire: wire,
        }
    }

    /// lbd with the imported file, as it is.
    pub fn start_lbd(&self, node: usize) {
        let child = self.nodes[node]
            .start_lbd(&lab::lbd(), &self.config)
            .unwrap();
        self.children.borrow_mut().push((node, child));
    }

    /// HAProxy with the template's file.
    pub fn start_haproxy(&self, node: usize) {
        let text = self.template.read("haproxy.cfg");
        self.start(
            node,
            "haproxy",
            &["-db", "-f", "/run/lbd/haproxy.cfg"],
            &text,
        );
    }

    /// keepalived with the template's file of that node.
    pub fn start_keepalived(&self, node: usize) {
        let text = self.template.read(self.template.nodes[node].0);
        // keepalived 2.2.7 dies of it on a kernel without IPVS.
        let lines = text
            .lines()
            .filter(|line| !line.contains("lvs_sync_daemon"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let arguments = [
            ["-n", "-l", "-D"],
            ["-f", "/run/lbd/keepalived.cfg", "-p"],
            ["/run/keepalived.pid", "-r", "/run/vrrp.pid"],
        ];
        self.start(node, "keepalived", arguments.as_flattened(), &text);
    }

    fn start(&self, node: usize, program: &str, arguments: &[&str], text: &str) {
        let host = &self.nodes[node].host;
        let log = host.run(|| {
            // Where haproxy.cfg has its socket.
            std::fs::create_dir_all("/var/lib/haproxy/run")?;
            std::fs::create_dir_all("/run/lbd")?;
            std::fs::write(format!("/run/lbd/{program}.cfg"), text)?;
            File::options()
                .create(true)
                .append(true)
                .open("/run/lbd/log")
        });
        let log = log.unwrap().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = host.spawn(&mut command).unwrap();
        self.children.borrow_mut().push((node, child));
    }

    /// Signals every process of a node whose program has that name.
    pub fn signal(&self, node: usize, program: &str, signal: Signal) {
        let pids = self.pids(node, program);
        assert!(!pids.is_empty(), "{program} doesn't run\n{}", self.report());
        for pid in pids {
            match kill(pid, signal) {
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => panic!("kill {pid}: {error}"),
            }
        }
    }

    pub fn pids(&self, node: usize, program: &str) -> Vec<Pid> {
        let mut children = self.children.borrow_mut();
        children.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
        let all = self.nodes[node].host.processes().unwrap().into_iter();
        let same = |command: &[String]| command.first().is_some_and(|name| name.ends_with(program));
        all.filter(|process| same(&process.command))
            .map(|process| process.pid)
            .collect()
    }

    /// Who holds each virtual address, where exactly one node does.
    pub fn holders(&self) -> Vec<Option<usize>> {
        let own: Vec<Vec<IpAddr>> = self
            .nodes
            .iter()
            .map(|node| node.host.rtnl().unwrap().addresses().unwrap())
            .collect();
        let holder = |vip: &&str| {
            let vip: IpAddr = vip.parse().unwrap();
            let mut holders = (0..own.len()).filter(|node| own[*node].contains(&vip));
            holders.next().filter(|_| holders.next().is_none())
        };
        self.template.vips.iter().map(holder).collect()
    }

    /// Waits for a condition, at most so many seconds; how long it took.
    pub fn until(&self, what: &str, seconds: u64, condition: impl Fn() -> bool) -> Duration {
        let start = clock::now();
        while !condition() {
            assert!(
                clock::now() - start < Duration::from_secs(seconds),
                "{}: not within {seconds} s: {what}\n{}",
                self.template.folder,
                self.report()
            );
            thread::sleep(Duration::from_millis(15));
        }
        clock::now() - start
    }

    pub fn until_held_by(&self, node: usize, seconds: u64) -> Duration {
        let what = format!("{} alone holds the VIP", self.nodes[node].name);
        self.until(&what, seconds, || {
            self.holders().iter().all(|holder| *holder == Some(node))
        })
    }

    /// Waits until each virtual address has one holder, which is another node; how long it took.
    pub fn until_left(&self, node: usize, seconds: u64) -> Duration {
        self.until("others hold the VIPs", seconds, || {
            let left = |holder: &Option<usize>| holder.is_some_and(|holder| holder != node);
            self.holders().iter().all(left)
        })
    }

    /// Waits until every target is served; `node` asks where the target is on loopback.
    pub fn until_served(&self, node: usize) {
        for target in self.template.targets {
            self.until(&format!("{target} is served"), 20, || {
                self.ask(node, target)
                    .is_some_and(|name| self.template.servers.contains(&&*name))
            });
        }
    }

    /// The name of the server that answers by TLS at this address.
    fn ask(&self, node: usize, target: &str) -> Option<String> {
        let target: SocketAddr = target.parse().unwrap();
        let host = if target.ip().is_loopback() {
            &self.nodes[node].host
        } else {
            &self.client
        };
        let tls = Arc::clone(&self.tls.client);
        let asked = host.run(|| -> std::io::Result<String> {
            let stream = connect(target)?;
            let name = target.ip().into();
            let client = rustls::ClientConnection::new(tls, name).map_err(std::io::Error::other)?;
            let mut stream = rustls::StreamOwned::new(client, stream);
            stream.write_all(b"GET /name HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = asked.unwrap().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some(body.trim().to_owned())
    }

    /// What the imported listener for health and metrics answers on a node.
    pub fn page(&self, node: usize, path: &str) -> Option<String> {
        let target = self.template.metrics.parse().unwrap();
        let asked = self.nodes[node].host.run(|| -> std::io::Result<String> {
            let mut stream = connect(target)?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: lbd\r\n\r\n").as_bytes())?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        });
        asked.unwrap().ok()
    }

    /// The lines of a node's metrics that begin so.
    pub fn metrics(&self, node: usize, start: &str) -> Vec<String> {
        let page = self.page(node, "/metrics").unwrap_or_default();
        page.lines()
            .filter(|line| line.starts_with(start))
            .map(str::to_owned)
            .collect()
    }

    pub fn report(&self) -> String {
        let mut report = format!("holders {:?}\n{}", self.holders(), self.config);
        for node in &self.nodes {
            let mut command = Command::new(lab::lbd());
            command.args(["status", "--socket", "/run/lbd/admin.sock"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = node.host.spawn(&mut command).unwrap();
            let said = child.wait_with_output().unwrap();
            let log = node.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            report.push_str(&format!(
                "--- {}\n{}\n{}\n",
                node.name,
                String::from_utf8_lossy(&said.stdout),
                lines[lines.len().saturating_sub(30)..].join("\n")
            ));
        }
        report
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for node in &self.nodes {
            drop(node.host.signal(Signal::SIGKILL));
        }
        for (_, child) in self.children.get_mut() {
            drop(child.wait());
        }
    }
}

fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

fn host(wire: &mut Wire, name: &str, interface: &str, ip: IpAddr) -> Arc<Namespace> {
    let private: Vec<PathBuf> = PRIVATE.iter().map(PathBuf::from).collect();
    let private: Vec<&Path> = private.iter().map(PathBuf::as_path).collect();
    let host = Namespace::new(&private).unwrap();
    let plug = Plug {
        host: name,
        interface,
        ip,
        prefix: 24,
    };
    wire.attach(&host, &plug).unwrap();
    Arc::new(host)
}

/// The templates' own programs, which are content here.
fn scripts(names: &[&str]) {
    for name in names {
        let path = format!("/etc/keepalived/{name}");
        std::fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    }
}

/// Takes connections, and closes them before a word.
fn deaf(host: &Arc<Namespace>, address: SocketAddr) {
    let listener = host.run(|| TcpListener::bind(address)).unwrap().unwrap();
    // It ends with the process.
    drop(thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    }));
}
