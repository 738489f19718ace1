//! The programs under test: how each is configured and started. Same listeners, servers, checks,
//! limits and number of threads for all.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use lbd::net::clock;

use crate::client::{Load, Plan, Talk, Then};
use crate::extra;
use crate::lab::Lab;
use crate::pattern::Pattern;
use crate::usage::{Memory, Processes};

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// No proxy: the limit of load, servers and kernel.
    Direct,
    /// HAProxy with its defaults: the reference.
    Haproxy,
    /// HAProxy with `option splice-auto`; bulk only.
    HaproxySplice,
    Lbd,
    /// One given on the command line.
    #[value(skip)]
    Extra(usize),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Lbd => "lbd",
            Self::Extra(place) => extra::name(place),
        }
    }
}

/// Where the programs are and what they are given.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) haproxy: PathBuf,
    pub(crate) lbd: PathBuf,
    pub(crate) threads: usize,
    /// Connections each may have: never the limit of a measurement.
    pub(crate) max_connections: u64,
    pub(crate) scratch: PathBuf,
}

/// A program that serves.
pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// Where the client connects, in turn.
    pub(crate) addresses: Vec<SocketAddr>,
    cage: Option<Child>,
    processes: Processes,
}

impl Target {
    /// Starts it and waits for the first answer through it.
    pub(crate) fn start(
        kind: Kind,
        lab: &mut Lab,
        programs: &Programs,
        pattern: &Pattern,
    ) -> io::Result<Self> {
        let port = lab.fresh_port();
        let listen = SocketAddr::from((lab.proxy_ip, port));
        let folder = programs.scratch.join(format!("{}-{port}", kind.name()));
        fs::create_dir_all(&folder)?;
        let command_line = match kind {
            Kind::Direct => {
                return Ok(Self {
                    kind,
                    addresses: lab.direct.clone(),
                    cage: None,
                    processes: Processes::none(),
                });
            }
            Kind::Haproxy | Kind::HaproxySplice => {
                let path = folder.join("haproxy.cfg");
                fs::write(&path, haproxy_cfg(kind, listen, &lab.servers, programs))?;
                let program = programs.haproxy.clone();
                vec![program, "-db".into(), "-f".into(), path]
            }
            Kind::Extra(place) => extra::command_line(place, listen, &lab.servers),
            Kind::Lbd => {
                let path = folder.join("lb.toml");
                fs::write(&path, lb_toml(listen, &lab.servers, programs))?;
                let program = programs.lbd.clone();
                let runtime = folder.join("run");
                fs::create_dir_all(&runtime)?;
                vec![
                    program,
                    "--config".into(),
                    path,
                    "--runtime-dir".into(),
                    runtime,
                ]
            }
        };
        let log = File::create(folder.join("log"))?;
        let cage = lab
            .at_proxy()?
            .arg(std::env::current_exe()?)
            .args(["cage", "--"])
            .args(command_line)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut target = Self {
            kind,
            addresses: vec![listen],
            processes: Processes::none(),
            cage: Some(cage),
        };
        target.await_service(pattern, &folder)?;
        target.find_processes();
        Ok(target)
    }

    /// Looks for its processes anew: one may have been restarted.
    pub(crate) fn find_processes(&mut self) {
        if let Some(cage) = &self.cage {
            self.processes = Processes::under(cage.id());
            self.processes.weigh_like_us();
        }
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.processes.cpu()
    }

    pub(crate) fn memory(&self) -> Memory {
        self.processes.memory()
    }

    fn await_service(&self, pattern: &Pattern, folder: &Path) -> io::Result<()> {
        let end = clock::now() + Duration::from_secs(10);
        loop {
            let mut load = Load::new(self.plan(small(), Then::Close), pattern)?;
            load.open(1);
            load.run_until_done(1, Duration::from_secs(1))?;
            let counts = load.finish(Duration::ZERO)?;
            if counts.failed() == 0 && counts.done == 1 {
                return Ok(());
            }
            if clock::now() > end {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                let reason = format!("{} does not serve; it said:\n{log}", self.kind.name());
                return Err(io::Error::other(reason));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `talk` with this target.
    pub(crate) fn plan(&self, talk: Talk, then: Then) -> Plan {
        Plan {
            targets: self.addresses.clone(),
            talk,
            then,
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(mut cage) = self.cage.take() else {
            return;
        };
        drop(cage.stdin.take());
        if let Err(error) = cage.wait() {
            eprintln!("note: {} did not end: {error}", self.kind.name());
        }
    }
}

/// An exchange of one small request and one small answer.
pub(crate) fn small() -> Talk {
    Talk::Exchange {
        request: 1_024,
        answer: 2_048,
    }
}

/// The seed's haproxy.cfg, but for the limits, the log socket and the daemon's user.
fn haproxy_cfg(
    kind: Kind,
    listen: SocketAddr,
    servers: &[SocketAddr],
    programs: &Programs,
) -> String {
    let (max, threads) = (programs.max_connections, programs.threads);
    let (pipes, splice) = match kind {
        Kind::HaproxySplice => ("    maxpipes 64\n", "    option splice-auto\n"),
        Kind::Haproxy | Kind::Direct | Kind::Lbd | Kind::Extra(_) => ("", ""),
    };
    let mut text = format!(
        "global\n    maxconn {max}\n    nbthread {threads}\n{pipes}\
         defaults\n    mode tcp\n    option dontlognull\n{splice}\
         \x20   timeout connect 5000\n    timeout client 50000\n    timeout server 50000\n\
         frontend bench-in\n    bind {listen}\n    maxconn {max}\n    default_backend bench\n\
         backend bench\n    option tcp-check\n    balance roundrobin\n\
         \x20   default-server inter 10s downinter 5s rise 2 fall 2 slowstart 60s \
         maxconn {max} weight 100\n"
    );
    for (index, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{index} {server} check\n"));
    }
    text
}

fn lb_toml(listen: SocketAddr, servers: &[SocketAddr], programs: &Programs) -> String {
    let (max, threads) = (programs.max_connections, programs.threads);
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    let servers = servers.join(", ");
    format!(
        "[log]\nlevel = \"warning\"\ntarget = \"stderr\"\n\
         [metrics]\nlisten = \"off\"\n\
         [limits]\nmax-connections = {max}\nworkers = {threads}\n\
         [proxy.bench]\nlisten = \"{listen}\"\nbalance = \"round-robin\"\n\
         connect-timeout = \"5s\"\nslowstart = \"60s\"\nclient-first = true\n\
         check = {{ type = \"tcp\", interval = \"10s\", down-interval = \"5s\", rise = 2, fall = 2 }}\n\
         backends = [{servers}]\n"
    )
}
