//! `lbd who`: which client stands behind a connection that a server sees, and the reverse.

use std::net::SocketAddr;

use clap::Args;

use super::reach::{FAILURE, Reach, complain};
use super::status::Output;
use super::{out, talk};
use crate::admin::protocol::ask_who;
use crate::admin::who::Connection;

const EXAMPLES: &str = "\
A server sees connections from this node; its logs and `ss` name this node's address and port. Ask
here which client that is. The other way round: give the client's address and port.

Examples:
  lbd who 172.16.0.2:40112      the client behind this connection to a server
  lbd who 10.0.0.9:51234        the connection to a server of this client
  lbd who -o json '[fd00::9]:51234'

Connections that have ended are in the access log. Servers can be told the client's address by
`proxy-protocol.send` or `source = \"client\"`.

Exit codes: 0 found, 1 no such connection, 2 usage, 69 no daemon, 77 no permission.";

/// Arguments of `lbd who`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WhoArgs {
    /// One end of the connection: the client's, or this node's towards the server
    #[arg(value_name = "IP:PORT")]
    address: SocketAddr,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

/// Asks and prints. Exit codes: 0, 1 (nothing found), 69 or 77.
#[must_use]
pub(super) fn run(args: &WhoArgs) -> u8 {
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let who = match ask_who(&path, args.address) {
        Ok(who) => who,
        Err(error) => return complain("lbd who", &error),
    };
    let text = match args.output {
        Output::Table => who.connections.iter().map(Connection::render).collect(),
        Output::Json => match serde_json::to_string_pretty(&who) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
    };
    if out(&text).is_err() {
        return FAILURE;
    }
    if !who.complete {
        talk("lbd who: not all workers have answered in time");
    }
    if who.connections.is_empty() {
        talk(&format!(
            "lbd who: no connection of this node has {}; one that ended is in the access log",
            args.address
        ));
        return FAILURE;
    }
    0
}
