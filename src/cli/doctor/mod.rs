//! `lbd doctor`: looks at this machine, its LAN and the servers for what would keep lbd from working,
//! with and without a running daemon, and changes nothing. Each check ends as ok, warning, failed or
//! not checked, with what it comes from and what helps.
//!
//! `report` tells, `adverts`, `answers` and `peers` judge what is heard (all pure); `host`, `ports`,
//! `sandbox`, `lan` and `servers` look. No policy of the daemon lives here.

mod adverts;
mod answers;
mod host;
mod lan;
mod peers;
mod ports;
mod report;
mod sandbox;
mod servers;

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::explain::Output;
use super::reach::{FAILURE, Reach};
use super::{CONFIG_PATH, Exit, check, color, out, run::read, talk};
use crate::admin::protocol::{AskError, ask_status};
use crate::admin::status::{Status, short_time};
use crate::config::local::{self, HostFacts, LocalVip};
use crate::config::model::Config;
use crate::config::{self, Problem};
use crate::ipc::message::VipStatus;
use crate::net::netlink::{self, Link, Netlink};
use report::Finding;

const EXAMPLES: &str = "\
It listens for adverts for a few intervals, asks by ARP and neighbour discovery who has the addresses, and asks each server
what the daemon would ask it. It changes nothing. As root it sees more: what takes rights that this
user lacks is `not checked`, with the reason.

Examples:
  lbd doctor                      before the first start, and whenever something is odd
  lbd doctor ./lb.toml --for 10s  another file, listening for longer
  lbd doctor -o json              for programs

Exit codes: 0 nothing failed (warnings are no failures), 1 something did, 2 usage.";

/// What to look at.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// The configuration [default: /etc/lbd/lb.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Which node this machine is, by name or address, where its addresses don't tell
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// The daemon's admin socket [default: as the configuration says]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How long to listen [default: three advert intervals and some more]
    #[arg(long = "for", value_name = "TIME", value_parser = listening_time)]
    listen: Option<Duration>,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn listening_time(text: &str) -> Result<Duration, String> {
    match config::plain_duration(text) {
        Some(time) if (Duration::from_millis(100)..=Duration::from_secs(300)).contains(&time) => {
            Ok(time)
        }
        Some(_) => Err("from 100ms to 5m".to_owned()),
        None => Err("write a whole number and a unit, ms, s or m: 5s".to_owned()),
    }
}

/// What the checks look at.
pub(super) struct Facts {
    /// The configuration's path.
    path: PathBuf,
    /// The configuration, if it is accepted.
    config: Option<Config>,
    /// This machine's interfaces and addresses.
    host: HostFacts,
    links: Vec<Link>,
    /// The VIPs that this machine takes part in.
    locals: Vec<LocalVip>,
    /// What the running daemon says; `None`: none answers.
    status: Option<Status>,
}

impl Facts {
    /// The running daemon's view of a VIP.
    fn vip(&self, name: &str) -> Option<&VipStatus> {
        let vrrp = self.status.as_ref()?.vrrp.as_ref()?;
        vrrp.vips.iter().find(|vip| vip.name == name)
    }

    /// The process ids of the running daemon, as it says.
    fn processes(&self) -> Vec<u32> {
        let Some(status) = &self.status else {
            return Vec::new();
        };
        let keeper = status.vrrp.as_ref().map(|vrrp| vrrp.keeper_pid);
        keeper.into_iter().chain([status.process.pid]).collect()
    }
}

/// Looks, tells, and says with which code to exit.
pub(super) fn run(args: &DoctorArgs) -> u8 {
    let mut findings = Vec::new();
    let facts = match gather(args, &mut findings) {
        Ok(facts) => facts,
        Err(error) => {
            talk(&format!(
                "error: cannot list this machine's addresses: {error}"
            ));
            return FAILURE;
        }
    };
    let time = args.listen.unwrap_or_else(|| lan::patience(&facts));
    if args.output == Output::Text && !facts.locals.is_empty() {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        talk(&format!("listening for {} …", short_time(ms)));
    }
    // The LAN takes its time, the servers theirs.
    let (heard, asked) = thread::scope(|scope| {
        let heard = scope.spawn(|| lan::listen(&facts, time));
        let asked = servers::findings(&facts);
        (heard.join(), asked)
    });
    findings.extend(host::findings(&facts));
    findings.extend(ports::findings(&facts));
    findings.extend(sandbox::findings(&facts));
    findings.extend(heard.unwrap_or_else(|_panic| {
        vec![Finding::not_checked(
            "adverts",
            "",
            "the listener broke off",
        )]
    }));
    findings.extend(asked);
    let text = match args.output {
        Output::Json => report::json(&findings),
        Output::Text => report::text(&findings, color(&io::stdout())),
    };
    if out(&text).is_err() || !report::is_well(&findings) {
        return FAILURE;
    }
    Exit::Success.code()
}

/// Reads the file, asks the kernel and the daemon; what is off with those is found already.
fn gather(args: &DoctorArgs, findings: &mut Vec<Finding>) -> io::Result<Facts> {
    let path = args.file.clone().unwrap_or_else(|| CONFIG_PATH.into());
    let host = netlink::host_facts()?;
    let links = Netlink::open()?.links()?;
    let mut of_daemon = Vec::new();
    let status = daemon(args, &path, &mut of_daemon);
    let of_status = status
        .as_ref()
        .and_then(|status| status.process.node.clone());
    let node = args.node.clone().or(of_status);
    let config = configuration(&path, node.as_deref(), &host, findings);
    findings.extend(of_daemon);
    let locals = config.iter().flat_map(|config| &config.vips);
    let locals = locals
        .filter_map(|vip| local::one(vip, &host, node.as_deref()).ok())
        .collect();
    Ok(Facts {
        status,
        path,
        config,
        host,
        links,
        locals,
    })
}

/// The configuration as `lbd check` sees it on this machine.
fn configuration(
    path: &Path,
    node: Option<&str>,
    host: &HostFacts,
    findings: &mut Vec<Finding>,
) -> Option<Config> {
    let shown = path.display().to_string();
    let text = match read(path) {
        Ok(text) => text,
        Err((why, _)) => {
            findings.push(
                Finding::failed("config", &shown, why)
                    .remedy("`lbd init` prints a first file; as root more can be read"),
            );
            return None;
        }
    };
    let parsed = check::here(&text, host, node);
    // Who holds a port is a check of its own.
    let problems = || {
        parsed
            .problems
            .iter()
            .filter(|problem| problem.code != "W0309")
    };
    findings.extend(problems().map(|problem| of_problem(&shown, problem)));
    if problems().next().is_none() {
        findings.push(Finding::ok("config", &shown, "accepted without a word"));
    }
    // What only this machine has against it doesn't keep its ports and servers from being looked at.
    parsed.config.or_else(|| config::parse(&text).config)
}

fn of_problem(path: &str, problem: &Problem) -> Finding {
    let text = format!("{} {}", problem.code, problem.message);
    let finding = if problem.is_error() {
        Finding::failed("config", path, text)
    } else {
        Finding::warning("config", path, text)
    };
    let label = problem.labels.iter().find(|label| label.primary);
    let finding = match label.map(|label| label.text.as_str()) {
        None | Some("") => finding,
        Some(text) => finding.cause(text),
    };
    finding.remedy(match problem.help.first() {
        Some(help) => help.clone(),
        None => format!(
            "`lbd check` shows the place, `lbd explain {}` says more",
            problem.code
        ),
    })
}

/// What the running daemon says of itself.
fn daemon(args: &DoctorArgs, path: &Path, findings: &mut Vec<Finding>) -> Option<Status> {
    let readable = read(path).is_ok_and(|text| text.parse::<toml::Table>().is_ok());
    let reach = Reach::new(args.socket.clone(), readable.then(|| path.to_owned()));
    let socket = reach.socket().ok()?;
    let shown = socket.display().to_string();
    match ask_status(&socket) {
        Ok(status) => {
            if status.problems.is_empty() {
                findings.push(Finding::ok("daemon", &shown, status.headline.clone()));
            }
            findings.extend(status.problems.iter().map(|problem| {
                Finding::warning("daemon", &shown, problem.clone())
                    .remedy("`lbd status` and `lbd events` say more")
            }));
            let channel = status.vrrp.as_ref().and_then(|vrrp| vrrp.channel.as_ref());
            if let Some(channel) = channel {
                findings.extend(peers::findings(channel, &status.process.version));
            }
            Some(status)
        }
        Err(error @ AskError::Unreachable { .. }) => {
            let why = format!("{error}: what only a running daemon knows is left out");
            findings.push(Finding::not_checked("daemon", &shown, why));
            None
        }
        Err(error @ (AskError::Permission(_) | AskError::Denied(_))) => {
            findings.push(Finding::not_checked("daemon", &shown, error.to_string()));
            None
        }
        Err(
            error @ (AskError::Broken { .. } | AskError::Foreign { .. } | AskError::Refused(_)),
        ) => {
            findings.push(
                Finding::failed("daemon", &shown, super::chain(&error))
                    .cause("the daemon is stuck, or of another version than this command")
                    .remedy("`systemctl status lbd`, and its log"),
            );
            None
        }
    }
}
