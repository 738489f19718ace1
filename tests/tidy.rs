//! Rules of the tree that the compiler does not know: who may name whom, which files are pure,
//! what every file must say about itself. Plain text search, on purpose: fast and explainable.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

/// Components in import order: each may name itself and those before it (same number: neither).
const ORDER: &[(&str, u8)] = &[
    ("units", 0),
    ("recorder", 0),
    ("config", 1),
    ("import", 2),
    ("net", 2),
    ("ipc", 2),
    ("metrics", 2),
    ("log", 3),
    ("health", 4),
    ("discovery", 5),
    ("proxy", 6),
    ("track", 7),
    ("vrrp", 8),
    ("peer", 9),
    ("admin", 10),
    ("daemon", 11),
    ("cli", 12),
    ("main", 13),
];

/// Files (or folders) that decide and do nothing else.
const PURE: &[&str] = &[
    "src/daemon/keeper/reload/lineage.rs",
    "src/recorder/blackbox",
    "src/recorder/file.rs",
    "src/recorder/replay.rs",
    "src/recorder/tape.rs",
    "src/recorder/taped.rs",
    "src/recorder/time.rs",
    "src/recorder/words.rs",
    "src/units.rs",
    "src/config",
    "src/import",
    "src/ipc/command.rs",
    "src/ipc/counters.rs",
    "src/ipc/message.rs",
    "src/ipc/record.rs",
    "src/ipc/event.rs",
    "src/ipc/reload.rs",
    "src/ipc/route.rs",
    "src/ipc/runner.rs",
    "src/ipc/tally.rs",
    "src/admin/tally",
    "src/log/access.rs",
    "src/log/catalog.rs",
    "src/log/spacing.rs",
    "src/health/fsm",
    "src/health/late",
    "src/health/recorded.rs",
    "src/health/spread",
    "src/discovery/known.rs",
    "src/discovery/pause.rs",
    "src/discovery/file/format.rs",
    "src/discovery/dns/message.rs",
    "src/discovery/dns/system.rs",
    "src/discovery/kubernetes/slices.rs",
    "src/proxy/acl.rs",
    "src/proxy/balance",
    "src/proxy/damping.rs",
    "src/proxy/dispatch",
    "src/proxy/doubts.rs",
    "src/proxy/evidence.rs",
    "src/proxy/outlook.rs",
    "src/proxy/pace.rs",
    "src/proxy/recurrence.rs",
    "src/proxy/pp",
    "src/proxy/queue.rs",
    "src/proxy/rebalance/plan",
    "src/proxy/rebalance/records.rs",
    "src/proxy/roster",
    "src/proxy/server.rs",
    "src/proxy/slowstart.rs",
    "src/proxy/sources",
    "src/proxy/stall.rs",
    "src/proxy/timer.rs",
    "src/proxy/unanswered.rs",
    "src/track/file.rs",
    "src/track/fsm.rs",
    "src/track/interfaces.rs",
    "src/track/recorded.rs",
    "src/track/servers.rs",
    "src/track/verdict.rs",
    "src/vrrp/packet",
    "src/vrrp/validate",
    "src/vrrp/fsm",
    "src/vrrp/conflict.rs",
    "src/vrrp/garp.rs",
    "src/vrrp/hmac",
    "src/vrrp/jitter.rs",
    "src/vrrp/priority.rs",
    "src/vrrp/recorded.rs",
    "src/vrrp/rejects.rs",
    "src/vrrp/stamp.rs",
    "src/vrrp/timing.rs",
    "src/daemon/judge",
    "src/daemon/played.rs",
    "src/daemon/keeper/cause.rs",
    "src/daemon/keeper/health.rs",
    "src/daemon/keeper/notifier.rs",
    "src/daemon/keeper/route/decision.rs",
    "src/daemon/supervise",
    "src/admin/status.rs",
    "src/admin/judge.rs",
    "src/admin/compat",
    "src/admin/families",
    "src/admin/http/crowd.rs",
    "src/admin/http/host.rs",
    "src/admin/measures.rs",
    "src/admin/pace.rs",
    "src/metrics",
    "src/peer/key.rs",
    "src/peer/message",
    "src/peer/oneway.rs",
    "src/peer/recorded.rs",
    "src/peer/session.rs",
    "src/peer/tickle.rs",
    "src/admin/channel.rs",
    "src/admin/table.rs",
    "src/admin/talkers.rs",
    "src/admin/who.rs",
    "src/cli/demo/plan.rs",
    "src/cli/doctor/adverts.rs",
    "src/cli/doctor/answers.rs",
    "src/cli/doctor/peers.rs",
    "src/cli/doctor/report.rs",
    "src/cli/top/draw.rs",
    "src/cli/top/panels.rs",
    "src/cli/top/rates.rs",
    "src/cli/top/servers.rs",
    "src/cli/top/state.rs",
];

/// Words that a pure file never says: clocks, sockets, executors, randomness, logging.
const IMPURE: &[&str] = &[
    "tokio",
    "socket2",
    "nix::",
    "libc::",
    "std::fs",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "clock::now",
    "tracing",
    "println!",
    "getrandom",
];

const LINES_MAX: usize = 500;

#[test]
fn every_source_file_opens_with_what_lives_in_it() {
    let missing: Vec<_> = sources()
        .into_iter()
        .filter(|file| {
            !file
                .text
                .lines()
                .take(3)
                .any(|line| line.starts_with("//!"))
        })
        .map(|file| file.name)
        .collect();
    assert!(missing.is_empty(), "no //! header: {missing:?}");
}

#[test]
fn no_component_names_one_to_its_right() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(component) = component_of(&file.name) else {
            continue;
        };
        let rank = rank_of(&component);
        for (number, line) in code_lines(&file.text) {
            for named in crate_paths(line) {
                if named != component && rank_of(&named) >= rank {
                    wrong.push(format!("{}:{number}: {component} names {named}", file.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_component_has_a_place_in_the_order() {
    let mut unknown = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let component = name.trim_end_matches(".rs").to_owned();
        if component != "lib" && !ORDER.iter().any(|(known, _)| *known == component) {
            unknown.push(component);
        }
    }
    assert!(unknown.is_empty(), "not in ORDER: {unknown:?}");
}

#[test]
fn pure_files_touch_no_clock_socket_executor_or_log() {
    let files = sources();
    let mut wrong = Vec::new();
    for pure in PURE {
        let mut found = false;
        for file in files.iter().filter(|file| file.name.starts_with(pure)) {
            found = true;
            if file.name.ends_with("tests.rs") || file.name.contains("/tests/") {
                continue;
            }
            for (number, line) in code_lines(&file.text) {
                for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                    wrong.push(format!("{}:{number}: `{word}` in a pure file", file.name));
                }
            }
        }
        if !found {
            wrong.push(format!("{pure} is listed as pure but does not exist"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_lives_in_net_alone() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|file| !file.name.starts_with("src/net/"))
        .flat_map(|file| {
            code_lines(&file.text)
                .filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe fn"))
                .map(|(number, _)| format!("{}:{number}", file.name))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "unsafe outside src/net: {wrong:?}");
}

#[test]
fn no_source_file_outgrows_its_reader() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|file| !file.name.ends_with("tests.rs"))
        .map(|file| {
            (
                file.text
                    .split("\n#[cfg(test)]")
                    .next()
                    .unwrap_or("")
                    .lines()
                    .count(),
                file.name,
            )
        })
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let reasons = read("docs/dependencies.md");
    let mut inside = false;
    let mut missing = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[dev-dependencies]";
        } else if inside
            && let Some((name, _)) = line.split_once(" = ")
            && !reasons.contains(&format!("`{name}`"))
        {
            missing.push(name.to_owned());
        }
    }
    assert!(
        missing.is_empty(),
        "no reason in docs/dependencies.md: {missing:?}"
    );
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut missing = Vec::new();
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/SPECIFICATION.md",
    ] {
        for word in read(document).split(['`', '(', ')', ' ', '\n', ',']) {
            let path = word.trim_end_matches([':', '.', ';']);
            let ours = ["src/", "tests/", "conf/", "docs/", "benches/", "systemd/"];
            let looks_like_a_file = ours.iter().any(|start| path.starts_with(start))
                && !path.contains(['*', '{', '<', '…']);
            if looks_like_a_file && !root().join(path.split('#').next().unwrap_or(path)).exists() {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_architecture_fits_on_a_few_screens() {
    assert!(read("ARCHITECTURE.md").lines().count() <= 200);
}

/// The rows of the requirement ledger: section, level, requirement, verdict, evidence.
fn ledger() -> Vec<[String; 5]> {
    let text = read("docs/rfc9568.md");
    let rows: Vec<[String; 5]> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("| M") | line.contains("| SHOULD"))
        .map(|line| {
            let cells: Vec<String> = line
                .trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().trim_end_matches('|').trim().to_owned())
                .collect();
            cells
                .try_into()
                .unwrap_or_else(|cells| panic!("not five cells: {cells:?}"))
        })
        .collect();
    assert!(rows.len() > 70, "the ledger is not where it was");
    rows
}

#[test]
fn every_requirement_of_the_rfc_has_a_verdict_and_its_tests_exist() {
    let mut wrong = Vec::new();
    for [section, level, requirement, verdict, evidence] in ledger() {
        let row = format!("§{section} {requirement}");
        if !["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"].contains(&level.as_str()) {
            wrong.push(format!("{row}: no level {level}"));
        }
        let tests: Vec<&str> = evidence
            .split('`')
            .filter(|word| word.contains("::"))
            .collect();
        match verdict.as_str() {
            "met" | "differs" if tests.is_empty() => wrong.push(format!("{row}: no test")),
            "not applicable" if evidence.is_empty() => wrong.push(format!("{row}: no reason")),
            "met" | "differs" | "deviates" | "not applicable" => {}
            other => wrong.push(format!("{row}: no verdict {other}")),
        }
        for test in tests {
            let Some((file, name)) = test.split_once("::") else {
                continue;
            };
            let text = fs::read_to_string(root().join(file)).unwrap_or_default();
            let Some((before, _)) = text.split_once(&format!("fn {name}()")) else {
                wrong.push(format!("{row}: there is no {test}"));
                continue;
            };
            let attribute = before
                .lines()
                .rev()
                .take(4)
                .any(|line| line.trim() == "#[test]");
            if !attribute {
                wrong.push(format!("{row}: {test} is no test"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deviations_in_the_ledger_are_those_marked_in_the_code() {
    let mut told: Vec<(String, String)> = Vec::new();
    for [section, _, requirement, verdict, evidence] in ledger() {
        if verdict != "deviates" {
            continue;
        }
        let file = evidence.split('`').rfind(|word| word.starts_with("src/"));
        let file = file.unwrap_or_else(|| panic!("§{section} {requirement}: no file"));
        told.push((file.to_owned(), section));
    }
    let mut marked: Vec<(String, String)> = Vec::new();
    for file in sources() {
        for mark in file.text.split("TODO-correctness(RFC 9568 §").skip(1) {
            let section = mark.split(')').next().unwrap_or_default();
            marked.push((file.name.clone(), section.to_owned()));
        }
    }
    told.sort();
    marked.sort();
    assert_eq!(told, marked, "left: docs/rfc9568.md, right: src/");
}

struct Source {
    /// Path from the root of the tree.
    name: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join("src"), &mut found);
    assert!(
        found.len() > 20,
        "the walk over src/ found too little to mean anything"
    );
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push(Source {
                text: fs::read_to_string(&path).unwrap(),
                name,
            });
        }
    }
}

/// The component a file belongs to; `None` for lib.rs, which names all.
fn component_of(name: &str) -> Option<String> {
    let inside = name.strip_prefix("src/")?;
    let first = inside.split('/').next()?.trim_end_matches(".rs");
    (first != "lib").then(|| first.to_owned())
}

fn rank_of(component: &str) -> u8 {
    ORDER
        .iter()
        .find(|(name, _)| *name == component)
        .map_or(u8::MAX, |(_, rank)| *rank)
}

/// Lines of code before the unit tests, without comments, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split("\n#[cfg(test)]").next().unwrap_or(text);
    code.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| {
            let line = line.trim_start();
            !line.starts_with("//")
        })
}

/// Components named by `crate::X` (or `lbd::X` in main.rs) on a line.
fn crate_paths(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for marker in ["crate::", "lbd::"] {
        for rest in line.split(marker).skip(1) {
            let names = rest.strip_prefix('{').map_or_else(
                || vec![rest],
                |list| {
                    list.split('}')
                        .next()
                        .unwrap_or("")
                        .split(',')
                        .map(str::trim)
                        .collect()
                },
            );
            for name in names {
                let word: String = name
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                if ORDER.iter().any(|(known, _)| *known == word) {
                    found.push(word);
                }
            }
        }
    }
    found
}
