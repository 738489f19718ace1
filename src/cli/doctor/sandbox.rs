//! Which rights the running processes really have, as the kernel tells in /proc/PID/status, and what
//! they say themselves of what it doesn't tell: landlock, and why something is missing.

use std::fs;
use std::path::Path;

use super::Facts;
use super::ports::program;
use super::report::Finding;
use crate::ipc::confinement::Confinement;
use crate::net::privileges::user;

const CHECK: &str = "sandbox";
/// `CAP_NET_ADMIN` and `CAP_NET_RAW`: what the keeper of a VIP holds on to.
const NETWORK: u64 = 1 << 12 | 1 << 13;
/// What else a keeper may hold: low ports, and what it hands to a runner that starts programs as others
/// (`CAP_KILL`, `CAP_SETGID`, `CAP_SETUID`, `CAP_NET_BIND_SERVICE`).
const PERMITTED: u64 = NETWORK | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10;

/// What stands in /proc/PID/status of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    uid: u32,
    capabilities: u64,
    no_new_privs: bool,
    /// 0: none; 2: a filter.
    seccomp: u8,
}

/// Keeper and proxy of the daemon that answers.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(status) = &facts.status else {
        return vec![Finding::not_checked(
            CHECK,
            "",
            "no lbd runs here that answers",
        )];
    };
    let transparent = facts.config.as_ref().is_some_and(|config| {
        let mut proxies = config.proxies.iter();
        proxies.any(|proxy| proxy.source == crate::config::model::Source::Client)
    });
    // Connections from clients' own addresses take a right.
    let of_proxy = if transparent { NETWORK } else { 0 };
    if status.sandbox.is_empty() {
        // An earlier version: it says nothing of itself.
        let mut findings = vec![judge("proxy", &rights(status.process.pid), of_proxy, None)];
        if let Some(vrrp) = &status.vrrp {
            let found = rights(vrrp.keeper_pid);
            findings.push(judge("keeper", &found, PERMITTED, None));
        }
        return findings;
    }
    let processes = status.sandbox.iter();
    processes
        .map(|said| {
            let permitted = if said.process == "proxy" {
                of_proxy
            } else {
                PERMITTED
            };
            judge(&said.process, &rights(said.pid), permitted, Some(said))
        })
        .collect()
}

/// The rights of a process of lbd; why they can't be told otherwise.
fn rights(pid: u32) -> Result<Rights, String> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let text = read("status").map_err(|error| format!("/proc/{pid} can't be read: {error}"))?;
    let name = program(Path::new(&format!("/proc/{pid}")));
    // The proxy calls itself by how it was started: through /proc/self/exe.
    if name != "lbd" && name != "exe" {
        return Err(format!(
            "process {pid} is not lbd here: it runs in a container"
        ));
    }
    parse(&text).ok_or_else(|| format!("/proc/{pid}/status says less than expected"))
}

fn parse(text: &str) -> Option<Rights> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    };
    Some(Rights {
        uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        capabilities: u64::from_str_radix(field("CapEff")?, 16).ok()?,
        no_new_privs: field("NoNewPrivs")? == "1",
        seccomp: field("Seccomp")?.parse().ok()?,
    })
}

/// The kernel's word counts; where it has none, the process's own.
fn judge(
    who: &str,
    rights: &Result<Rights, String>,
    permitted: u64,
    said: Option<&Confinement>,
) -> Finding {
    let rights = match (rights, said) {
        (Ok(rights), _) => rights,
        (Err(why), None) => return Finding::not_checked(CHECK, who, why),
        (Err(why), Some(said)) => {
            let text = format!("it says: {said}");
            return lacking(said, Finding::not_checked(CHECK, who, text).cause(why));
        }
    };
    let text = words(rights, said);
    if who == "runner" && rights.uid == 0 && rights.capabilities & !permitted != 0 {
        return Finding::warning(CHECK, who, text)
            .cause("root's runner keeps what running programs as other users may take")
            .remedy("let lbd become its own user: see the keeper");
    }
    if rights.capabilities & !permitted != 0 {
        return Finding::failed(CHECK, who, text)
            .cause("it holds more rights than it needs: they could not be dropped")
            .remedy("run it by the unit as shipped; its log says at the start what could not be dropped");
    }
    if let Some(said) = said.filter(|said| !said.missing.is_empty()) {
        return lacking(said, Finding::warning(CHECK, who, text));
    }
    if rights.seccomp != 2 {
        return Finding::warning(CHECK, who, text)
            .cause("this kernel or container doesn't offer all of the sandbox")
            .remedy("a kernel with CONFIG_SECCOMP_FILTER; a container that permits seccomp(2)");
    }
    if !rights.no_new_privs {
        return Finding::warning(CHECK, who, text)
            .cause("it was not started by the unit as shipped, which sets NoNewPrivileges")
            .remedy("systemd/lbd.service; in a container `allowPrivilegeEscalation: false`");
    }
    Finding::ok(CHECK, who, text)
}

fn words(rights: &Rights, said: Option<&Confinement>) -> String {
    let user = user::name_of(rights.uid);
    let held = if rights.capabilities == 0 {
        "no capabilities".to_owned()
    } else {
        let all = 0..64_u32;
        let held = all.filter(|number| rights.capabilities & 1 << number != 0);
        let names: Vec<String> = held.map(capability).collect();
        match names.len() {
            ..=6 => names.join(" "),
            many => format!("{many} capabilities"),
        }
    };
    let no_new_privs = if rights.no_new_privs { "on" } else { "off" };
    // A filter that is in force need not be lbd's own.
    let filter = match (rights.seccomp, said) {
        (2, Some(said)) => said.seccomp.as_str(),
        (2, None) => "on",
        (_, Some(_) | None) => "off",
    };
    let files = said.map(|said| format!(", landlock {}", said.landlock));
    let files = files.unwrap_or_default();
    format!("user {user}, {held}, no_new_privs {no_new_privs}, seccomp {filter}{files}")
}

/// Those that a process of lbd may hold by name, others by number.
fn capability(number: u32) -> String {
    match number {
        5 => "CAP_KILL".to_owned(),
        6 => "CAP_SETGID".to_owned(),
        7 => "CAP_SETUID".to_owned(),
        10 => "CAP_NET_BIND_SERVICE".to_owned(),
        12 => "CAP_NET_ADMIN".to_owned(),
        13 => "CAP_NET_RAW".to_owned(),
        number => format!("capability {number}"),
    }
}

/// What the process says is missing, and what mends it.
fn lacking(said: &Confinement, finding: Finding) -> Finding {
    let joined = |part: fn(&crate::ipc::confinement::Gap) -> &str| {
        let parts: Vec<&str> = said.missing.iter().map(part).collect();
        parts.join("; ")
    };
    if said.missing.is_empty() {
        return finding;
    }
    finding
        .cause(joined(|gap| &gap.what))
        .remedy(joined(|gap| &gap.remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::State;

    const PROXY: &str = "Name:\tlbd\nUid:\t0\t998765\t0\t0\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn rights_are_read_as_the_kernel_writes_them() {
        let rights = parse(PROXY).unwrap();
        let expected = Rights {
            uid: 998_765,
            capabilities: 0,
            no_new_privs: true,
            seccomp: 2,
        };
        assert_eq!(rights, expected);
        assert_eq!(parse("Name:\tlbd\n"), None);
    }

    #[test]
    fn a_proxy_with_rights_fails_and_one_without_a_filter_is_worth_a_look() {
        let state = |text: &str| judge("proxy", &Ok(parse(text).unwrap()), 0, None).state;
        assert_eq!(state(PROXY), State::Ok);
        assert_eq!(
            state(&PROXY.replace("000000\nNo", "001000\nNo")),
            State::Failed
        );
        assert_eq!(
            state(&PROXY.replace("Seccomp:\t2", "Seccomp:\t0")),
            State::Warning
        );
        assert_eq!(
            state(&PROXY.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0")),
            State::Warning
        );
        let keeper = PROXY.replace("CapEff:\t0000000000000000", "CapEff:\t0000000000003000");
        assert_eq!(
            judge("keeper", &Ok(parse(&keeper).unwrap()), PERMITTED, None).state,
            State::Ok
        );
    }

    #[test]
    fn what_a_process_says_is_missing_comes_with_what_mends_it() {
        let said = Confinement {
            no_new_privs: true,
            seccomp: "on, by the service manager".into(),
            landlock: "off: not in this kernel".into(),
            ..Confinement::default()
        };
        let said = said.judged(None);
        let rights = Ok(parse(&PROXY.replace("000000\nNo", "003000\nNo")).unwrap());
        let finding = judge("keeper", &rights, PERMITTED, Some(&said));
        assert_eq!(finding.state, State::Warning);
        assert_eq!(
            finding.found,
            "user 998765, CAP_NET_ADMIN CAP_NET_RAW, no_new_privs on, \
             seccomp on, by the service manager, landlock off: not in this kernel"
        );
        let remedy = finding.remedy.unwrap();
        assert!(remedy.starts_with("Linux from 5.13 on"), "{remedy}");
        let root = PROXY
            .replace("998765", "0")
            .replace("000000\nNo", "fffeff\nNo");
        let root = Ok(parse(&root).unwrap());
        assert_eq!(
            judge("runner", &root, PERMITTED, None).state,
            State::Warning
        );
        assert_eq!(judge("keeper", &root, PERMITTED, None).state, State::Failed);
        let unseen = judge("keeper", &Err("hidden".into()), PERMITTED, Some(&said));
        assert_eq!(unseen.state, State::NotChecked);
    }
}
