//! Who holds the ports that lb.toml asks for: /proc/net/tcp, and the processes behind its inodes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Facts;
use super::report::Finding;
use crate::config::model::Listen;
use crate::net::tcp;

const CHECK: &str = "port";
/// The state of a socket that listens, in /proc/net/tcp.
const LISTENING: &str = "0A";

/// Every listener of the file.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(config) = &facts.config else {
        return Vec::new();
    };
    let proxies = config
        .proxies
        .iter()
        .flat_map(|proxy| proxy.listen.iter().copied());
    let metrics = config.metrics.listen.map(Listen::Addr);
    let mut findings: Vec<Finding> = proxies
        .chain(metrics)
        .map(|listen| one(facts, listen))
        .collect();
    findings.dedup();
    findings
}

fn one(facts: &Facts, listen: Listen) -> Finding {
    let subject = listen.to_string();
    let runs = facts.status.is_some();
    if !tcp::is_held(listen) {
        if runs {
            return Finding::failed(CHECK, &subject, "lbd runs, and nothing listens there")
                .cause("it runs with another configuration, or has not started to serve")
                .remedy("`lbd status` says which file it has read, and what is wrong");
        }
        return Finding::ok(CHECK, &subject, "free");
    }
    let port = match listen {
        Listen::Addr(addr) => addr.port(),
        Listen::Any(port) => port,
    };
    let holders = holders(port);
    let list: Vec<String> = holders
        .iter()
        .map(|(name, pid)| format!("{name} (pid {pid})"))
        .collect();
    let list = list.join(", ");
    let own = facts.processes();
    let lbd = holders
        .iter()
        .any(|(name, pid)| name == "lbd" || own.contains(pid));
    match (runs, list.as_str()) {
        (true, "") => Finding::ok(CHECK, &subject, "taken, by lbd as it seems"),
        (true, _) if lbd => Finding::ok(CHECK, &subject, format!("held by {list}")),
        (false, "") => {
            busy(&subject, "taken by another process").cause("which one only root can see")
        }
        (false, _) if lbd => busy(&subject, &format!("held by {list}, which doesn't answer"))
            .cause("an lbd that is stuck, or has another admin socket")
            .remedy("`systemctl status lbd`; name its socket with --socket"),
        (true | false, _) => busy(&subject, &format!("held by {list}"))
            .cause("lbd can't listen beside another process that has the port")
            .remedy("stop that process; where it is an API server, let lbd listen on another port"),
    }
}

fn busy(subject: &str, found: &str) -> Finding {
    Finding::failed(CHECK, subject, found)
}

/// The processes that listen on a port: name and process id, as far as this user may see them.
fn holders(port: u16) -> BTreeSet<(String, u32)> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Ok(text) = fs::read_to_string(table) {
            inodes.extend(listening(&text, port));
        }
    }
    let mut holders = BTreeSet::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some(pid) = pid
            && has_one_of(&process.path(), &inodes)
        {
            holders.insert((program(&process.path()), pid));
        }
    }
    holders
}

/// What a process runs: its program's file, or what it calls itself.
pub(super) fn program(process: &Path) -> String {
    let file = fs::read_link(process.join("exe")).ok();
    let file = file
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    match file {
        Some(name) => name.trim_end_matches(" (deleted)").to_owned(),
        None => {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            name.trim().to_owned()
        }
    }
}

/// Whether a process has one of these sockets open.
fn has_one_of(process: &Path, inodes: &BTreeSet<u64>) -> bool {
    let files = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter_map(|target| inode(target.to_str()?))
        .any(|inode| inodes.contains(&inode))
}

/// `socket:[4711]` as 4711.
fn inode(target: &str) -> Option<u64> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The inodes of sockets that listen on a port, in the text of /proc/net/tcp.
fn listening(text: &str, port: u16) -> Vec<u64> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (_, local) = fields.nth(1)?.rsplit_once(':')?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?.parse().ok()?;
            let here = u16::from_str_radix(local, 16).ok()? == port && state == LISTENING;
            here.then_some(inode)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernel_s_table_of_sockets_is_read() {
        let text = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:192B 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 0100007F:25A1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1
";
        assert_eq!(listening(text, 6443), [4711]);
        assert_eq!(listening(text, 9633), [4713]);
        assert!(listening("garbage\n1 2\n", 6443).is_empty());
        assert_eq!(inode("socket:[4711]"), Some(4711));
        assert_eq!(inode("pipe:[4711]"), None);
    }

    #[test]
    fn the_process_that_holds_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holders(listener.local_addr().unwrap().port());
        let me = std::process::id();
        assert!(found.iter().any(|(_, pid)| *pid == me), "{found:?}");
    }
}
