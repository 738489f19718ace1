//! `lbd init`: a first lb.toml from the few facts that nobody can guess, checked before it is printed.

use std::io;
use std::net::IpAddr;

use clap::Args;

use super::reach::FAILURE;
use super::{Exit, color, out, talk};
use crate::config::{View, examine, render};

const EXAMPLES: &str = "\
The file goes to stdout and nowhere else. It is the same on every node: write it to /etc/lbd/lb.toml on
each, and ask `lbd check` there. Servers without a port get 6443.

Examples:
  lbd init --vip 172.16.0.10/24 --nodes 172.16.0.2,172.16.0.3 \\
           --backends 172.16.0.4,172.16.0.5,172.16.0.6 > /etc/lbd/lb.toml
  lbd init --backends 10.0.0.4,10.0.0.5 --listen 127.0.0.1:6443     a proxy alone, on a worker node
  lbd init --vip 10.0.0.9/24 --nodes 10.0.0.1,10.0.0.2              an address alone

Exit codes: 0 printed, 2 too little said, 78 the result would be refused.";

/// The facts.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InitArgs {
    /// The virtual address with its prefix
    #[arg(long, value_name = "IP/PREFIX", requires = "nodes")]
    vip: Option<String>,
    /// The load-balancer hosts, the preferred one first
    #[arg(long, value_name = "IP,…", value_delimiter = ',', requires = "vip")]
    nodes: Vec<String>,
    /// The servers
    #[arg(long, value_name = "IP[:PORT],…", value_delimiter = ',')]
    backends: Vec<String>,
    /// Where clients connect
    #[arg(long, value_name = "[IP]:PORT", default_value = ":6443")]
    listen: String,
    /// How servers are checked: tcp, tls, http, https or kube-apiserver
    #[arg(long, value_name = "TYPE", default_value = "kube-apiserver")]
    check: String,
    /// The virtual router's number [default: the last octet of the address]
    #[arg(long, value_name = "1-255", requires = "vip")]
    vrid: Option<u8>,
    /// What the VIP and the proxy are called
    #[arg(long, value_name = "NAME", default_value = "kube")]
    name: String,
}

/// Prints the file, unless `lbd check` would refuse it.
pub(super) fn run(args: &InitArgs) -> u8 {
    if args.vip.is_none() && args.backends.is_empty() {
        talk("error: say --vip and --nodes, or --backends, or all three; see `lbd init --help`");
        return Exit::Usage.code();
    }
    let text = text(args);
    let parsed = examine(&text, View::Anywhere);
    if !parsed.problems.is_empty() {
        talk(render(&parsed.problems, "lb.toml", &text, color(&io::stderr())).trim_end());
    }
    if parsed.config.is_none() {
        talk("error: `lbd check` would refuse this file");
        return Exit::Config.code();
    }
    match out(&text) {
        Ok(()) => Exit::Success.code(),
        Err(_closed) => FAILURE,
    }
}

fn text(args: &InitArgs) -> String {
    let mut text =
        "# The same file on every node. Every key: `man lb.toml`, docs/config.md.\n".to_owned();
    let name = key(&args.name);
    if let Some(vip) = &args.vip {
        text.push_str(&format!("\n[vip.{name}]\naddress = {}\n", string(vip)));
        text.push_str(&format!(
            "nodes   = {}     # the first is preferred\n",
            list(args.nodes.iter().cloned())
        ));
        if let Some(vrid) = args.vrid {
            text.push_str(&format!("vrid    = {vrid}\n"));
        }
    }
    if !args.backends.is_empty() {
        text.push_str(&format!(
            "\n[proxy.{name}]\nlisten   = {}\n",
            string(&args.listen)
        ));
        let servers = args.backends.iter().map(|server| with_port(server));
        text.push_str(&format!("backends = {}\n", list(servers)));
        text.push_str(&format!("check    = {}\n", string(&args.check)));
    }
    text
}

/// A server as lb.toml wants it; what is no address stays as it is, for `check` to complain about.
fn with_port(server: &str) -> String {
    match server.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("{ip}:6443"),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:6443"),
        Err(_other) => server.to_owned(),
    }
}

/// A name as part of a table's; quoted where TOML wants it, for `check` to judge.
fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        string(name)
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.map(|item| string(&item)).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML string on one line, whatever stands in it: JSON's escapes are TOML's too, and DEL needs one
/// more.
fn string(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(backends: &[&str]) -> InitArgs {
        InitArgs {
            vip: Some("172.16.0.10/24".into()),
            nodes: vec!["172.16.0.2".into(), "172.16.0.3".into()],
            backends: backends.iter().map(|text| (*text).to_owned()).collect(),
            listen: ":6443".into(),
            check: "kube-apiserver".into(),
            vrid: None,
            name: "kube".into(),
        }
    }

    #[test]
    fn the_few_facts_become_the_whole_of_a_pair() {
        let text = text(&args(&["172.16.0.4", "fd00::5", "172.16.0.6:8443"]));
        let expected = "\
# The same file on every node. Every key: `man lb.toml`, docs/config.md.

[vip.kube]
address = \"172.16.0.10/24\"
nodes   = [\"172.16.0.2\", \"172.16.0.3\"]     # the first is preferred

[proxy.kube]
listen   = \":6443\"
backends = [\"172.16.0.4:6443\", \"[fd00::5]:6443\", \"172.16.0.6:8443\"]
check    = \"kube-apiserver\"
";
        assert_eq!(text, expected);
        assert_eq!(examine(&text, View::Anywhere).problems, []);
    }

    #[test]
    fn nothing_that_is_given_breaks_out_of_its_quotes() {
        for poison in [
            "\"]\n[limits]\nworkers = 1\n#",
            "a'b\"c",
            "\\",
            "[x]",
            "💥",
            "a\u{7f}\u{1}b",
        ] {
            let mut args = args(&[poison]);
            let parsed = text(&args).parse::<toml::Table>().unwrap();
            assert_eq!(
                parsed["proxy"]["kube"]["backends"][0].as_str(),
                Some(poison)
            );
            args.name = poison.to_owned();
            let parsed = text(&args).parse::<toml::Table>().unwrap();
            assert!(parsed["vip"].get(poison).is_some());
            assert!(parsed.get("limits").is_none());
        }
    }
}
