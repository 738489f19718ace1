//! `lbd drain`, `ready`, `maint`, `weight` and `server`: what an operator changes about servers at
//! run time.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::reach::{FAILURE, Reach, complain};
use super::status::Output;
use super::{out, talk};
use crate::admin::protocol::{Command, order_servers};
use crate::admin::servers::{
    AddServer, Kept, ServerChange, ServerName, Servers, ServersDone, ServersOutcome, SetWeight,
};
use crate::log::escape;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 not done, 2 usage, 69 no daemon, 77 not root or the daemon's user.";

const STATE_EXAMPLES: &str = "\
The word holds until another one is given, also over a reload and a restart of lbd; where there is a
state-dir also over a reboot. It holds on this node alone: give it on the other one too.

Examples:
  lbd drain kube-apiserver/master1    no new connections; those it has go on
  lbd maint master1                   out of service, and not probed any more
  lbd ready master1 master2           in service again: probed first, then warmed up

Exit codes: 0 done, 1 not done, 2 usage, 69 no daemon, 77 not root or the daemon's user.";

/// Arguments of `lbd drain`, `lbd ready` and `lbd maint`.
#[derive(Debug, Clone, Args)]
#[command(after_help = STATE_EXAMPLES)]
pub(super) struct StateArgs {
    /// The servers; PROXY may be left out where only one has a server of that name
    #[arg(value_name = "PROXY/SERVER", required = true, value_parser = name)]
    servers: Vec<ServerName>,
    #[command(flatten)]
    asked: Asked,
}

/// Arguments of `lbd weight`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct WeightArgs {
    /// The server; PROXY may be left out where only one has a server of that name
    #[arg(value_name = "PROXY/SERVER", value_parser = name)]
    server: ServerName,
    /// Its share of new connections, 0 (none) to 256; `own`: the one it came with
    #[arg(value_name = "WEIGHT", value_parser = weight)]
    weight: GivenWeight,
    #[command(flatten)]
    asked: Asked,
}

/// Arguments of `lbd server`.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    #[command(subcommand)]
    order: ServerOrder,
}

#[derive(Debug, Clone, Subcommand)]
enum ServerOrder {
    /// Add a server, or bring back one of the file's that was removed
    Add(AddArgs),
    /// Remove a server: no new connections; those it has go on
    #[command(visible_alias = "del")]
    Remove(RemoveArgs),
}

#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_CODES)]
struct AddArgs {
    /// Its name; PROXY may be left out where there is only one
    #[arg(value_name = "PROXY/SERVER", value_parser = name)]
    server: ServerName,
    /// Where clients' connections go, IP:PORT; left out for a server of the file
    #[arg(value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    /// Where it is probed, IP:PORT [default: the address]
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    check_address: Option<SocketAddr>,
    /// Its share of new connections, 0 to 256 [default: 1]
    #[arg(long, value_name = "WEIGHT", requires = "address", value_parser = clap::value_parser!(u16).range(0..=256))]
    weight: Option<u16>,
    /// The most connections it may have [default: as all servers of the file, if they agree]
    #[arg(long, value_name = "N", requires = "address", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// It is used only when no other server is usable
    #[arg(long, requires = "address")]
    backup: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_CODES)]
struct RemoveArgs {
    /// The server; PROXY may be left out where only one has a server of that name
    #[arg(value_name = "PROXY/SERVER", value_parser = name)]
    server: ServerName,
    #[command(flatten)]
    asked: Asked,
}

/// What all of them take.
#[derive(Debug, Clone, Args)]
struct Asked {
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GivenWeight {
    Own,
    Of(u16),
}

fn name(text: &str) -> Result<ServerName, String> {
    let name = ServerName::parse(text);
    if name.server.is_empty() || name.proxy.as_ref().is_some_and(String::is_empty) {
        return Err("write PROXY/SERVER, or SERVER alone".to_owned());
    }
    Ok(name)
}

fn weight(text: &str) -> Result<GivenWeight, String> {
    if text == "own" {
        return Ok(GivenWeight::Own);
    }
    let number: Option<u16> = text.parse().ok();
    number
        .filter(|number| *number <= 256)
        .map(GivenWeight::Of)
        .ok_or_else(|| "a whole number from 0 to 256, or `own`".to_owned())
}

/// `lbd drain`.
pub(super) fn drain(args: &StateArgs) -> u8 {
    give("lbd drain", Command::Drain(args.servers()), &args.asked)
}

/// `lbd ready`.
pub(super) fn ready(args: &StateArgs) -> u8 {
    give("lbd ready", Command::Ready(args.servers()), &args.asked)
}

/// `lbd maint`.
pub(super) fn maint(args: &StateArgs) -> u8 {
    give("lbd maint", Command::Maint(args.servers()), &args.asked)
}

/// `lbd weight`.
pub(super) fn set_weight(args: &WeightArgs) -> u8 {
    let order = SetWeight {
        server: args.server.clone(),
        weight: match args.weight {
            GivenWeight::Own => None,
            GivenWeight::Of(weight) => Some(weight),
        },
    };
    give("lbd weight", Command::Weight(order), &args.asked)
}

/// `lbd server`.
pub(super) fn server(args: &ServerArgs) -> u8 {
    match &args.order {
        ServerOrder::Add(args) => {
            let order = AddServer {
                server: args.server.clone(),
                address: args.address,
                check_address: args.check_address,
                weight: args.weight,
                max_connections: args.max_connections,
                backup: args.backup,
            };
            let order = Command::AddServer(Box::new(order));
            give("lbd server add", order, &args.asked)
        }
        ServerOrder::Remove(args) => {
            let server = args.server.clone();
            let order = Command::RemoveServer { server };
            give("lbd server remove", order, &args.asked)
        }
    }
}

impl StateArgs {
    fn servers(&self) -> Servers {
        Servers {
            servers: self.servers.clone(),
        }
    }
}

/// Gives the order, prints what became of it, and says with which code to exit.
fn give(who: &str, order: Command, asked: &Asked) -> u8 {
    let path = match asked.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let outcome = match order_servers(&path, order) {
        Ok(outcome) => outcome,
        Err(error) => return complain(who, &error),
    };
    let printed = match (asked.output, &outcome) {
        (Output::Json, _) => match serde_json::to_string_pretty(&outcome) {
            Ok(text) => out(&(text + "\n")),
            Err(_unprintable) => return FAILURE,
        },
        (Output::Table, ServersOutcome::Done(done)) => {
            for warning in warnings(done) {
                talk(&format!("warning: {warning}"));
            }
            out(&render(done))
        }
        (Output::Table, ServersOutcome::Refused(why)) => {
            talk(&format!("error: {}", escape(why)));
            Ok(())
        }
    };
    match (printed, outcome) {
        (Ok(()), ServersOutcome::Done(_)) => 0,
        (Ok(()), ServersOutcome::Refused(_)) | (Err(_), _) => FAILURE,
    }
}

/// A line for each server.
pub(super) fn render(done: &ServersDone) -> String {
    let lines = done.servers.iter().map(|change| {
        let connections = match (change.to.as_str(), change.connections) {
            ("drain" | "maint" | "absent", 0) => ", no connections left".to_owned(),
            ("drain" | "maint" | "absent", 1) => ", 1 connection goes on".to_owned(),
            ("drain" | "maint" | "absent", n) => format!(", {n} connections go on"),
            _ => String::new(),
        };
        let line = format!(
            "{}/{}: {} → {}{connections}",
            change.proxy, change.server, change.from, change.to
        );
        escape(&line).to_string() + "\n"
    });
    lines.collect()
}

/// What the operator may not have meant.
fn warnings(done: &ServersDone) -> Vec<String> {
    let mut warnings = Vec::new();
    let left = |change: &&ServerChange| change.usable == 0;
    let mut bare: Vec<&str> = done
        .servers
        .iter()
        .filter(left)
        .map(|change| change.proxy.as_str())
        .collect();
    bare.dedup();
    for proxy in bare {
        let text = format!("no server of {proxy} takes new connections now");
        warnings.push(escape(&text).to_string());
    }
    if let Kept::Restart(why) = &done.kept {
        warnings.push(escape(&format!("not kept over a reboot: {why}")).to_string());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(to: &str, connections: u64, usable: u64) -> ServersDone {
        ServersDone {
            servers: vec![ServerChange {
                proxy: "kube".into(),
                server: "a".into(),
                from: "ready".into(),
                to: to.into(),
                connections,
                usable,
            }],
            kept: Kept::Reboot,
        }
    }

    #[test]
    fn a_change_reads_as_one_line() {
        let lines = [
            (
                done("drain", 12, 2),
                "kube/a: ready → drain, 12 connections go on\n",
            ),
            (
                done("maint", 1, 2),
                "kube/a: ready → maint, 1 connection goes on\n",
            ),
            (
                done("absent", 0, 2),
                "kube/a: ready → absent, no connections left\n",
            ),
            (done("weight 5", 7, 2), "kube/a: ready → weight 5\n"),
        ];
        for (done, line) in lines {
            assert_eq!(render(&done), line);
        }
    }

    #[test]
    fn who_takes_the_last_server_away_is_warned() {
        assert!(warnings(&done("drain", 0, 1)).is_empty());
        let last = warnings(&done("drain", 0, 0));
        assert_eq!(last, ["no server of kube takes new connections now"]);
        let forgotten = ServersDone {
            kept: Kept::Restart("no room".into()),
            ..done("ready", 0, 1)
        };
        assert_eq!(warnings(&forgotten), ["not kept over a reboot: no room"]);
    }

    #[test]
    fn a_weight_is_a_number_or_the_servers_own() {
        assert_eq!(weight("0"), Ok(GivenWeight::Of(0)));
        assert_eq!(weight("256"), Ok(GivenWeight::Of(256)));
        assert_eq!(weight("own"), Ok(GivenWeight::Own));
        assert!(weight("257").is_err() && weight("-1").is_err() && weight("50%").is_err());
        assert!(name("kube/").is_err() && name("/a").is_err());
    }
}
