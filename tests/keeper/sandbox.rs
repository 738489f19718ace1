//! The sandbox that lbd builds around itself where no service manager does, on the real processes.

use super::alone::{single, wait_served};
use super::node::{Folder, Node, SOON, wait_for};
use super::pair::{Lab, PAIR, pair_of};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Under `target`, where nobody is kept out by the owner of a directory.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn new(name: &str) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = target.join(format!("sandbox-{}-{name}", std::process::id()));
        open_directory(&path);
        Self(path)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn open_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// A track script that tries what it may and what it may not, and where it writes that down.
fn curious(folder: &Folder, elsewhere: &Elsewhere) -> (PathBuf, String) {
    let out = folder.0.join("out");
    open_directory(&out);
    let script = folder.0.join("curious.sh");
    let text = format!(
        "#!/bin/sh\n\
         try() {{ name=$1; shift; if \"$@\" >/dev/null 2>&1; then echo \"$name done\"; \
         else echo \"$name refused\"; fi; }}\n\
         {{ try mount mount -t tmpfs none /mnt\n\
         try personality setarch -R true\n\
         try namespace unshare -U true\n\
         try elsewhere sh -c ': > {}/file'\n\
         try temporary sh -c ': > {out}/file'\n\
         try null sh -c ': > /dev/null'\n\
         try read cat /proc/1/stat /etc/passwd\n\
         try signal kill -0 $$\n\
         }} > {out}/new.$$\nmv {out}/new.$$ {out}/result\n",
        elsewhere.0.display(),
        out = out.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let table = format!(
        "[track.script.curious]\ncommand = [\"{}\"]\ninterval = \"200ms\"\n",
        script.display()
    );
    (out.join("result"), table)
}

const CONFINED: &str = "mount refused\npersonality refused\nnamespace refused\nelsewhere refused\n\
                        temporary done\nnull done\nread done\nsignal done\n";

fn result(path: &Path) -> String {
    wait_for("the script's result", SOON, || {
        fs::read_to_string(path).ok()
    })
}

fn has_landlock(node: &Node) -> bool {
    let there = node.log().contains("landlock on");
    if !there {
        println!("skipped in part: landlock is not in this kernel");
    }
    there
}

/// A line of /proc/PID/status.
fn field(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line
        .unwrap_or_else(|| panic!("no {name}"))
        .trim_start_matches(':');
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// User, effective and permitted capabilities, no_new_privs, seccomp.
fn rights(pid: i32) -> [String; 5] {
    ["Uid", "CapEff", "CapPrm", "NoNewPrivs", "Seccomp"].map(|name| field(pid, name))
}

fn keeper_of(node: &Node) -> i32 {
    let keeper = node.keeper.as_ref().unwrap();
    i32::try_from(keeper.id()).unwrap()
}

fn runner_of(node: &Node) -> i32 {
    wait_for("a runner", SOON, || node.runner())
}

fn lbd(node: &Node, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    command.args(words).arg("--socket");
    command.arg(node.runtime.join("admin.sock"));
    command.output().unwrap()
}

#[track_caller]
fn succeeds(node: &Node, words: &[&str]) -> String {
    let output = lbd(node, words);
    assert!(output.status.success(), "{output:?}\n{}", node.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn started_by_root_it_goes_on_as_a_user_with_two_rights_in_a_sandbox_of_its_own() {
    let Some(lab) = Lab::new() else { return };
    let folder = Folder::new("sandbox-pair");
    let elsewhere = Elsewhere::new("pair");
    let (out, script) = curious(&folder, &elsewhere);
    let config = PAIR.replace(
        "[vip.v]",
        "[vip.v]\ntrack = [\"proxy:p\", \"script:curious\"]",
    );
    let config = format!("user = \"nobody\"\n{config}{script}");
    let (mut lb1, lb2) = pair_of(&lab, &folder, &config);
    let nobody = "65534 65534 65534 65534";
    let two = "0000000000003000";
    let none = "0000000000000000";
    let in_force = |node: &Node| {
        assert_eq!(rights(keeper_of(node)), [nobody, two, two, "1", "2"]);
        assert_eq!(rights(runner_of(node)), [nobody, none, none, "1", "2"]);
        let proxy = node.proxy_that_serves();
        assert_eq!(rights(proxy), [nobody, none, none, "1", "2"]);
    };
    in_force(&lb1);
    let complete = has_landlock(&lb1);
    if complete {
        assert_eq!(result(&out), CONFINED);
        let said = succeeds(&lb1, &["status"]);
        let line = "sandbox complete: keeper as nobody, runner as nobody, proxy as nobody";
        assert!(said.contains(line), "{said}");
        assert!(!lb1.log().contains("sandbox is incomplete"));
    }
    // An upgrade adds nothing to it and takes nothing away.
    let filters = |pid| field(pid, "Seccomp_filters");
    assert_eq!(filters(keeper_of(&lb1)), "1");
    for round in 1..=2 {
        succeeds(&lb1, &["upgrade"]);
        assert_eq!(lb1.log().matches("keeper replaced from").count(), round);
        in_force(&lb1);
        assert_eq!(filters(keeper_of(&lb1)), "1");
        assert_eq!(filters(runner_of(&lb1)), "1");
        assert_eq!(filters(lb1.proxy_that_serves()), "2");
    }
    fs::remove_file(&out).unwrap();
    if complete {
        assert_eq!(result(&out), CONFINED);
        let log = lb1.log();
        assert!(!log.contains("by the service manager"), "{log}");
        assert_eq!(log.matches("seccomp on, landlock on").count(), 6, "{log}");
    }
    // What comes by a reload is opened from within.
    let more = config.replace("\":6443\"", "[\":6443\", \":6444\"]");
    fs::write(
        &lb1.config,
        more.replace("vrid = 77", "vrid = 77\nlease = \"3s\""),
    )
    .unwrap();
    succeeds(&lb1, &["reload"]);
    assert!(lab.holds("lb1"));
    succeeds(&lb1, &["failover", "v"]);
    let moved = || (lab.holds("lb2") && !lab.holds("lb1")).then_some(());
    wait_for("the vip to move", SOON, moved);
    lb1.signal_keeper(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(lb1.exit_code(), Some(0), "{}", lb1.log());
    in_force(&lb2);
}

#[test]
fn whoever_started_it_its_programs_are_confined_and_a_reload_knows_the_bounds() {
    let folder = Folder::new("sandbox-alone");
    let elsewhere = Elsewhere::new("alone");
    let (address, config) = single();
    let (out, script) = curious(&folder, &elsewhere);
    let node = Node::start(&folder, "lb", &format!("{config}{script}"), None);
    wait_served(address);
    assert_eq!(field(keeper_of(&node), "NoNewPrivs"), "1");
    assert_eq!(field(keeper_of(&node), "Seccomp"), "2");
    if !has_landlock(&node) {
        return;
    }
    assert_eq!(result(&out), CONFINED);
    let away = elsewhere.0.display();
    let beyond = format!("state-dir = \"{away}\"\n{config}{script}");
    fs::write(&node.config, beyond).unwrap();
    let output = lbd(&node, &["reload"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("is out of reach of the sandbox"), "{said}");
    wait_served(address);
}

/// As a kernel or a container that has neither, for this thread and what it starts.
fn refuse_sandboxes() {
    let calls = [libc::SYS_seccomp, libc::SYS_landlock_create_ruleset];
    let rules: BTreeMap<i64, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let (listed, others) = (SeccompAction::Errno(38), SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, others, listed, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn where_the_kernel_has_no_sandbox_it_goes_on_and_says_what_is_missing() {
    let folder = Folder::new("sandbox-none");
    let (address, config) = single();
    let node = Node::prepare(&folder, "lb", &config, None);
    let started = std::thread::spawn(move || {
        refuse_sandboxes();
        let mut node = node;
        node.restart();
        node
    });
    let node = started.join().unwrap();
    wait_served(address);
    let log = node.log();
    for missing in [
        "system calls are not filtered: Function not implemented",
        "files are not restricted by landlock: not in this kernel",
    ] {
        assert!(log.contains(missing), "{log}");
    }
    let said = succeeds(&node, &["status"]);
    let line = "sandbox: keeper: files are not restricted by landlock: not in this kernel";
    assert!(said.contains(line), "{said}");
    assert!(
        said.contains("sandbox: proxy: system calls are not filtered"),
        "{said}"
    );
    let config = node.config.to_str().unwrap();
    let said = lbd(&node, &["doctor", config, "-o", "json"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("Linux from 5.13 on with landlock"), "{said}");
}
