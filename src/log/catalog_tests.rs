//! The table, the code and systemd/lbd.catalog say the same; what messages become in the record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tracing::Level;

use super::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Everything under src/ but the table itself.
fn sources(dir: &Path, all: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("catalog.rs") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The entries of the catalog file: subject and body by id.
fn catalog() -> BTreeMap<u128, (String, String)> {
    let text = std::fs::read_to_string(root().join("systemd/lbd.catalog")).unwrap();
    let mut entries = BTreeMap::new();
    for entry in text.split("\n-- ").skip(1) {
        let (id, rest) = entry.split_once('\n').unwrap();
        assert_eq!(id.len(), 32, "{id}");
        let (header, body) = rest.split_once("\n\n").unwrap();
        let subject = header
            .lines()
            .find_map(|line| line.strip_prefix("Subject: "));
        assert!(header.contains("Defined-By: lbd\n"), "{id}");
        let value = (subject.unwrap().to_owned(), body.to_owned());
        let before = entries.insert(u128::from_str_radix(id, 16).unwrap(), value);
        assert!(before.is_none(), "{id} twice");
    }
    entries
}

#[test]
fn every_number_is_in_the_catalog_and_every_entry_of_the_catalog_in_the_code() {
    let code: BTreeSet<u128> = ENTRIES.iter().map(|entry| entry.id).collect();
    assert_eq!(code.len(), ENTRIES.len(), "a number is used twice");
    let catalog: BTreeSet<u128> = catalog().into_keys().collect();
    let missing: Vec<_> = code
        .difference(&catalog)
        .map(|id| format!("{id:032x}"))
        .collect();
    assert!(
        missing.is_empty(),
        "not in systemd/lbd.catalog: {missing:?}"
    );
    let stale: Vec<_> = catalog
        .difference(&code)
        .map(|id| format!("{id:032x}"))
        .collect();
    assert!(stale.is_empty(), "not in the code: {stale:?}");
}

/// The calls that log `text`, each from its macro's name to the text.
fn calls<'a>(source: &'a str, text: &str) -> Vec<&'a str> {
    let literal = format!("\"{text}\"");
    let found = source.match_indices(&literal);
    let calls = found.filter_map(|(at, _)| {
        let before = source.get(..at)?;
        let (_, call) = before.rsplit_once("tracing::")?;
        let is_one = !call.contains(';') && call.len() < 600;
        let levels = ["error!", "warn!", "info!"];
        let logs = levels.iter().any(|level| call.starts_with(level));
        (is_one && logs).then_some(call)
    });
    calls.collect()
}

#[test]
fn every_message_of_the_table_is_logged_and_has_the_fields_that_its_entry_names() {
    let mut source = String::new();
    sources(&root().join("src"), &mut source);
    let catalog = catalog();
    let mut wrong = Vec::new();
    for entry in ENTRIES {
        let calls = calls(&source, entry.text);
        if calls.is_empty() {
            wrong.push(format!("nobody logs {:?}", entry.text));
        }
        let (subject, body) = &catalog[&entry.id];
        let texts = format!("{subject}\n{body}");
        for field in texts.split("@LBD_").skip(1) {
            let field = field.split('@').next().unwrap().to_lowercase();
            if !calls.iter().any(|call| call.contains(&field)) {
                wrong.push(format!("{:?} has no field {field}", entry.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_entry_says_what_happened_and_what_to_do() {
    for (id, (subject, body)) in catalog() {
        assert!(subject.len() <= 100, "{id:032x}: {subject}");
        let paragraphs = body.trim().split("\n\n").count();
        assert!(paragraphs >= 2, "{id:032x} has no remedy");
        assert!(body.lines().all(|line| line.len() <= 120), "{id:032x}");
    }
}

fn message(text: &str, fields: &[(&'static str, &str)]) -> Message {
    Message {
        level: Level::WARN,
        text: text.to_owned(),
        fields: fields
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect(),
    }
}

#[test]
fn a_change_becomes_an_event_with_before_and_after() {
    let fields = [
        ("proxy", "kube"),
        ("server", "a"),
        ("from", "up"),
        ("to", "down"),
        ("reason", "refused"),
        ("elapsed_ms", "77"),
    ];
    let told = |text, fields: &[(&'static str, &str)]| {
        let found = happening(&message(text, fields)).unwrap();
        let change = found.from.zip(found.to);
        (
            found.kind.name(),
            found.subject.unwrap(),
            change,
            found.reason,
        )
    };
    let change = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
    let server = "kube/a".to_owned();
    assert_eq!(
        told("server down", &fields),
        (
            "health",
            server.clone(),
            change("up", "down"),
            "refused".into()
        )
    );
    assert_eq!(
        told(
            "server ejected",
            &[("proxy", "kube"), ("server", "a"), ("reason", "errors")]
        ),
        (
            "ejection",
            server,
            change("used", "ejected"),
            "errors".into()
        )
    );
    let limit = [
        ("proxy", "kube"),
        ("key", "max-queue"),
        ("reason", "clients are turned away"),
    ];
    assert_eq!(
        told("limit reached", &limit),
        (
            "limit",
            "kube".to_owned(),
            None,
            "limit reached: clients are turned away (key=max-queue)".into()
        )
    );
}

#[test]
fn what_is_no_event_becomes_none() {
    assert_eq!(happening(&message("state changed", &[])), None);
    assert_eq!(happening(&message("no such message", &[])), None);
}
