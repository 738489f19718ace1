//! What systemd builds around the unit's main process, by hand: a file system that can't be written,
//! devices and /tmp of its own, and system calls on a list: the one of the unit, as systemd-analyze
//! spells it out. Not done: what `unit::LEFT_OUT` names.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::unit::Unit;

/// This test program under another name puts the filter into force and becomes another program.
pub const WRAPPER: &str = "/run/bin/under-filter";
/// The numbers of the calls that are allowed.
const ALLOWED: &str = "LBD_TEST_ALLOWED";
const NUMBERS: &str = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Lines of the shell that starts the service, in its own mount namespace.
pub fn mounts(unit: &Unit, writable: &[String]) -> String {
    assert_eq!(unit.required("ProtectSystem"), "strict");
    for key in [
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectControlGroups",
    ] {
        assert!(unit.flag(key), "{key}");
    }
    let mut lines = String::from("mount --make-rprivate /\n");
    for directory in writable {
        lines.push_str(&format!("mount --bind {directory} {directory}\n"));
    }
    lines.push_str(
        "mount -t tmpfs -o mode=1777 tmpfs /tmp\n\
         mount -t tmpfs -o mode=1777 tmpfs /var/tmp\n\
         mount -t tmpfs -o mode=000,ro tmpfs /root\n\
         mount -t tmpfs -o mode=000,ro tmpfs /home\n\
         mkdir /tmp/dev; mount -t tmpfs -o mode=755 tmpfs /tmp/dev\n\
         for device in null zero full random urandom; do\n\
         touch /tmp/dev/$device; mount --bind /dev/$device /tmp/dev/$device; done\n\
         mount --move /tmp/dev /dev; rmdir /tmp/dev\n\
         for point in / /run /dev; do mount -o remount,bind,ro $point; done\n\
         if mountpoint -q /sys; then mount -o remount,bind,ro /sys; fi\n",
    );
    lines
}

/// The calls that the unit allows, for the wrapper.
pub fn allowed(unit: &Unit) -> (&'static str, String) {
    let sets = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager"])
        .output()
        .expect("systemd-analyze is installed");
    let sets = parse_sets(&String::from_utf8_lossy(&sets.stdout));
    let mut names = BTreeSet::new();
    for list in unit.all("SystemCallFilter") {
        let (removes, list) = match list.strip_prefix('~') {
            Some(rest) => (true, rest),
            None => (false, list.as_str()),
        };
        let mut found = BTreeSet::new();
        for word in list.split(' ') {
            spell_out(word, &sets, &mut found);
        }
        if removes {
            names.retain(|name| !found.contains(name));
        } else {
            names.extend(found);
        }
    }
    // systemd adds them to each list.
    spell_out("@default", &sets, &mut names);
    let header = std::fs::read_to_string(NUMBERS).expect("linux-libc-dev is installed");
    let numbers: Vec<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .filter(|(name, _)| names.contains(*name))
        .map(|(_, number)| number)
        .collect();
    assert!(numbers.len() > 100, "{numbers:?}");
    (ALLOWED, numbers.join(","))
}

/// Name of a set, and the words in it.
fn parse_sets(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let word = line.trim();
        if word.is_empty() || word.starts_with('#') {
            continue;
        }
        if line.starts_with('@') {
            word.clone_into(&mut current);
            sets.entry(current.clone()).or_default();
        } else {
            let set = sets.entry(current.clone()).or_default();
            set.push(word.to_owned());
        }
    }
    sets
}

fn spell_out(word: &str, sets: &BTreeMap<String, Vec<String>>, found: &mut BTreeSet<String>) {
    if word.starts_with('@') {
        let set = sets.get(word).unwrap_or_else(|| panic!("no set {word}"));
        for word in set {
            spell_out(word, sets, found);
        }
    } else {
        found.insert(word.to_owned());
    }
}

/// In the wrapper: puts the filter into force and becomes the program of the arguments.
pub fn wrapped() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != WRAPPER {
        return None;
    }
    let program = arguments.next().expect("a program");
    let list = std::env::var(ALLOWED).expect("the calls");
    let calls = list
        .split(',')
        .map(|number| number.parse().expect("a number"));
    confine(calls.collect());
    let error = Command::new(program)
        .args(arguments)
        .env_remove(ALLOWED)
        .exec();
    println!("not started: {error}");
    Some(ExitCode::FAILURE)
}

fn rule(argument: u8, mask: i32, value: i32) -> SeccompRule {
    let number = |number: i32| u64::from(number.cast_unsigned());
    let op = SeccompCmpOp::MaskedEq(number(mask));
    let width = SeccompCmpArgLen::Dword;
    let condition = SeccompCondition::new(argument, width, op, number(value)).expect("a condition");
    SeccompRule::new(vec![condition]).expect("a rule")
}

fn confine(calls: Vec<i64>) {
    let mut rules: Rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    // RestrictAddressFamilies=
    let families = [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_PACKET,
        libc::AF_UNIX,
    ];
    let sockets = families.iter().map(|family| rule(0, -1, *family));
    rules.insert(libc::SYS_socket, sockets.collect());
    // MemoryDenyWriteExecute=
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    let maps = [0, libc::PROT_WRITE, libc::PROT_EXEC].map(|allowed| rule(2, both, allowed));
    rules.insert(libc::SYS_mmap, maps.to_vec());
    rules.insert(libc::SYS_mprotect, vec![rule(2, libc::PROT_EXEC, 0)]);
    // RestrictNamespaces=: clone3 hides its flags, so that systemd says there is no such call.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    rules.insert(libc::SYS_clone, vec![rule(0, namespaces, 0)]);
    rules.remove(&libc::SYS_unshare);
    rules.remove(&libc::SYS_setns);
    load(rules, SeccompAction::Errno(1), SeccompAction::Allow);
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    load(clone3, SeccompAction::Allow, SeccompAction::Errno(38));
}

fn load(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) {
    let arch = std::env::consts::ARCH.try_into().expect("known");
    let filter = SeccompFilter::new(rules, otherwise, listed, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a filter");
    seccompiler::apply_filter(&program).expect("the kernel takes it");
}
