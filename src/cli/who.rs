//! `lbd who`: which client stands behind a connection that a server sees, and the reverse.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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
  lbd who fd00::9:51234         as the access log writes it

Connections that have ended are in the access log. Servers can be told the client's address by
`proxy-protocol.send` or `source = \"client\"`.

Exit codes: 0 found, 1 no such connection, 2 usage, 69 no daemon, 77 no permission.";

/// Arguments of `lbd who`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WhoArgs {
    /// One end of the connection: the client's, or this node's towards the server
    #[arg(value_name = "IP:PORT", value_parser = address)]
    address: SocketAddr,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

/// An address and a port as one finds them: `[fd00::9]:80`, `fd00::9:80` (the access log's and
/// HAProxy's form), `[fe80::9%eth0]:80`, `[fe80::9]%eth0:80` (`ss`), `[::ffff:10.0.0.9]:80`. Zones
/// are left out: connections are known by their addresses alone.
fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || "write IP:PORT, for IPv6 [IP]:PORT".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
    let (host, is_bracketed) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((host, "")) => (host, true),
        Some((host, zone)) if zone.len() > 1 && zone.starts_with('%') => (host, true),
        Some(_) => return Err(wrong()),
        None => (host, false),
    };
    let bare = match host.split_once('%') {
        Some((bare, zone)) if !zone.is_empty() && !zone.contains(']') => {
            // Only addresses of IPv6 have zones.
            let ip: Ipv6Addr = bare.parse().map_err(|_no_address| wrong())?;
            IpAddr::V6(ip)
        }
        Some(_) => return Err(wrong()),
        None => host.parse().map_err(|_no_address| wrong())?,
    };
    if is_bracketed && bare.is_ipv4() {
        return Err(wrong());
    }
    Ok(SocketAddr::new(bare.to_canonical(), port))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_as_logs_and_ss_write_it() {
        for (text, meant) in [
            ("10.0.0.9:51234", "10.0.0.9:51234"),
            ("[fd00::9]:51234", "[fd00::9]:51234"),
            ("fd00::9:51234", "[fd00::9]:51234"),
            ("::1:22", "[::1]:22"),
            ("1:2:3:4:5:6:7:8:9", "[1:2:3:4:5:6:7:8]:9"),
            ("[::ffff:10.0.0.9]:51234", "10.0.0.9:51234"),
            ("::ffff:10.0.0.9:51234", "10.0.0.9:51234"),
            ("[fe80::9%eth0]:51234", "[fe80::9]:51234"),
            ("[fe80::9%3]:51234", "[fe80::9]:51234"),
            ("[fe80::9]%eth0:51234", "[fe80::9]:51234"),
            ("fe80::9%eth0:51234", "[fe80::9]:51234"),
        ] {
            assert_eq!(address(text), Ok(meant.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_with_a_port_is_refused() {
        for text in [
            "",
            "10.0.0.9",
            "10.0.0.9:",
            "10.0.0.9:+1",
            "10.0.0.9:65536",
            "[10.0.0.9]:1",
            "10.0.0.9%eth0:1",
            "[fd00::9]",
            "[fd00::9]1:2",
            "[fd00::9]%:2",
            "[fd00::9%]:2",
            "fd00::9]:2",
            "fd00::9%a]:2",
            "1:2:3:4:5:6:7:8",
            "localhost:1",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
