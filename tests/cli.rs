//! `lbd check` as a program: exit codes, streams, habits of other programs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

fn lbd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lbd"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("NO_COLOR")
        .output()
        .expect("lbd starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file of its own for one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("lbd-cli-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            assert!(std::thread::panicking(), "{error}");
        }
    }
}

#[test]
fn every_shipped_example_passes() {
    for (file, verdict) in [
        ("conf/lb.toml", "conf/lb.toml: accepted\n"),
        (
            "conf/lb.full.toml",
            "conf/lb.full.toml: accepted with 1 warning\n",
        ),
        (
            "conf/kubesphere.toml",
            "conf/kubesphere.toml: accepted with 3 warnings\n",
        ),
    ] {
        let output = lbd(&["check", file, "--offline"]);
        assert_eq!(output.status.code(), Some(0), "{file}");
        assert!(stdout(&output).ends_with(verdict), "{}", stdout(&output));
        // Only the full one has a key file.
        let note = !file.contains("full");
        assert_eq!(stderr(&output).contains("note[N0271]"), note, "{file}");
        assert_eq!(stderr(&output).lines().count(), usize::from(note));
    }
}

#[test]
fn strict_refuses_warnings_with_78() {
    let output = lbd(&["check", "conf/kubesphere.toml", "--offline", "--strict"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stdout(&output).ends_with("refused for 3 warnings (--strict)\n"));
    let output = lbd(&["check", "conf/lb.toml", "--offline", "--strict"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_mistake_is_78_with_its_place() {
    let file = Scratch::new("mistake", b"[vip.kube]\nvirtual_router_id = 60\n");
    let output = lbd(&["check", "--offline", file.path()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stdout(&output).contains("2 | virtual_router_id = 60"),
        "{}",
        stdout(&output)
    );
    assert!(
        stdout(&output).contains("refused for 3 errors"),
        "{}",
        stdout(&output)
    );
    assert!(!stdout(&output).contains('\u{1b}'), "colours into a pipe");
}

#[test]
fn json_is_one_document_on_stdout() {
    let output = lbd(&[
        "check",
        "conf/kubesphere.toml",
        "--offline",
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> = json["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p["code"].as_str())
        .collect();
    assert_eq!(codes, ["W0211", "W0304", "W0305"]);
}

#[test]
fn the_command_lines_of_haproxy_and_keepalived_check() {
    let file = Scratch::new(
        "habits",
        b"[proxy.a]\nlisten = \":65001\"\nbackends = [\"10.0.0.1:80\"]\n",
    );
    for arguments in [
        ["-c", "-f", file.path()],
        ["-t", "-f", file.path()],
        ["-f", file.path(), "-c"],
    ] {
        let output = lbd(&arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(stdout(&output).ends_with(": accepted\n"));
    }
}

#[test]
fn a_file_for_other_machines_is_checked_as_one_of_its_nodes() {
    let output = lbd(&["check", "conf/kubesphere.toml", "--as", "lb2"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let output = lbd(&["check", "conf/kubesphere.toml", "--as", "lb3"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stdout(&output).contains("E0202"), "{}", stdout(&output));
}

#[test]
fn a_machine_that_is_no_node_is_told_what_it_has() {
    // 192.0.2.0/24 is for documentation; nobody's interface has these two.
    let text =
        b"[vip.a]\naddress = \"192.0.2.250/24\"\nnodes = [\"192.0.2.251\", \"192.0.2.252\"]\n";
    let file = Scratch::new("no-node", text);
    let output = lbd(&["check", file.path()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stdout(&output).contains("E0202"), "{}", stdout(&output));
    assert!(
        stdout(&output).contains("this machine has "),
        "{}",
        stdout(&output)
    );
}

#[test]
fn the_daemon_on_a_machine_that_is_no_node_points_to_check() {
    let dir = std::env::temp_dir().join(format!("lbd-cli-{}-run", std::process::id()));
    let path = dir.to_str().unwrap();
    let output = lbd(&["--config", "conf/lb.toml", "--runtime-dir", path]);
    std::fs::remove_dir_all(&dir).unwrap();
    // Its address may only be late: the service manager tries again after a 1.
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("help: `lbd check conf/lb.toml` says where"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_loopback_node_finds_itself_and_its_interface() {
    let text = b"[vip.a]\naddress = \"192.0.2.250/24\"\ninterface = \"nope0\"\nnodes = [\"127.0.0.1\", \"192.0.2.252\"]\n";
    let file = Scratch::new("loopback", text);
    let output = lbd(&["check", file.path()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stdout(&output).contains("127.0.0.1 is on lo"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_port_that_another_process_holds_is_a_warning() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap();
    let text = format!(
        "[admin]\nsocket = \"/nonexistent/admin.sock\"\n[proxy.a]\nlisten = \"{addr}\"\nbackends = [\"127.0.0.1:1\"]\n"
    );
    let file = Scratch::new("held", text.as_bytes());
    let output = lbd(&["check", file.path()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stdout(&output).contains(&format!("warning[W0309]: another process holds {addr}")),
        "{}",
        stdout(&output)
    );
    let output = lbd(&["check", file.path(), "--offline"]);
    assert!(
        stdout(&output).ends_with(": accepted\n"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_file_that_is_not_there_is_78_and_never_0() {
    let output = lbd(&["check", "/nonexistent/lb.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("cannot read /nonexistent/lb.toml"));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let file = Scratch::new("bytes", b"[vip.kube]\n\xff\xfe\n");
    let output = lbd(&["check", file.path()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("not UTF-8 at byte 11"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_json_document_too() {
    let wide: Vec<u8> = "\u{feff}[vip.kube]\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let wide = Scratch::new("utf-16", &wide);
    let large = Scratch::new("large", &vec![b'#'; 1024 * 1024 + 1]);
    for (path, said) in [
        ("/nonexistent/lb.toml", "cannot read"),
        (wide.path(), "it is UTF-16, save it as UTF-8"),
        (large.path(), "is larger than 1 MiB"),
        ("/dev/zero", "is larger than 1 MiB"),
    ] {
        let output = lbd(&["check", path, "--offline", "--format", "json"]);
        assert_eq!(output.status.code(), Some(78), "{path}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["accepted"], false);
        assert_eq!(json["problems"][0]["code"], "E0004");
        let message = json["problems"][0]["message"].as_str().unwrap();
        assert!(message.contains(said), "{message}");
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn no_report_shows_a_password() {
    let pair = "[vip.kube]\naddress = \"172.16.0.10/24\"\nnodes = [\"172.16.0.2\"]\nversion = 2\n";
    for auth in [
        "auth = { type = \"pass\", key = \"hunter2\" }",
        "auth = { type = \"pass\", key = \"hunter2-is-too-long\" }",
        "auth = { type = \"pass\", key = hunter2 }",
        "auth = { auth_type = \"PASS\", auth_pass = \"hunter2\" }",
        "auth_pass = \"hunter2\"",
        "auth.type = \"pass\"\nauth.key = \"hunter2",
    ] {
        let file = Scratch::new("secret", format!("{pair}{auth}\n").as_bytes());
        for format in ["text", "json"] {
            let output = lbd(&["check", file.path(), "--offline", "--format", format]);
            assert!(!stdout(&output).contains("hunter2"), "{}", stdout(&output));
            assert_eq!(stderr(&output), "");
        }
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_2() {
    for arguments in [
        &["--no-such-option"][..],
        &["check", "a", "b"],
        &["frobnicate"],
        &["--node", "lb1"],
    ] {
        assert_eq!(lbd(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(lbd(&["--version"]).status.code(), Some(0));
    assert_eq!(lbd(&["--help"]).status.code(), Some(0));
}

#[test]
fn the_daemon_refuses_a_bad_file_with_78_and_says_why_on_stderr() {
    let file = Scratch::new("daemon", b"[vip.kube]\nvirtual_router_id = 60\n");
    let output = lbd(&["--config", file.path()]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).contains("called `vrid` in lb.toml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn another_user_than_root_s_runs_no_program_as_a_third_whatever_it_may() {
    let caps = "+setuid,+setgid,+kill";
    let program = std::env::temp_dir().join(format!("lbd-as-nobody-{}", std::process::id()));
    let copied = std::fs::copy(env!("CARGO_BIN_EXE_lbd"), &program);
    let copy = Scratch(program);
    assert!(copied.is_ok(), "{copied:?}");
    let config = b"[vip.v]\naddress = \"10.9.0.100/24\"\nnodes = [\"10.9.0.1\", \"10.9.0.2\"]\n\
        track = [\"script:s\"]\n[track.script.s]\ncommand = [\"/bin/true\"]\nuser = \"daemon\"\n";
    let file = Scratch::new("as-nobody", config);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--inh-caps", caps, "--ambient-caps", caps])
        .args([copy.path(), "check", file.path()])
        .output();
    let Ok(output) = output else {
        println!("skipped: no setpriv");
        return;
    };
    if stderr(&output).contains("setpriv:") {
        println!("skipped: {}", stderr(&output));
        return;
    }
    let said = stdout(&output);
    assert!(said.contains("W0263"), "{said}");
}
