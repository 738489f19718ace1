//! The configuration as users meet it: the shipped examples, the reference, one file per mistake
//! with the text that lbd answers, and mutated files without number.
//!
//! `LBD_UPDATE=1 cargo test --test config` rewrites the expected texts; read the diff.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lbd::config::local::{HostFacts, InterfaceFacts};
use lbd::config::model::{Check, CheckKind, Listen, RunAs, VipAddress};
use lbd::config::problem::CODES;
use lbd::config::schema::{Fallback, Kind, SECTIONS, Section, Support, section};
use lbd::config::{
    Flaw, Host, Parsed, Problem, Trouble, View, docs, examine, parse, render, render_json,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares with what is on disk, or writes it when asked to.
fn agrees(path: &Path, actual: &str) -> Result<(), String> {
    let full = Path::new(ROOT).join(path);
    if std::env::var_os("LBD_UPDATE").is_some() {
        fs::write(&full, actual).unwrap();
        return Ok(());
    }
    let expected = fs::read_to_string(&full).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    let (old, new) = (expected.lines(), actual.lines());
    let first = old.zip(new).find(|(old, new)| old != new);
    Err(format!(
        "{} differs (LBD_UPDATE=1 rewrites it), first in this line, old and new: {first:?}",
        path.display()
    ))
}

fn codes(problems: &[Problem]) -> Vec<&'static str> {
    problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn the_minimal_example_is_accepted_without_a_word() {
    assert_eq!(codes(&parse(&read("conf/lb.toml")).problems), [""; 0]);
}

#[test]
fn the_seed_s_pair_gets_exactly_the_warnings_it_deserves() {
    let parsed = parse(&read("conf/kubesphere.toml"));
    assert!(parsed.config.is_some());
    assert_eq!(codes(&parsed.problems), ["W0211", "W0304", "W0305"]);
}

#[test]
fn the_seed_s_pair_with_its_script_of_weight_2_is_told_that_it_cannot_fail_over() {
    let text = read("conf/kubesphere.toml").replace(
        "[\"proxy:kube-apiserver\"]",
        "[\"proxy:kube-apiserver\", \"script:haproxy\"]",
    ) + "\n[track.script.haproxy]\ncommand = [\"/usr/bin/killall\", \"-0\", \"haproxy\"]\ninterval = \"2s\"\nweight = 2\n";
    let parsed = parse(&text);
    assert!(parsed.config.is_some());
    assert_eq!(
        codes(&parsed.problems),
        ["W0211", "W0304", "W0305", "W0208"]
    );
    let weight = parsed.problems.last().unwrap();
    assert_eq!(
        weight.labels[0].text,
        "110 on the failed node still beats 102 on the healthy one (gap 10, weight 2)"
    );
    assert_eq!(weight.fix.as_ref().unwrap().replacement, "-11");
}

/// Every key of the file as (section, key, value, source line), along the table.
fn occurrences<'t>(
    text: &'t str,
    at: &'static Section,
    table: &toml::de::DeTable<'_>,
    found: &mut Vec<(&'static str, &'static str, toml::Value, &'t str)>,
) {
    for (key, value) in table {
        let known = at
            .key(key.get_ref())
            .unwrap_or_else(|| panic!("{}", key.get_ref()));
        let line = text[..key.span().start].matches('\n').count();
        let line = text.lines().nth(line).unwrap();
        let plain = toml::from_str::<toml::Table>(&format!("x = {}", &text[value.span()]));
        let plain = plain.map_or_else(|_| toml::Value::Boolean(true), |table| table["x"].clone());
        found.push((at.path, known.name, plain, line));
        let below = match known.kind {
            Kind::Table(path) => value.get_ref().as_table().map(|t| vec![(section(path), t)]),
            Kind::Named(path) => value.get_ref().as_table().map(|named| {
                named
                    .values()
                    .filter_map(|v| Some((section(path), v.get_ref().as_table()?)))
                    .collect()
            }),
            Kind::List(_) => value.get_ref().as_array().map(|items| {
                let path = format!("{}.{}", at.path, known.name);
                let tables = items.iter().filter_map(|item| item.get_ref().as_table());
                tables.map(|table| (section(&path), table)).collect()
            }),
            Kind::Bool
            | Kind::Integer { .. }
            | Kind::IntegerOr { .. }
            | Kind::Duration { .. }
            | Kind::Choice(_)
            | Kind::Form(_) => None,
        };
        for (at, table) in below.into_iter().flatten() {
            occurrences(text, at, table, found);
        }
    }
}

#[test]
fn the_full_example_shows_every_supported_key_with_its_default() {
    let text = read("conf/lb.full.toml");
    let (tree, errors) = toml::de::DeTable::parse_recoverable(&text);
    assert!(errors.is_empty());
    let mut found = Vec::new();
    occurrences(&text, section(""), tree.get_ref(), &mut found);
    for section in SECTIONS {
        for key in section
            .keys
            .iter()
            .filter(|key| key.support == Support::Supported)
        {
            let of_key: Vec<_> = found
                .iter()
                .filter(|(path, name, ..)| *path == section.path && *name == key.name)
                .collect();
            assert!(
                !of_key.is_empty(),
                "{}.{} is not shown",
                section.path,
                key.name
            );
            let Fallback::Value(default) = key.default else {
                continue;
            };
            let default =
                toml::from_str::<toml::Table>(&format!("x = {default}")).unwrap()["x"].clone();
            let shown = of_key.iter().any(|(_, _, value, _)| *value == default);
            assert!(
                shown,
                "{}.{} isn't shown with its default",
                section.path, key.name
            );
            for (_, _, value, line) in of_key {
                let honest = *value == default
                    || line.contains("example")
                    || line.contains("kube-apiserver")
                    || matches!(value, toml::Value::Table(_));
                assert!(honest, "{line}: not the default, {default}");
            }
        }
    }
    assert_eq!(codes(&parse(&text).problems), ["W0211"]);
}

#[test]
fn every_default_is_a_value_that_its_key_accepts() {
    // A file that spells out every plain default means the same as one that leaves them out.
    let mut spelled = read("conf/lb.toml");
    for (path, table) in [
        ("log", "[log]\n"),
        ("metrics", "[metrics]\n"),
        ("vip.NAME.garp", "[vip.kube.garp]\n"),
    ] {
        spelled.push_str(table);
        for key in section(path).keys {
            if let Fallback::Value(default) = key.default {
                spelled.push_str(&format!("{} = {default}\n", key.name));
            }
        }
    }
    for (path, before) in [("vip.NAME", "nodes   ="), ("proxy.NAME", "backends =")] {
        for key in section(path).keys {
            if let Fallback::Value(default) = key.default {
                spelled =
                    spelled.replacen(before, &format!("{} = {default}\n{before}", key.name), 1);
            }
        }
    }
    let (spelled, plain) = (parse(&spelled), parse(&read("conf/lb.toml")));
    assert_eq!(codes(&spelled.problems), [""; 0]);
    assert_eq!(spelled.config, plain.config);
}

#[test]
fn the_reference_is_what_the_table_says() {
    agrees(Path::new("docs/config.md"), &docs::markdown()).unwrap();
}

/// A machine with 172.16.0.2 on eth0 and no files.
fn lb1() -> HostFacts {
    HostFacts {
        interfaces: vec![InterfaceFacts {
            name: "eth0".to_owned(),
            index: 2,
            up: true,
            addresses: vec![VipAddress {
                ip: "172.16.0.2".parse().unwrap(),
                prefix: 24,
            }],
        }],
    }
}

fn on_lb1(text: &str) -> Parsed {
    let facts = lb1();
    examine(
        text,
        View::Here(Host {
            facts: &facts,
            file_exists: &|path| path.ends_with("peer.key") || path.starts_with("/etc/lbd/check"),
            key_problem: &|_| Some("line 1 is shorter than 32 characters".to_owned()),
            check_flaws: &flaws_on_lb1,
            trouble: &trouble_on_lb1,
            port_held: &|listen| listen == Listen::Any(8080),
            node: None,
        }),
    )
}

/// On lb1 the key is another certificate's, and the token is everybody's.
fn flaws_on_lb1(check: &Check) -> Vec<(&'static str, Flaw)> {
    let CheckKind::Https(tls, http) = &check.kind else {
        return Vec::new();
    };
    let mut flaws = Vec::new();
    if let Some(client) = &tls.client {
        let cert = client.cert.display();
        let reason = format!("this is not the key of the certificate in {cert}");
        flaws.push(("client-key", Flaw::Unusable(reason)));
    }
    if let Some(token) = &http.token_file {
        flaws.push(("token-file", Flaw::ReadableByAll(token.clone())));
    }
    flaws
}

/// lb1 has no `ghost` and no rights to run programs as somebody else.
fn trouble_on_lb1(program: &Path, user: Option<&RunAs>) -> Option<Trouble> {
    let folder = Path::new("/srv/changeable");
    let group = user.and_then(|user| user.group.as_deref());
    match (program.to_str().unwrap(), user) {
        (_, Some(_)) if group == Some("ghosts") => Some(Trouble::NoSuchGroup("ghosts".into())),
        (_, Some(user)) if user.user == "ghost" => Some(Trouble::NoSuchUser("ghost".into())),
        (_, Some(_)) => Some(Trouble::NotPermitted),
        ("/usr/local/bin/missing", None) => Some(Trouble::Missing),
        ("/usr/local/bin/text", None) => Some(Trouble::NotExecutable),
        (_, None) if program.starts_with(folder) => {
            Some(Trouble::ChangeableByOthers(folder.to_owned()))
        }
        (_, None) => None,
    }
}

fn invalid() -> Vec<PathBuf> {
    let folder = Path::new("tests/data/config/invalid");
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
    let names = entries.map(|entry| folder.join(entry.unwrap().file_name()));
    let mut files: Vec<PathBuf> = names
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

fn examined(path: &Path, text: &str) -> Parsed {
    if path.to_string_lossy().ends_with(".host.toml") {
        on_lb1(text)
    } else {
        parse(text)
    }
}

#[test]
fn each_mistake_is_answered_word_for_word() {
    let mut wrong = Vec::new();
    for path in invalid() {
        let text = read(&path);
        let parsed = examined(&path, &text);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let code = &name[..5];
        assert!(
            parsed.problems.iter().any(|problem| problem.code == code),
            "{name}: {:?}",
            codes(&parsed.problems)
        );
        assert_eq!(
            parsed.config.is_none(),
            parsed.problems.iter().any(Problem::is_error)
        );
        let shown = render(&parsed.problems, "lb.toml", &text, false);
        wrong.extend(agrees(&path.with_extension("txt"), &shown).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_is_a_file_for_every_code_and_a_code_for_every_problem() {
    let mut seen = BTreeSet::new();
    for path in invalid() {
        let parsed = examined(&path, &read(&path));
        seen.extend(codes(&parsed.problems));
    }
    // A file that can't be read has no text to look at: tests/cli.rs.
    let of_text = CODES.iter().map(|(code, _)| *code);
    let known: BTreeSet<&str> = of_text.filter(|code| *code != "E0004").collect();
    assert_eq!(seen, known);
}

#[test]
fn every_proposed_fix_mends_its_mistake() {
    for path in invalid() {
        let text = read(&path);
        let parsed = examined(&path, &text);
        for problem in &parsed.problems {
            let Some(fix) = &problem.fix else {
                continue;
            };
            let mut mended = text.clone();
            mended.replace_range(fix.span.clone(), &fix.replacement);
            let after = examined(&path, &mended);
            let same = |p: &&Problem| p.code == problem.code && p.message == problem.message;
            assert!(
                !after.problems.iter().any(|p| same(&p)),
                "{}: {} remains after {fix:?}",
                path.display(),
                problem.message
            );
        }
    }
}

#[test]
fn json_carries_the_same_findings() {
    let text = read("conf/kubesphere.toml");
    let json = render_json(&parse(&text).problems, "lb.toml", &text);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["accepted"], true);
    assert_eq!(json["warnings"], 3);
    assert_eq!(json["problems"][1]["code"], "W0304");
    let place = &json["problems"][1]["labels"][0];
    assert_eq!((&place["line"], &place["column"]), (&40.into(), &16.into()));
}

/// xorshift64*: reproducible, and good enough to mutate with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit.max(1)
    }
}

/// What mutations insert: pieces of the language, old words, and poison.
const PIECES: &[&str] = &[
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\t",
    "\\",
    "\\x30",
    "\\u0000",
    "true",
    "false",
    "0",
    "-1",
    "255",
    "99999999999999999999",
    "0x10",
    "1.5",
    "nan",
    "1979-05-27",
    "\"\"",
    "\"0s\"",
    "\"off\"",
    "\"1ms\"",
    "\"18446744073709551615h\"",
    "\"5m\"",
    "50000",
    "\"::1\"",
    "\"[::1]:1\"",
    "\":0\"",
    "\"*:1\"",
    "\"0.0.0.0:6443\"",
    "\"172.16.0.10:6443\"",
    "\"172.16.0.0/0\"",
    "\"10.0.0.1/33\"",
    "[vip]",
    "[vip.kube]",
    "[[vip]]",
    "[proxy.x]",
    "[track.script.s]",
    "[peer]",
    "weight = 2\n",
    "maxconn = 1\n",
    "nodes = []\n",
    "track = [\"script:s:-5\"]\n",
    "check = \"https\"\n",
    "é",
    "\u{2028}",
    "\u{0}",
    "🦀",
];

fn mutate(random: &mut Random, corpus: &[String], text: &mut Vec<u8>) {
    let (at, end) = (random.below(text.len() + 1), random.below(text.len() + 1));
    let (at, end) = (at.min(end), at.max(end));
    let short = (at + 1 + random.below(24)).min(text.len());
    match random.below(8) {
        6 => {
            let digits = text.iter_mut().filter(|byte| byte.is_ascii_digit());
            for digit in digits.skip(random.below(60)).take(1) {
                *digit = b'0' + u8::try_from(random.below(10)).unwrap();
            }
        }
        0 if !text.is_empty() => text[at.min(end.saturating_sub(1))] ^= 1 << random.below(8),
        1 => drop(text.drain(at..short.max(at))),
        2 => drop(text.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
        3 => drop(text.splice(
            at..short.max(at),
            PIECES[random.below(PIECES.len())].bytes(),
        )),
        4 if end - at < 400 => {
            let copy = text[at..end].to_vec();
            let to = random.below(text.len() + 1);
            drop(text.splice(to..to, copy));
        }
        5 => {
            let other = corpus[random.below(corpus.len())].as_bytes();
            let from = random.below(other.len());
            let to = (from + random.below(200)).min(other.len());
            drop(text.splice(at..at, other[from..to].iter().copied()));
        }
        _ => text.truncate(text.len() - random.below(text.len() / 8 + 1)),
    }
}

/// Prints the text that made a test panic.
struct Culprit<'a>(&'a str, u64);

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "iteration {} with this text (LBD_FUZZ_SEED chooses others):\n{:?}",
                self.1, self.0
            );
        }
    }
}

#[test]
fn no_text_makes_the_parser_panic_and_an_accepted_one_yields_a_configuration() {
    let iterations = std::env::var("LBD_FUZZ_ITERATIONS").map_or(4_000, |n| n.parse().unwrap());
    let mut corpus: Vec<String> = ["conf/lb.toml", "conf/lb.full.toml", "conf/kubesphere.toml"]
        .map(read)
        .into();
    corpus.extend(invalid().iter().map(read));
    let seed = std::env::var("LBD_FUZZ_SEED").map_or(0x6c62_645f_636f_6e66, |n| n.parse().unwrap());
    let mut random = Random(seed | 1);
    let mut accepted = 0_u64;
    for iteration in 0..iterations {
        let from = if iteration % 3 == 0 { corpus.len() } else { 3 };
        let mut text = corpus[random.below(from)].clone().into_bytes();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &corpus, &mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let _culprit = Culprit(&text, iteration);
        let parsed = if iteration % 2 == 0 {
            parse(&text)
        } else {
            on_lb1(&text)
        };
        let refused = parsed.problems.iter().any(Problem::is_error);
        assert_eq!(parsed.config.is_some(), !refused);
        for problem in &parsed.problems {
            assert!(CODES.iter().any(|(code, _)| *code == problem.code));
        }
        if iteration % 8 == 0 {
            let shown = render(&parsed.problems, "lb.toml", &text, false);
            assert_eq!(shown.is_empty(), parsed.problems.is_empty());
            serde_json::from_str::<serde_json::Value>(&render_json(
                &parsed.problems,
                "lb.toml",
                &text,
            ))
            .unwrap();
        }
        accepted += u64::from(!refused);
    }
    // Mutations that break everything would test nothing but the syntax.
    assert!(
        accepted > iterations / 50,
        "only {accepted} of {iterations} accepted"
    );
}
