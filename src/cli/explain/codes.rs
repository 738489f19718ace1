//! The pages of `lbd check`'s codes: the sections of docs/codes.md.

use super::Page;

/// The document, as it is read on the web too.
const DOCUMENT: &str = include_str!("../../../docs/codes.md");

/// The page of a code.
pub(super) fn page(word: &str) -> Option<Page> {
    let code = word.to_ascii_uppercase();
    all().into_iter().find(|page| page.topic == code)
}

/// Every page, in the order of the document.
pub(super) fn all() -> Vec<Page> {
    DOCUMENT
        .split("\n## ")
        .skip(1)
        .filter_map(of_section)
        .collect()
}

/// A section without its `## `.
fn of_section(section: &str) -> Option<Page> {
    let (head, body) = section.split_once('\n')?;
    let (topic, title) = head.split_once(": ")?;
    let text = body.split("\n```").next().unwrap_or(body);
    Some(Page {
        topic: topic.to_owned(),
        kind: "check",
        title: title.to_owned(),
        text: text.trim().to_owned(),
        wrong: example(body, "wrong"),
        right: example(body, "right"),
    })
}

/// The block that opens with "```toml WHICH".
fn example(body: &str, which: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("```toml {which}"))?;
    let (_, block) = rest.split_once('\n')?;
    let (text, _) = block.split_once("\n```")?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::config::local::{HostFacts, InterfaceFacts};
    use crate::config::model::{Check, CheckKind, Listen, VipAddress};
    use crate::config::problem::CODES;
    use crate::config::{Flaw, Host, Parsed, Trouble, View, examine};

    /// What `lbd check` says on stderr, beside the codes of problems.
    const NOTES: &[&str] = &["N0271"];

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let pages: BTreeSet<(String, String)> = all()
            .into_iter()
            .filter(|page| !NOTES.contains(&page.topic.as_str()))
            .map(|page| (page.topic, page.title))
            .collect();
        let codes: BTreeSet<(String, String)> = CODES
            .iter()
            .map(|(code, meaning)| ((*code).to_owned(), (*meaning).to_owned()))
            .collect();
        assert_eq!(pages, codes);
        assert_eq!(all().len(), CODES.len() + NOTES.len());
        for note in NOTES {
            assert!(page(note).is_some(), "{note}");
        }
    }

    /// The example with what it leaves out.
    fn whole(example: &str) -> String {
        let mut text = String::new();
        let has = |section: &str, key: &str| {
            let mut lines = section.lines();
            lines.any(|line| line.starts_with(key))
        };
        let mut sections: Vec<String> = Vec::new();
        for line in example.lines() {
            match sections.last_mut() {
                Some(section) if !line.starts_with('[') => section.push_str(line),
                Some(_) | None => sections.push(line.to_owned()),
            }
            if let Some(section) = sections.last_mut() {
                section.push('\n');
            }
        }
        for section in sections {
            text.push_str(&section);
            let head = section.lines().next().unwrap_or_default();
            let depth = head.matches('.').count();
            if head.starts_with("[proxy.") && depth == 1 {
                if !has(&section, "listen") {
                    text.push_str("listen = \":6443\"\n");
                }
                let tables = example.contains(".backends]");
                if !has(&section, "backends =") && !tables {
                    text.push_str("backends = [\"172.16.0.4:6443\", \"172.16.0.5:6443\"]\n");
                }
            }
            if head.starts_with("[vip.") && depth == 1 {
                if !has(&section, "address") {
                    text.push_str("address = \"172.16.0.10/24\"\n");
                }
                if !has(&section, "nodes") && !has(&section, "announce") {
                    text.push_str("nodes = [\"172.16.0.2\", \"172.16.0.3\"]\n");
                }
            }
        }
        if example.contains(".backends]") {
            text.push_str("[proxy.kube]\nlisten = \":6443\"\n");
        }
        if !example.contains("[proxy.") && !example.contains("[vip.") {
            text.push_str("[proxy.kube]\nlisten = \":6443\"\nbackends = [\"172.16.0.4:6443\"]\n");
        }
        text
    }

    fn flaws(check: &Check) -> Vec<(&'static str, Flaw)> {
        let CheckKind::Https(tls, http) = &check.kind else {
            return Vec::new();
        };
        let mut flaws = Vec::new();
        if tls
            .client
            .as_ref()
            .is_some_and(|client| client.key.ends_with("other.key"))
        {
            flaws.push((
                "client-key",
                Flaw::Unusable("another certificate's key".into()),
            ));
        }
        if let Some(token) = http
            .token_file
            .as_ref()
            .filter(|path| path.ends_with("open.token"))
        {
            flaws.push(("token-file", Flaw::ReadableByAll(token.clone())));
        }
        flaws
    }

    /// On a machine with 172.16.0.2 on eth0 and files in /etc/lbd and /usr.
    fn here(text: &str) -> Parsed {
        let address = VipAddress {
            ip: "172.16.0.2".parse().unwrap(),
            prefix: 24,
        };
        let facts = HostFacts {
            interfaces: vec![InterfaceFacts {
                name: "eth0".into(),
                index: 2,
                up: true,
                addresses: vec![address],
            }],
        };
        let weak = |path: &Path| path.ends_with("weak.key");
        examine(
            text,
            View::Here(Host {
                facts: &facts,
                file_exists: &|path| {
                    let there = path.starts_with("/etc/lbd") || path.starts_with("/usr");
                    there && !path.ends_with("not-yet.json")
                },
                key_problem: &|path| weak(path).then(|| "line 1 is too short".to_owned()),
                check_flaws: &flaws,
                trouble: &|path, _| path.ends_with("missing").then_some(Trouble::Missing),
                port_held: &|listen| listen == Listen::Any(8080),
                node: None,
            }),
        )
    }

    #[test]
    fn the_wrong_example_of_a_page_gets_its_code_and_the_right_one_does_not() {
        let mut failed = Vec::new();
        for page in all() {
            let code = page.topic.as_str();
            if code == "E0004" || NOTES.contains(&code) {
                continue;
            }
            let found = |text: &str| {
                let mut problems = examine(text, View::Anywhere).problems;
                problems.extend(here(text).problems);
                problems.iter().any(|problem| problem.code == code)
            };
            let wrong = page.wrong.unwrap();
            let alone = code == "E0003";
            let wrong = if alone { wrong } else { whole(&wrong) };
            if !found(&wrong) {
                failed.push(format!("{code} is not found in:\n{wrong}"));
            }
            let right = whole(&page.right.unwrap());
            if found(&right) {
                failed.push(format!("{code} is found in:\n{right}"));
            }
            let problems = examine(&right, View::Anywhere).problems;
            if let Some(refused) = problems.iter().find(|problem| problem.is_error()) {
                failed.push(format!("{code}: {} in:\n{right}", refused.message));
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }

    #[test]
    fn no_line_of_a_page_is_wider_than_a_paper() {
        for page in all() {
            let widest = page.text.lines().map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|width| width <= 120), "{}", page.topic);
            assert!(!page.text.contains("```"), "{}", page.topic);
        }
    }
}
