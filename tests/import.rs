//! `lbd import` over the templates that people have: what comes out, what is said about it, that
//! the daemon accepts it, and that no directive of any input is lost without a word.
//!
//! `LBD_UPDATE=1 cargo test --test import` rewrites the expected texts; read the diff.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and says why"
)]

#[path = "import/lines.rs"]
mod lines;
#[path = "import/odd.rs"]
mod odd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lbd::config::{View, examine, parse};
use lbd::import::{Fate, Input, Node, Outcome, Source, import, render};

/// A folder of tests/data/import.
struct Case {
    folder: &'static str,
    haproxy: bool,
    keepalived: &'static [&'static str],
    nodes: &'static [(&'static str, &'static str)],
    /// How many directives may be lost.
    lost: usize,
}

const CASES: &[Case] = &[
    Case {
        folder: "kubesphere",
        haproxy: true,
        keepalived: &["lb1.conf", "lb2.conf"],
        nodes: &[],
        lost: 0,
    },
    Case {
        folder: "kubeadm",
        haproxy: true,
        keepalived: &["lb1.conf", "lb2.conf"],
        nodes: &[("lb1", "192.168.0.2"), ("lb2", "192.168.0.3")],
        lost: 0,
    },
    Case {
        folder: "kubespray",
        haproxy: true,
        keepalived: &[],
        nodes: &[],
        lost: 0,
    },
    Case {
        folder: "kubekey",
        haproxy: true,
        keepalived: &["lb1.conf", "lb2.conf"],
        nodes: &[("lb1", "172.16.0.2"), ("lb2", "172.16.0.3")],
        // lvs_sync_daemon, on each node.
        lost: 2,
    },
    Case {
        folder: "k3s",
        haproxy: true,
        keepalived: &["lb-1.conf", "lb-2.conf"],
        nodes: &[("lb-1", "10.10.10.98"), ("lb-2", "10.10.10.99")],
        lost: 0,
    },
    Case {
        folder: "openshift",
        haproxy: true,
        keepalived: &["master-0.conf", "master-1.conf", "master-2.conf"],
        nodes: &[],
        // The password of the statistics, which are on the listener for health now.
        lost: 1,
    },
];

fn data(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/import")
        .join(path)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = data(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The inputs of a folder, haproxy.cfg first.
fn texts(case: &Case) -> Vec<(String, String)> {
    let haproxy = case.haproxy.then_some("haproxy.cfg");
    let names = haproxy.into_iter().chain(case.keepalived.iter().copied());
    names
        .map(|name| (name.to_owned(), read(Path::new(case.folder).join(name))))
        .collect()
}

fn outcome_of(case: &Case, texts: &[(String, String)]) -> Outcome {
    let mut sources = texts.iter().map(|(name, text)| Source { name, text });
    let haproxy = case.haproxy.then(|| sources.next()).flatten();
    let node = |(name, address): &(&str, &str)| Node {
        name: Some((*name).to_owned()),
        address: Some(address.parse().unwrap()),
    };
    import(&Input {
        haproxy,
        keepalived: sources.collect(),
        nodes: case.nodes.iter().map(node).collect(),
    })
}

fn imported(folder: &str) -> Outcome {
    let case = CASES.iter().find(|case| case.folder == folder).unwrap();
    outcome_of(case, &texts(case))
}

fn kinds(outcome: &Outcome) -> Vec<&'static str> {
    outcome.traps.iter().map(|trap| trap.kind).collect()
}

/// Compares with what is on disk, or writes it when asked to.
fn agrees(path: &Path, actual: &str) {
    if std::env::var_os("LBD_UPDATE").is_some() {
        fs::write(path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        expected,
        actual,
        "{} differs (LBD_UPDATE=1 rewrites it)",
        path.display()
    );
}

#[test]
fn every_template_becomes_a_file_that_check_accepts_on_every_node() {
    for case in CASES {
        let outcome = outcome_of(case, &texts(case));
        assert!(
            outcome.accepted,
            "{}: {:?}\n{}",
            case.folder, outcome.problems, outcome.text
        );
        assert_eq!(outcome.needs, [""; 0], "{}", case.folder);
        assert_eq!(
            outcome.count(Fate::Lost),
            case.lost,
            "{}:\n{}",
            case.folder,
            render(&outcome, true)
        );
        let config = parse(&outcome.text).config.unwrap();
        for node in config.vips.iter().flat_map(|vip| &vip.nodes) {
            let parsed = examine(&outcome.text, View::Node(&node.label()));
            assert!(
                parsed.config.is_some(),
                "{}: {:?}",
                node.label(),
                parsed.problems
            );
        }
        assert_eq!(config.proxies.is_empty(), !case.haproxy);
        assert_eq!(config.vips.is_empty(), case.keepalived.is_empty());
    }
}

#[test]
fn what_comes_out_and_what_is_said_is_what_was_read_and_found_good() {
    for case in CASES {
        let outcome = outcome_of(case, &texts(case));
        agrees(&data(case.folder).join("expected.toml"), &outcome.text);
        agrees(
            &data(case.folder).join("expected.txt"),
            &render(&outcome, true),
        );
    }
}

#[test]
fn the_seed_s_files_mean_what_the_shipped_example_means() {
    let outcome = imported("kubesphere");
    let ours = parse(&outcome.text).config.unwrap();
    let example =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/kubesphere.toml"));
    let mut theirs = parse(&example.unwrap()).config.unwrap();
    // The example spells out two defaults, and knows that its clients speak TLS.
    theirs.admin.socket = None;
    for proxy in &mut theirs.proxies {
        proxy.client_first = false;
        proxy.first_byte_timeout = None;
    }
    assert_eq!(ours, theirs);
}

#[test]
fn the_seed_s_traps_are_all_named_with_their_numbers() {
    let outcome = imported("kubesphere");
    assert_eq!(
        kinds(&outcome),
        [
            "same-name",
            "idle-timeout",
            "tcp-check",
            "capacity",
            "clear-password",
            "weight",
            "process-check"
        ]
    );
    let weight = outcome
        .traps
        .iter()
        .find(|trap| trap.kind == "weight")
        .unwrap();
    assert_eq!(
        weight.text[0],
        "lb2 without `chk_haproxy` has 110, and lb1 with it 100 + 2 = 102: the VIP stays on the node where it failed."
    );
    assert_eq!(
        outcome.traps[1].title,
        "proxy kube-apiserver: connections that are quiet for 50s are cut"
    );
    assert_eq!(
        outcome.traps[3].title,
        "proxy kube-apiserver serves 750 connections at once, and no more"
    );
}

#[test]
fn kubeadm_s_http_check_is_found_to_be_replaced_by_a_tls_hello() {
    let outcome = imported("kubeadm");
    assert!(
        kinds(&outcome).contains(&"overridden-check"),
        "{:?}",
        kinds(&outcome)
    );
    assert!(
        outcome
            .text
            .contains("check = { type = \"tls\", verify = false, timeout = \"10s\", fall = 3 }"),
        "{}",
        outcome.text
    );
    assert!(kinds(&outcome).contains(&"multicast"));
}

#[test]
fn openshift_s_cut_passwords_and_readiness_listener_are_kept() {
    let outcome = imported("openshift");
    assert!(
        outcome.text.contains("key = \"ostest_a\""),
        "{}",
        outcome.text
    );
    assert!(
        outcome.text.contains("key = \"ostest_i\""),
        "{}",
        outcome.text
    );
    assert!(
        outcome.text.contains("listen = \"[::]:9444\""),
        "{}",
        outcome.text
    );
    assert!(kinds(&outcome).contains(&"long-password"));
    // Neither the report nor the origins show a password.
    assert!(!render(&outcome, true).contains("ostest_api_vip"));
    assert!(!outcome.text.contains("ostest_api_vip"));
}

#[test]
fn a_template_that_was_never_filled_in_is_refused_with_each_placeholder() {
    let case = Case {
        folder: "kubeadm-template",
        haproxy: true,
        keepalived: &["lb1.conf"],
        nodes: &[],
        lost: 0,
    };
    let outcome = outcome_of(&case, &texts(&case));
    assert!(!outcome.accepted);
    assert_eq!(
        outcome.placeholders,
        [
            "${APISERVER_DEST_PORT}",
            "${APISERVER_VIP}",
            "${HOST1_ID}",
            "${INTERFACE}",
            "${ROUTER_ID}",
            "${STATE}"
        ]
    );
}

#[test]
fn without_addresses_it_asks_for_them() {
    let mut case = Case {
        folder: "k3s",
        haproxy: false,
        keepalived: &["lb-1.conf", "lb-2.conf"],
        nodes: &[],
        lost: 0,
    };
    let outcome = outcome_of(&case, &texts(&case));
    assert!(!outcome.accepted);
    assert_eq!(outcome.needs.len(), 2, "{:?}", outcome.needs);
    assert!(
        outcome.needs[0].ends_with("add --nodes lb1=ADDRESS,lb2=ADDRESS"),
        "{:?}",
        outcome.needs
    );
    // Without haproxy.cfg the script that looks for HAProxy stays a script.
    case.nodes = &[("lb-1", "10.10.10.98"), ("lb-2", "10.10.10.99")];
    let outcome = outcome_of(&case, &texts(&case));
    assert!(outcome.accepted, "{:?}", outcome.problems);
    assert!(
        outcome.text.contains("[track.script.chk_haproxy]"),
        "{}",
        outcome.text
    );
}

#[test]
fn one_node_s_file_alone_says_that_the_other_s_priority_is_a_guess() {
    let case = Case {
        folder: "kubesphere",
        haproxy: true,
        keepalived: &["lb2.conf"],
        nodes: &[],
        lost: 0,
    };
    let outcome = outcome_of(&case, &texts(&case));
    assert!(outcome.accepted, "{:?}", outcome.problems);
    assert!(kinds(&outcome).contains(&"guessed-priority"));
    assert!(
        outcome
            .text
            .contains("{ address = \"172.16.0.2\", priority = 100 }"),
        "{}",
        outcome.text
    );
}

#[test]
fn what_lbd_cannot_do_is_listed_with_its_line() {
    let case = Case {
        folder: "everything",
        haproxy: true,
        keepalived: &["lb1.conf"],
        nodes: &[],
        lost: 0,
    };
    let outcome = outcome_of(&case, &texts(&case));
    agrees(&data("everything/expected.toml"), &outcome.text);
    agrees(&data("everything/expected.txt"), &render(&outcome, true));
    assert!(outcome.accepted, "{:?}\n{}", outcome.problems, outcome.text);
    assert!(outcome.count(Fate::Lost) > 30);
}

/// Lines with something on them but comments, in a format with these comment characters.
fn lines(text: &str, comments: &[char]) -> Vec<usize> {
    let code = |line: &str| {
        let plain = line.split(comments).next().unwrap_or("").trim();
        !plain.trim_matches(['{', '}', ' ']).is_empty()
    };
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| code(line))
        .map(|(number, _)| number)
        .collect()
}

#[test]
fn no_line_of_any_input_is_without_a_verdict() {
    let everything = Case {
        folder: "everything",
        haproxy: true,
        keepalived: &["lb1.conf"],
        nodes: &[],
        lost: 0,
    };
    let mut seen = 0;
    for case in CASES.iter().chain([&everything]) {
        let texts = texts(case);
        let outcome = outcome_of(case, &texts);
        for (name, text) in &texts {
            let comments: &[char] = if name == "haproxy.cfg" {
                &['#']
            } else {
                &['#', '!']
            };
            for line in lines(text, comments) {
                let entry = outcome
                    .entries
                    .iter()
                    .find(|entry| entry.file == *name && entry.line == line);
                let entry = entry.unwrap_or_else(|| panic!("{}/{name}:{line}", case.folder));
                let shown = entry.fate != Fate::Exact || !entry.text.is_empty();
                assert!(shown, "{entry:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 400, "{seen}");
}

#[test]
fn what_is_called_exact_stands_in_the_file_with_its_line() {
    // Words whose meaning is in a table's name, or that say nothing on their own.
    let frames = [
        "global",
        "global_defs",
        "defaults",
        "mode",
        "log",
        "backend",
        "default_backend",
        "listen",
        "authentication",
        "auth_type",
        "unicast_peer",
        "virtual_ipaddress",
        "track_script",
        "frontend",
        "timeout",
        "option",
        "monitor-uri",
        "default-server",
        "http-check",
        "vrrp_instance",
    ];
    for case in CASES {
        let outcome = outcome_of(case, &texts(case));
        for entry in outcome
            .entries
            .iter()
            .filter(|entry| entry.fate == Fate::Exact)
        {
            let first = entry.text.split(' ').next().unwrap_or("");
            let origin = format!("{}:{} ", entry.file, entry.line);
            let twin = first.parse::<std::net::IpAddr>().is_ok() || entry.file != "haproxy.cfg";
            let stands = outcome.text.contains(&origin) || frames.contains(&first) || twin;
            assert!(stands, "{}: {entry:?}\n{}", case.folder, outcome.text);
        }
    }
}

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        usize::try_from(roll >> 33).unwrap() % end.max(1)
    }
}

/// A text with a few lines or characters removed, doubled or swapped, or cut short.
fn mutated(text: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=dice.below(4) {
        let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
        match dice.below(6) {
            0 if lines.len() > 1 => drop(lines.remove(one)),
            1 => lines.swap(one, other),
            2 => {
                let copy = lines.get(one).cloned().unwrap_or_default();
                lines.insert(other, copy);
            }
            3 => {
                let mut chars: Vec<char> = lines
                    .get(one)
                    .map(|l| l.chars().collect())
                    .unwrap_or_default();
                let at = dice.below(chars.len());
                let odd = [
                    '"', '\'', '\\', '{', '}', '#', '!', '$', '@', '\0', 'é', '9', '-', ' ', '/',
                    ':',
                ];
                chars.insert(at.min(chars.len()), odd[dice.below(odd.len())]);
                lines[one] = chars.into_iter().collect();
            }
            4 => {
                let words: Vec<&str> = text.split_whitespace().collect();
                lines[one].push(' ');
                lines[one].push_str(words[dice.below(words.len())]);
            }
            _ => {
                let cut: String = lines[one].chars().take(dice.below(20)).collect();
                lines[one] = cut;
            }
        }
    }
    lines.join("\n")
}

#[test]
fn mutated_files_never_panic_and_never_lose_a_line() {
    let rounds: usize = std::env::var("LBD_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let mut dice = Dice(0x1bd);
    let mut refused = 0;
    for round in 0..rounds {
        for case in CASES {
            let mut texts = texts(case);
            for (_, text) in &mut texts {
                *text = mutated(text, &mut dice);
            }
            let outcome = outcome_of(case, &texts);
            // A word about each line that isn't all comment, quote or brace.
            for (name, text) in &texts {
                let plain = |line: &str| {
                    line.chars()
                        .all(|c| c.is_ascii_alphanumeric() || " .:-_".contains(c))
                };
                for (number, line) in (1..).zip(text.lines()) {
                    let joined = number > 1
                        && text
                            .lines()
                            .nth(number - 2)
                            .is_some_and(|l| l.ends_with('\\'));
                    if plain(line) && !line.trim().is_empty() && !joined {
                        let known = outcome
                            .entries
                            .iter()
                            .any(|e| e.file == *name && e.line == number);
                        assert!(
                            known,
                            "round {round} {}/{name}:{number} {line}",
                            case.folder
                        );
                    }
                }
            }
            if !outcome.accepted {
                refused += 1;
                assert!(outcome.problems.iter().any(lbd::config::Problem::is_error));
            }
        }
    }
    // Most mutations leave something that lbd can run.
    assert!(
        refused * 4 < rounds * CASES.len(),
        "{refused} refused of {}",
        rounds * CASES.len()
    );
}

fn lbd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lbd"))
        .args(arguments)
        .current_dir(data("kubesphere"))
        .output()
        .expect("lbd starts")
}

const SEED: [&str; 7] = [
    "import",
    "--haproxy",
    "haproxy.cfg",
    "--keepalived",
    "lb1.conf",
    "--keepalived",
    "lb2.conf",
];

#[test]
fn the_program_prints_the_file_on_stdout_and_the_report_on_stderr() {
    let output = lbd(&SEED);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        read("kubesphere/expected.toml")
    );
    let report = String::from_utf8(output.stderr).unwrap();
    assert!(report.contains("Traps in these files:"), "{report}");
}

#[test]
fn json_is_one_document_with_the_file_in_it() {
    let output = lbd(&[SEED.as_slice(), &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(
        json["toml"].as_str().unwrap(),
        read("kubesphere/expected.toml")
    );
    assert_eq!(json["traps"][0]["kind"], "same-name");
    assert_eq!(json["counts"]["not-translated"], 0);
    assert_eq!(json["directives"][0]["text"], "global");
}

#[test]
fn a_loss_is_78_and_nothing_is_written_unless_it_is_allowed() {
    let conf = data("kubekey/haproxy.cfg");
    let lossy = data("everything/haproxy.cfg");
    let output = lbd(&["import", "--haproxy", conf.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let output = lbd(&["import", "--haproxy", lossy.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty());
    let output = lbd(&[
        "import",
        "--haproxy",
        lossy.to_str().unwrap(),
        "--allow-loss",
    ]);
    assert_eq!(output.status.code(), Some(0));
    assert!(!output.stdout.is_empty());
}

#[test]
fn what_check_refuses_is_said_with_the_old_file_s_line() {
    let path = std::env::temp_dir().join(format!("lbd-import-{}.cfg", std::process::id()));
    let text = "listen x\n bind 10.0.0.1:80\n timeout client 1h\n server a 10.0.0.1:80 check\n";
    fs::write(&path, text).unwrap();
    let output = lbd(&["import", "--haproxy", path.to_str().unwrap()]);
    fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("error[E0303]"), "{said}");
    assert!(
        said.contains(".cfg:4 server a 10.0.0.1:80 check\n"),
        "{said}"
    );
    assert!(said.contains("  help: "), "{said}");
}

#[test]
fn a_file_is_overwritten_only_when_told_to() {
    let dir = std::env::temp_dir().join(format!("lbd-import-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let target = dir.join("lb.toml");
    let path = target.to_str().unwrap();
    let first = lbd(&[SEED.as_slice(), &["--write", path]].concat());
    let expected = read("kubesphere/expected.toml");
    let written = fs::read_to_string(&target).unwrap();
    fs::write(&target, "mine").unwrap();
    let second = lbd(&[SEED.as_slice(), &["--write", path]].concat());
    let kept = fs::read_to_string(&target).unwrap();
    let third = lbd(&[SEED.as_slice(), &["--write", path, "--force"]].concat());
    let replaced = fs::read_to_string(&target).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(first.status.code(), Some(0));
    assert!(first.stdout.is_empty());
    assert_eq!(written, expected);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(kept, "mine");
    assert_eq!(third.status.code(), Some(0));
    assert_eq!(replaced, expected);
}

#[test]
fn arguments_that_make_no_sense_are_2_and_missing_files_78() {
    assert_eq!(lbd(&["import"]).status.code(), Some(2));
    assert_eq!(
        lbd(&["import", "--haproxy", "haproxy.cfg", "--force"])
            .status
            .code(),
        Some(2)
    );
    let nodes = [
        "import",
        "--keepalived",
        "lb1.conf",
        "--nodes",
        "10.0.0.1,10.0.0.2",
    ];
    assert_eq!(lbd(&nodes).status.code(), Some(2));
    assert_eq!(
        lbd(&["import", "--haproxy", "absent.cfg"]).status.code(),
        Some(78)
    );
}
