//! Which rights the running processes really have, as the kernel tells in /proc/PID/status.

use std::fs;
use std::path::Path;

use super::Facts;
use super::ports::program;
use super::report::Finding;

const CHECK: &str = "sandbox";
/// `CAP_NET_ADMIN` and `CAP_NET_RAW`: what the keeper of a VIP holds on to.
const NETWORK: u64 = 1 << 12 | 1 << 13;
/// What else a keeper may hold: low ports, and what it hands to a runner that starts programs as others
/// (`CAP_KILL`, `CAP_SETGID`, `CAP_SETUID`, `CAP_NET_BIND_SERVICE`).
const PERMITTED: u64 = NETWORK | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10;

/// What stands in /proc/PID/status of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
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
    let mut findings = vec![judge("proxy", rights(status.process.pid), of_proxy, true)];
    if let Some(vrrp) = &status.vrrp {
        findings.push(judge("keeper", rights(vrrp.keeper_pid), PERMITTED, false));
    }
    let why =
        "/proc doesn't tell whether landlock confines a process; lbd's log does, at its start";
    findings.push(Finding::not_checked(CHECK, "landlock", why));
    findings
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
        capabilities: u64::from_str_radix(field("CapEff")?, 16).ok()?,
        no_new_privs: field("NoNewPrivs")? == "1",
        seccomp: field("Seccomp")?.parse().ok()?,
    })
}

fn judge(who: &str, rights: Result<Rights, String>, permitted: u64, filtered: bool) -> Finding {
    let rights = match rights {
        Ok(rights) => rights,
        Err(why) => return Finding::not_checked(CHECK, who, why),
    };
    let held = if rights.capabilities == 0 {
        "no capabilities".to_owned()
    } else {
        format!("capabilities {:#x}", rights.capabilities)
    };
    let no_new_privs = if rights.no_new_privs { "on" } else { "off" };
    let filter = if rights.seccomp == 2 { "on" } else { "off" };
    let text = format!("{held}, no_new_privs {no_new_privs}, seccomp {filter}");
    if rights.capabilities & !permitted != 0 {
        return Finding::failed(CHECK, who, text)
            .cause("it holds more rights than it needs: they could not be dropped")
            .remedy("run it by the unit as shipped; its log says at the start what could not be dropped");
    }
    if filtered && (!rights.no_new_privs || rights.seccomp != 2) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::State;

    const PROXY: &str =
        "Name:\tlbd\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn rights_are_read_as_the_kernel_writes_them() {
        let rights = parse(PROXY).unwrap();
        let expected = Rights {
            capabilities: 0,
            no_new_privs: true,
            seccomp: 2,
        };
        assert_eq!(rights, expected);
        assert_eq!(parse("Name:\tlbd\n"), None);
    }

    #[test]
    fn a_proxy_with_rights_fails_and_one_without_a_filter_is_worth_a_look() {
        let state = |text: &str| judge("proxy", Ok(parse(text).unwrap()), 0, true).state;
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
            judge("keeper", Ok(parse(&keeper).unwrap()), PERMITTED, false).state,
            State::Ok
        );
    }
}
