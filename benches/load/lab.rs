//! The network the bench measures in: three namespaces of its own (client, proxy, backend) joined
//! by veth pairs, or plain loopback when that is not permitted. The host is left alone.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use lbd::net::clock;
use nix::sched::{CloneFlags, sched_getaffinity, unshare};
use nix::unistd::Pid;

use crate::backend::{Lie, Report};
use crate::roles;

/// Where the servers listen.
const BACKEND_PORT: u16 = 9_000;
const SERVERS: u8 = 3;

/// The namespaces, and the servers that run in one of them.
pub(crate) struct Lab {
    proxy_network: Option<Child>,
    backend: Child,
    backend_input: Option<ChildStdin>,
    backend_output: BufReader<ChildStdout>,
    backend_network: Option<Child>,
    pub(crate) proxy_ip: Ipv4Addr,
    /// The servers as the proxies reach them, and as the client does.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) direct: Vec<SocketAddr>,
    pub(crate) cpus: Cpus,
    next_port: u16,
}

/// Which CPUs the load, the servers and the program under test may use; empty: any.
#[derive(Clone)]
pub(crate) struct Cpus {
    pub(crate) client: Vec<usize>,
    pub(crate) backend: Vec<usize>,
    pub(crate) proxy: Vec<usize>,
    /// How many this machine lets us use.
    pub(crate) count: usize,
}

impl Cpus {
    /// How many CPUs the load has for itself.
    pub(crate) fn load(&self) -> usize {
        let apart = self.backend.iter().filter(|cpu| !self.client.contains(cpu));
        self.client.len() + apart.count()
    }

    /// Apart as far as the machine has CPUs: with two and one thread, the proxy has one of its own.
    fn plan(all: &[usize], threads: usize, shared: bool) -> Self {
        let pick = |from: usize, count: usize| all.iter().skip(from).take(count).copied().collect();
        if all.len() >= threads + 2 && !shared {
            Self {
                client: pick(0, 1),
                proxy: pick(1, threads),
                count: all.len(),
                backend: pick(threads + 1, 1),
            }
        } else if all.len() > threads && !shared {
            Self {
                client: pick(0, 1),
                proxy: pick(1, threads),
                count: all.len(),
                backend: pick(0, 1),
            }
        } else {
            Self {
                client: Vec::new(),
                proxy: Vec::new(),
                count: all.len(),
                backend: Vec::new(),
            }
        }
    }
}

/// The CPUs this process may use; to be asked before a lab pins it to some of them.
pub(crate) fn usable_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let all = 0..nix::sched::CpuSet::count();
    Ok(all
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

impl Lab {
    /// As root in namespaces, else on loopback. This process becomes the client: with namespaces
    /// it has left the host's network when this returns.
    pub(crate) fn open(
        usable: &[usize],
        threads: usize,
        shared: bool,
        lie: Option<Lie>,
    ) -> io::Result<Self> {
        let cpus = Cpus::plan(usable, threads, shared);
        // An earlier lab may have pinned us; what we start inherits that.
        roles::pin(usable)?;
        let isolated = nix::unistd::geteuid().is_root();
        let unit = u16::try_from(std::process::id() % 1_000).unwrap_or(0);
        let (proxy_network, backend_network) = match isolated {
            true => {
                unshare(CloneFlags::CLONE_NEWNET)?;
                roles::tune_network();
                let (proxy, backend) = (hold_network()?, hold_network()?);
                join(&proxy, &backend)?;
                (Some(proxy), Some(backend))
            }
            false => (None, None),
        };
        let net = |third: u8| match isolated {
            true => Ipv4Addr::new(10, 200, third, 0),
            false => Ipv4Addr::new(127, 0, third, 0),
        };
        // On loopback the host's own services are near: ports by process id, below the ephemeral.
        let port = if isolated {
            BACKEND_PORT
        } else {
            20_000 + unit * 10
        };
        let servers = addresses(net(2), port);
        let direct = addresses(net(3), port);
        let mut backend = roles::within(backend_network.as_ref(), &cpus.backend)?
            .arg(std::env::current_exe()?)
            .arg("backend")
            .args(
                lie.and_then(|lie| Some(format!("--lie={}", lie.to_possible_value()?.get_name()))),
            )
            .args(servers.iter().chain(&direct).map(ToString::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = backend.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        roles::pin(&cpus.client)?;
        let mut lab = Self {
            proxy_network,
            backend_input: backend.stdin.take(),
            backend_output: BufReader::new(output),
            backend,
            backend_network,
            proxy_ip: match isolated {
                true => Ipv4Addr::new(10, 200, 1, 2),
                false => Ipv4Addr::LOCALHOST,
            },
            servers,
            direct,
            cpus,
            next_port: if isolated { 7_000 } else { 20_001 + unit * 10 },
        };
        lab.report()?;
        Ok(lab)
    }

    pub(crate) fn is_isolated(&self) -> bool {
        self.proxy_network.is_some()
    }

    pub(crate) fn backend_pid(&self) -> u32 {
        self.backend.id()
    }

    /// A command that runs its later arguments where the proxies are.
    pub(crate) fn at_proxy(&self) -> io::Result<Command> {
        roles::within(self.proxy_network.as_ref(), &self.cpus.proxy)
    }

    /// A port no program of this lab has had.
    pub(crate) fn fresh_port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// What the servers saw since the last call.
    pub(crate) fn report(&mut self) -> io::Result<Report> {
        let input = self
            .backend_input
            .as_mut()
            .ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "report")?;
        let mut line = String::new();
        self.backend_output.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until no server has a connection, at most two seconds; adds up what was seen.
    pub(crate) fn settle(&mut self) -> io::Result<Report> {
        let mut sum = self.report()?;
        let end = clock::now() + Duration::from_secs(2);
        while sum.open > 0 && clock::now() < end {
            std::thread::sleep(Duration::from_millis(2));
            let more = self.report()?;
            sum.open = more.open;
            sum.connections += more.connections;
            sum.exchanges += more.exchanges;
            sum.bytes_in += more.bytes_in;
            sum.bytes_out += more.bytes_out;
            for (cause, count) in more.failures {
                *sum.failures.entry(cause).or_default() += count;
            }
            for (sum, more) in sum.per_server.iter_mut().zip(more.per_server) {
                *sum += more;
            }
        }
        Ok(sum)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The end of its input ends the backend; the namespaces go with their holders.
        drop(self.backend_input.take());
        let holders = self
            .proxy_network
            .iter_mut()
            .chain(&mut self.backend_network);
        for child in holders {
            drop(child.stdin.take());
            if let Err(error) = child.wait() {
                eprintln!("note: a namespace's holder did not end: {error}");
            }
        }
        if let Err(error) = self.backend.wait() {
            eprintln!("note: the backend did not end: {error}");
        }
    }
}

fn addresses(net: Ipv4Addr, port: u16) -> Vec<SocketAddr> {
    let [a, b, c, _] = net.octets();
    (0..SERVERS)
        .map(|index| SocketAddr::from((Ipv4Addr::new(a, b, c, 11 + index), port)))
        .collect()
}

fn hold_network() -> io::Result<Child> {
    let mut child = roles::command("hold-network")?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(output) = &mut child.stdout {
        BufReader::new(output).read_line(&mut line)?;
    }
    match line.trim() {
        "ready" => Ok(child),
        _ => Err(io::Error::other(
            "no network namespace (see the message above)",
        )),
    }
}

/// Joins this namespace, the proxy's and the backend's by veth pairs: client–proxy,
/// proxy–backend, and client–backend for the measurement without a proxy.
fn join(proxy: &Child, backend: &Child) -> io::Result<()> {
    let (proxy_pid, backend_pid) = (proxy.id(), backend.id());
    let links = format!(
        "link add c-p type veth peer name p-c netns {proxy_pid}\n\
         link add c-b type veth peer name b-c netns {backend_pid}\n"
    );
    ip(
        None,
        &format!(
            "{links}{}",
            up(&[("c-p", &["10.200.1.1"]), ("c-b", &["10.200.3.1"])])
        ),
    )?;
    ip(
        Some(proxy),
        &format!(
            "link add p-b type veth peer name b-p netns {backend_pid}\n{}",
            up(&[("p-c", &["10.200.1.2"]), ("p-b", &["10.200.2.1"])])
        ),
    )?;
    let inner = ["10.200.2.11", "10.200.2.12", "10.200.2.13"];
    let direct = ["10.200.3.11", "10.200.3.12", "10.200.3.13"];
    ip(Some(backend), &up(&[("b-p", &inner), ("b-c", &direct)]))
}

fn up(links: &[(&str, &[&str])]) -> String {
    let mut lines = String::from("link set lo up\n");
    for (link, addresses) in links {
        for address in *addresses {
            lines += &format!("addr add {address}/24 dev {link}\n");
        }
        lines += &format!("link set {link} up\n");
    }
    lines
}

fn ip(holder: Option<&Child>, batch: &str) -> io::Result<()> {
    let mut child = roles::within(holder, &[])?
        .args(["ip", "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(batch.as_bytes())?;
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("`ip` failed (is iproute2 installed?)")),
    }
}
