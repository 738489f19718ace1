//! The proxy process: its control thread. It holds no privileges and reads bytes from clients, so
//! it may fall at any time: the keeper starts the next one with what this one knew last.
//!
//! `start` connects to the keeper and receives the configuration and the listening sockets; then
//! the process opens what needs files, gives up its rights, and `control` runs its loop: verdicts
//! of the health tasks into the farms, signs of life and snapshots to the keeper, its orders into
//! the engine (`setup` makes what it begins with, `news` is what the keeper hears, `orders` are
//! operators' commands on their way to it, `watchers` are the health
//! tasks; `servers` are orders about servers, `memory` what is kept of them, `shelf` where it
//! outlasts a reboot; `chronicle` keeps the events; `discoveries` takes in those that are found at run time; `force` is
//! the configuration in force, `reload` replaces it; `adoption` is
//! what a process does that outlived its keeper). `verbosity` is what is logged, `occasions` looks for limits that
//! were reached; `who` finds a connection, `report` gathers the status for the admin socket and HTTP (`reception` is the thread that answers the latter), `access` writes the
//! access log on its own thread, `limits` derives the connection limit, `placement` the workers and their CPUs. The data path itself is
//! `proxy::engine`'s threads; nothing here waits for them.

mod access;
mod adoption;
mod chronicle;
mod clients;
mod control;
mod discoveries;
mod force;
mod limits;
mod link;
mod memory;
mod news;
mod occasions;
mod orders;
mod placement;
mod reception;
mod reload;
mod report;
#[cfg(test)]
mod scratch;
mod servers;
mod setup;
mod sharing;
mod shelf;
mod signals;
mod start;
mod tallies;
mod tapes;
mod verbosity;
mod watchers;
mod who;
mod whole;

use std::io;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::Config;
use crate::daemon::confined;
use crate::health::tls::TlsSetupError;
use crate::log::{self, LogError};
use crate::net::clock;
use crate::net::privileges::{ProxyNeeds, ProxyPaths, confine_proxy};
use crate::net::source;
use crate::proxy::engine::EngineError;

/// Where packages put it.
const USUAL_STATE_DIR: &str = "/var/lib/lbd";
const USUAL_RUNTIME_DIR: &str = "/run/lbd";

/// How a proxy process is started.
#[derive(Debug, Clone)]
pub struct ProxyArgs {
    /// The keeper's socket.
    pub keeper_socket: PathBuf,
    /// Where the admin socket goes unless the file says otherwise.
    pub runtime_dir: PathBuf,
}

/// Why a proxy process ended or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The kernel refused what the control thread itself needs.
    #[error("cannot set up the control thread")]
    Setup(#[source] io::Error),
    /// No keeper answered in time.
    #[error("no keeper at {} within {} s", path.display(), waited.as_secs())]
    NoKeeper {
        /// The socket.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
    },
    /// The keeper went away before this process could serve.
    #[error("the keeper went away during the start")]
    KeeperLost(#[source] io::Error),
    /// What the keeper sent makes no sense: the two are of different versions.
    #[error("the keeper sent {0}")]
    Handshake(&'static str),
    /// The keeper's configuration is refused here: the two are of different versions.
    #[error("the configuration has {0} errors; run `lbd check`")]
    Config(usize),
    /// The log cannot be written.
    #[error("cannot log")]
    Log(#[source] LogError),
    /// A check's files are not usable.
    #[error("check of server {server} in proxy {proxy}")]
    Check {
        /// The proxy's name.
        proxy: String,
        /// The server's name.
        server: String,
        /// What is wrong.
        #[source]
        source: Box<TlsSetupError>,
    },
    /// Connecting from clients' addresses takes a right that this process was not given.
    #[error("`source = \"client\"` is not permitted: lbd needs CAP_NET_RAW")]
    ClientSource(#[source] io::Error),
    /// The data path could not start.
    #[error("cannot start the data path")]
    Engine(#[source] EngineError),
}

/// Lives as the proxy process: until the keeper or a signal says stop, or nothing can be served.
///
/// # Errors
/// [`ProxyError`]; the process should end with a failure then, the keeper starts another.
pub fn run(args: ProxyArgs) -> Result<(), ProxyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::Setup)?;
    runtime.block_on(live(args))
}

async fn live(args: ProxyArgs) -> Result<(), ProxyError> {
    let signals = signals::Signals::open().map_err(ProxyError::Setup)?;
    let begin = start::begin(&args.keeper_socket).await?;
    let held = begin.link.hold().map_err(ProxyError::Setup)?;
    let outcome = serve(args, begin, signals).await;
    // The keeper kills a process that closes its end. One that failed has yet to say why: the end
    // closes with the process.
    outcome.inspect_err(|_error| {
        let _until_the_end = held.into_raw_fd();
    })
}

async fn serve(
    args: ProxyArgs,
    begin: start::Begin,
    signals: signals::Signals,
) -> Result<(), ProxyError> {
    log::init(&begin.config.log, "proxy").map_err(ProxyError::Log)?;
    let config = Arc::new(begin.config.clone());
    let probes = start::probes(&config)?;
    let access = access::start(&config).map_err(ProxyError::Log)?;
    let doors = report::Doors::open(&config, &args.runtime_dir, begin.before.succeeds);
    let workers = placement::Workers::of(&config);
    let limits = limits::Limits::of(&config, workers.count);
    let state_dir = state_dir(&config, &args.runtime_dir);
    let shelf = state_dir.as_deref().map(shelf::Shelf::new);
    let chronicle = chronicle::Chronicle::open(state_dir.as_deref(), doors.feed());
    let memory = memory::Memory::new(begin.welcome.notes.clone(), shelf);
    let names = reception::host_names();
    let sandbox = confine(&config, &args.runtime_dir, state_dir.as_deref())?;
    let known = (begin.confined.clone(), sandbox.confinement.clone());
    let plan = control::Plan {
        keeper_socket: args.keeper_socket,
        begin,
        probes,
        access,
        doors,
        limits,
        workers,
        memory,
        chronicle,
        sandbox,
        names,
    };
    let control = control::Control::new(config, plan, clock::now())?;
    control.know_rights(known);
    control.run(signals).await
}

/// Where states outlast a reboot, if anywhere. A second instance on one machine, with a runtime
/// directory of its own, doesn't share the first one's by default.
pub(in crate::daemon) fn state_dir(config: &Config, runtime_dir: &Path) -> Option<PathBuf> {
    if let Some(dir) = &config.state_dir {
        if !dir.is_dir() {
            tracing::warn!(key = %dir.display(), "state-dir is not there: orders about servers are not kept");
        }
        return Some(dir.clone());
    }
    let of_service = std::env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty());
    let usual = Path::new(USUAL_STATE_DIR);
    let usual = usual.is_dir() && runtime_dir == Path::new(USUAL_RUNTIME_DIR);
    of_service
        .map(PathBuf::from)
        .or_else(|| usual.then(|| PathBuf::from(USUAL_STATE_DIR)))
}

/// Gives up every right that is not needed any more. Before any thread of the data path.
fn confine(
    config: &Config,
    runtime_dir: &Path,
    state_dir: Option<&Path>,
) -> Result<reload::Sandbox, ProxyError> {
    let replaceable = reload::needed(config);
    let read: Vec<&Path> = replaceable.iter().map(PathBuf::as_path).collect();
    let mut write = vec![runtime_dir];
    write.extend(state_dir);
    write.extend(config.admin.socket.as_deref().and_then(Path::parent));
    let needs = if config.has_client_source() {
        ProxyNeeds::ClientSource
    } else {
        ProxyNeeds::Nothing
    };
    let report = confine_proxy(
        needs,
        &ProxyPaths {
            read: &read,
            write: &write,
        },
    );
    let confinement = confined::of_process("proxy", report, None);
    tracing::info!(rights = %confinement, "privileges given up");
    match needs {
        ProxyNeeds::Nothing => {}
        ProxyNeeds::ClientSource => source::try_foreign().map_err(ProxyError::ClientSource)?,
    }
    Ok(reload::Sandbox {
        read: replaceable,
        client_source: needs == ProxyNeeds::ClientSource,
        confinement,
    })
}
