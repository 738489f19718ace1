//! The laboratory: a wire, hosts on it, servers that answer, nodes that run lbd, and someone who
//! watches which of them holds the VIP.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::certificate::Tls;
use super::history::History;
use super::plan::Plan;
use super::server::TlsServer;
use crate::net::clock;
use crate::net::netns::Namespace;
use crate::net::netns::wire::{Plug, Wire};

/// Directories that each host has for itself.
const PRIVATE: [&str; 3] = ["/run", "/var/lib/haproxy", "/var/lib/lbd"];
/// How often the holders are looked up.
const WATCH_INTERVAL: Duration = Duration::from_millis(10);
/// Where a node finds its file, in its own /run.
const CONFIG_PATH: &str = "/run/lbd/lb.toml";
/// Where a node's messages go, in its own /run.
const LOG_PATH: &str = "/run/lbd/log";
/// A node's runtime directory.
const RUNTIME_DIR: &str = "/run/lbd";

/// The laboratory. Everything in it ends when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The load balancers, in the plan's order.
    pub nodes: Vec<Node>,
    /// Where the client runs.
    pub client: Arc<Namespace>,
    /// The switch.
    pub wire: Wire,
    /// The certificate of this run.
    pub tls: Tls,
    /// The names of the servers, in the plan's order.
    pub server_names: Vec<String>,
    servers: Vec<Server>,
    watcher: Watcher,
}

/// A stand-in for kube-apiserver, running or not.
#[derive(Debug)]
struct Server {
    name: String,
    address: SocketAddr,
    host: Arc<Namespace>,
    running: Option<TlsServer>,
}

/// A load balancer's host.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its interface.
    pub interface: String,
    /// Its namespace.
    pub host: Arc<Namespace>,
}

impl Lab {
    /// Builds the plan, and starts the servers and the watcher.
    ///
    /// # Errors
    /// What the kernel says about namespaces, links and addresses.
    pub fn build(plan: &Plan) -> io::Result<Self> {
        let mut wire = Wire::new()?;
        let mut hosts: BTreeMap<IpAddr, Arc<Namespace>> = BTreeMap::new();
        let mut nodes = Vec::new();
        for (number, node) in plan.nodes.iter().enumerate() {
            let interface = node.interface.clone();
            let host = join(
                &mut wire,
                &format!("lb{}", number + 1),
                &interface,
                node.ip,
                plan,
            )?;
            if let Some((twin, prefix)) = node.twin {
                let mut rtnl = host.rtnl()?;
                let index = rtnl.link_index(&interface)?;
                rtnl.add_address(index, twin, prefix)?;
            }
            hosts.insert(node.ip, Arc::clone(&host));
            nodes.push(Node {
                name: node.name.clone(),
                ip: node.ip,
                interface,
                host,
            });
        }
        let client = join(&mut wire, "client", "eth0", plan.client, plan)?;
        let tls = Tls::new(&[plan.target.ip()])?;
        let mut servers = Vec::new();
        for (number, server) in plan.servers.iter().enumerate() {
            let ip = server.address.ip();
            let host = match hosts.get(&ip) {
                Some(host) => Arc::clone(host),
                None => join(
                    &mut wire,
                    &format!("server{}", number + 1),
                    "eth0",
                    ip,
                    plan,
                )?,
            };
            hosts.insert(ip, Arc::clone(&host));
            servers.push(Server {
                name: server.name.clone(),
                address: server.address,
                host,
                running: None,
            });
        }
        let watcher = Watcher::start(&nodes, plan.target.ip())?;
        let mut lab = Self {
            nodes,
            client,
            wire,
            tls,
            server_names: plan.servers.iter().map(|s| s.name.clone()).collect(),
            servers,
            watcher,
        };
        lab.start_servers()?;
        Ok(lab)
    }

    /// How many servers answer.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers
            .iter()
            .filter(|server| server.running.is_some())
            .count()
    }

    /// Starts the servers that don't run.
    ///
    /// # Errors
    /// When an address can't be bound: the last server may not have left it yet.
    pub fn start_servers(&mut self) -> io::Result<()> {
        for server in self
            .servers
            .iter_mut()
            .filter(|server| server.running.is_none())
        {
            let tls = Arc::clone(&self.tls.server);
            let running = TlsServer::start(&server.host, server.address, &server.name, tls)?;
            server.running = Some(running);
        }
        Ok(())
    }

    /// Ends all servers: their connections break, further ones are refused.
    pub fn stop_servers(&mut self) {
        for server in &mut self.servers {
            server.running = None;
        }
    }

    /// Looks at who held the VIP when.
    pub fn history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(
            &self
                .watcher
                .history
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl Node {
    /// Starts lbd with this file, in the foreground, its messages in the host's own log.
    ///
    /// # Errors
    /// What the file system, fork(2) and execve(2) say.
    pub fn start_lbd(&self, program: &Path, config: &str) -> io::Result<Child> {
        let log = self.write_config(config)?;
        let mut command = Command::new(program);
        command
            .args(["--config", CONFIG_PATH, "--runtime-dir", RUNTIME_DIR])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            // Ctrl-C is for the demo, which ends its nodes in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.host.spawn(&mut command)
    }

    /// What lbd has written to its log so far.
    ///
    /// # Errors
    /// When there is none.
    pub fn log(&self) -> io::Result<String> {
        self.host.run(|| std::fs::read_to_string(LOG_PATH))?
    }

    fn write_config(&self, config: &str) -> io::Result<File> {
        self.host.run(|| {
            std::fs::create_dir_all(RUNTIME_DIR)?;
            std::fs::write(CONFIG_PATH, config)?;
            File::options().create(true).append(true).open(LOG_PATH)
        })?
    }
}

fn join(
    wire: &mut Wire,
    name: &str,
    interface: &str,
    ip: IpAddr,
    plan: &Plan,
) -> io::Result<Arc<Namespace>> {
    let private: Vec<PathBuf> = PRIVATE.iter().map(PathBuf::from).collect();
    let private: Vec<&Path> = private.iter().map(PathBuf::as_path).collect();
    let host = Namespace::new(&private)?;
    let plug = Plug {
        host: name,
        interface,
        ip,
        prefix: plan.prefix,
    };
    wire.attach(&host, &plug)?;
    Ok(Arc::new(host))
}

/// Looks up the holders of the VIP, again and again.
#[derive(Debug)]
struct Watcher {
    history: Arc<Mutex<History>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    fn start(nodes: &[Node], vip: IpAddr) -> io::Result<Self> {
        let history = Arc::new(Mutex::new(History::new(clock::now(), nodes.len())));
        let stop = Arc::new(AtomicBool::new(false));
        let mut sockets = Vec::new();
        for node in nodes {
            sockets.push(node.host.rtnl()?);
        }
        let (entries, stopped) = (Arc::clone(&history), Arc::clone(&stop));
        let watch = move || {
            while !stopped.load(Ordering::Relaxed) {
                let holders: Vec<bool> = sockets
                    .iter_mut()
                    .map(|rtnl| rtnl.addresses().is_ok_and(|all| all.contains(&vip)))
                    .collect();
                entries
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .observe(clock::now(), &holders);
                thread::sleep(WATCH_INTERVAL);
            }
        };
        let builder = thread::Builder::new().name("watcher".into());
        Ok(Self {
            history,
            stop,
            thread: Some(builder.spawn(watch)?),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panicked watcher has nothing left to stop.
            drop(thread.join());
        }
    }
}
