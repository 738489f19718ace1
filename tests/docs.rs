//! What users read is held against what there is: links and anchors lead somewhere, files that are
//! named exist, every `lbd …` that is told to be typed is understood, every lb.toml is accepted,
//! metrics that are named are served, and each alert has its page in the handbook.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, and says why"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use lbd::config::parse;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where a name in backquotes that begins so means a file of this tree.
const TREES: &[&str] = &[
    "benches/", "conf/", "docs/", "src/", "systemd/", "tests/", ".ci/",
];

/// One document: its path from the root and its text.
struct Document {
    name: String,
    text: String,
}

/// A fenced block: the words behind its fence, the line it begins in, its text.
struct Block {
    words: Vec<String>,
    line: usize,
    text: String,
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document, those of docs/ and of the folders in it too.
fn documents() -> Vec<Document> {
    let mut names: Vec<String> = Vec::new();
    let mut folders = vec![String::new(), "docs".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(ROOT)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if path.is_dir() && !folder.is_empty() {
                folders.push(name);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                names.push(name);
            }
        }
    }
    names.sort();
    let document = |name: String| Document {
        text: read(&name),
        name,
    };
    names.into_iter().map(document).collect()
}

/// The fenced blocks of a text, and the text with empty lines in their place.
fn blocks(text: &str) -> (Vec<Block>, String) {
    let (mut blocks, mut prose) = (Vec::new(), String::new());
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(words)) => {
                open = Some(Block {
                    words: words.split_whitespace().map(str::to_owned).collect(),
                    line: at + 1,
                    text: String::new(),
                });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => prose.push_str(line),
        }
        prose.push('\n');
    }
    assert!(open.is_none(), "a fence is not closed");
    (blocks, prose)
}

/// What stands in backquotes, which may go over the end of a line but not of a paragraph.
fn spans(prose: &str) -> Vec<String> {
    let mut spans = Vec::new();
    for paragraph in prose.split("\n\n") {
        let parts = paragraph.split('`').skip(1).step_by(2);
        spans.extend(parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    spans
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn headings(text: &str) -> Vec<String> {
    let (_, prose) = blocks(text);
    let heading = |line: &str| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim().to_owned())
    };
    prose.lines().filter_map(heading).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    headings(text).iter().map(|title| anchor(title)).collect()
}

/// Why `target`, as it stands in `folder`, leads nowhere.
fn dead(folder: &Path, target: &str) -> Option<String> {
    let (path, at) = match target.split_once('#') {
        Some((path, at)) => (path, Some(at)),
        None => (target, None),
    };
    let full = Path::new(ROOT).join(folder).join(path);
    if !full.exists() {
        return Some(format!("{target}: no such file"));
    }
    let at = at?;
    let text = fs::read_to_string(&full).ok()?;
    (!anchors(&text).contains(at)).then(|| format!("{target}: no such heading"))
}

/// Why no function of that name stands in the file.
fn missing(path: &str, function: &str) -> Option<String> {
    let named = format!("fn {function}(");
    let there =
        fs::read_to_string(Path::new(ROOT).join(path)).is_ok_and(|text| text.contains(&named));
    (!there).then(|| format!("{path}::{function}: no such function"))
}

/// The targets of links within this tree.
fn links(prose: &str) -> Vec<String> {
    let target = |rest: &str| rest.split(')').next().map(str::to_owned);
    let targets = prose.split("](").skip(1).filter_map(target);
    targets.filter(|target| !target.contains("://")).collect()
}

fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for Document { name, text } in documents() {
        let folder = Path::new(&name).parent().unwrap().to_path_buf();
        let (_, prose) = blocks(&text);
        for target in links(&prose) {
            seen += 1;
            // A heading of the same document.
            let own = target.starts_with('#');
            let full = if own {
                format!("{}{target}", file_name(&name))
            } else {
                target
            };
            wrong.extend(dead(&folder, &full).map(|why| format!("{name}: {why}")));
        }
    }
    assert!(seen > 40, "{seen} links seen");
    none_wrong(&wrong);
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[test]
fn every_file_that_is_named_exists() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for Document { name, text } in documents() {
        let (_, prose) = blocks(&text);
        for span in spans(&prose) {
            let first = span.split(' ').next().unwrap_or("").trim_end_matches(':');
            let named = TREES.iter().any(|tree| first.starts_with(tree));
            if !named || first.contains(['{', '*', '…', '<']) {
                continue;
            }
            seen += 1;
            let why = match first.split_once("::") {
                None => dead(Path::new(""), first),
                Some((path, function)) => missing(path, function),
            };
            wrong.extend(why.map(|why| format!("{name}: {why}")));
        }
    }
    assert!(seen > 200, "{seen} names seen");
    none_wrong(&wrong);
}

#[test]
fn the_index_names_every_document() {
    let index = links(&read("docs/README.md"));
    let index: BTreeSet<&str> = index
        .iter()
        .filter_map(|target| target.split('#').next())
        .collect();
    let mut wrong = Vec::new();
    for Document { name, .. } in documents() {
        let Some(name) = name.strip_prefix("docs/") else {
            continue;
        };
        // A folder speaks for itself through its own index.
        let known = index.contains(name) || name.starts_with("decisions/0") || name == "README.md";
        if !known {
            wrong.push(format!("docs/README.md doesn't link to {name}"));
        }
    }
    none_wrong(&wrong);
}

/// A word of usage that stands for something else: `SERVER`, `--config FILE`, `…`, `NAME[:PORT]`.
fn stands_for_something(word: &str) -> bool {
    let letters = || word.chars().filter(char::is_ascii_alphabetic);
    word.contains('…') || (letters().count() > 1 && letters().all(|c| c.is_ascii_uppercase()))
}

/// The words of a command line, without quotes, prompt and assignments before it, up to what the
/// shell would take for itself. Nothing if lbd is not what runs.
fn command(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut quote: Option<char> = None;
    let mut word = String::new();
    for c in line.chars().chain([' ']) {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == ' ' && !word.is_empty() => words.push(std::mem::take(&mut word)),
            None if c == ' ' => {}
            None => word.push(c),
        }
    }
    let before = |word: &String| {
        word == "sudo" || word.ends_with('#') || word.ends_with('$') || word.contains('=')
    };
    let start = words.iter().position(|word| !before(word))?;
    let words = words.split_off(start);
    if file_name(words.first()?) != "lbd" || words.len() == 1 {
        return None;
    }
    let ours = |word: &&String| {
        !matches!(
            word.as_str(),
            "|" | "||" | "&&" | ">" | ">>" | "2>" | "#" | "&"
        )
    };
    Some(words.iter().take_while(ours).cloned().collect())
}

/// `drain|ready SERVER [--for TIME]` is two command lines.
fn spelled_out(words: &[String]) -> Vec<Vec<String>> {
    let mut lines = vec![Vec::new()];
    for word in words {
        // An address keeps its brackets.
        let optional = !word.contains("]:");
        let word = word.trim_matches(|c| optional && ['[', ']'].contains(&c));
        let choices: Vec<&str> = word.split('|').collect();
        lines = lines
            .iter()
            .flat_map(|line: &Vec<String>| {
                choices.iter().map(|choice| {
                    let mut line = line.clone();
                    line.push((*choice).to_owned());
                    line
                })
            })
            .collect();
    }
    lines
}

/// Why lbd would not understand the words; `mentioned`: they only name a command.
fn misunderstood(words: &[String], mentioned: bool) -> Option<String> {
    let vague = words.iter().any(|word| stands_for_something(word));
    let words: Vec<OsString> = words
        .iter()
        .filter(|word| word.as_str() != "…")
        .map(OsString::from)
        .collect();
    let error = lbd::cli::understands(words).err()?;
    let kind = error.kind();
    let shows = matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let lacks = kind == ErrorKind::MissingRequiredArgument && (mentioned || vague);
    let value = matches!(kind, ErrorKind::InvalidValue | ErrorKind::ValueValidation);
    if shows || lacks || (value && vague) {
        return None;
    }
    error.to_string().lines().next().map(str::to_owned)
}

/// Every command line of a document: those to be typed, and those that are named in its prose.
fn commands(text: &str) -> Vec<(Vec<String>, bool)> {
    let (blocks, prose) = blocks(text);
    let shell = |block: &&Block| {
        let first = block.words.first().map_or("", String::as_str);
        matches!(first, "" | "sh" | "console")
    };
    let mut commands = Vec::new();
    for block in blocks.iter().filter(shell) {
        let text = block.text.replace("\\\n", " ");
        let parts = text.lines().flat_map(|line| line.split(" && "));
        let parts = parts.flat_map(|part| part.split("; "));
        commands.extend(parts.filter_map(command).map(|words| (words, false)));
    }
    commands.extend(
        spans(&prose)
            .iter()
            .filter_map(|span| command(span))
            .map(|words| (words, true)),
    );
    commands
}

#[test]
fn every_command_that_is_told_is_understood() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut texts = documents();
    texts.push(Document {
        name: "conf/prometheus/alerts.yml".to_owned(),
        text: read("conf/prometheus/alerts.yml"),
    });
    for Document { name, text } in texts {
        for (words, mentioned) in commands(&text) {
            for words in spelled_out(&words) {
                seen += 1;
                let why = misunderstood(&words, mentioned);
                wrong.extend(why.map(|why| format!("{name}: `{}`: {why}", words.join(" "))));
            }
        }
    }
    assert!(seen > 100, "{seen} commands seen");
    none_wrong(&wrong);
}

#[test]
fn a_wrong_command_is_noticed() {
    let wrong = |line: &str| {
        let words = command(line).unwrap();
        misunderstood(&words, false).is_some()
    };
    assert!(wrong("lb1# lbd statuss"));
    assert!(wrong("lbd status --wide 3"));
    assert!(wrong("$ sudo lbd drain        # which server?"));
    assert!(!wrong("lb1# lbd drain api-1  # no new connections"));
    assert!(command("cargo run -- demo").is_none());
    assert!(command("the lbd daemon").is_none());
}

/// A block that is a whole lb.toml, or what one adds to the smallest.
fn refused(text: &str) -> Option<String> {
    let alone = parse(text);
    if alone.config.is_some() {
        return None;
    }
    let added = parse(&format!("{}\n{text}", read("conf/lb.toml")));
    if added.config.is_some() {
        return None;
    }
    let problem = alone.problems.iter().find(|problem| problem.is_error());
    problem.map(|problem| format!("{} {}", problem.code, problem.message))
}

#[test]
fn every_configuration_that_is_shown_is_accepted() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for Document { name, text } in documents() {
        for block in blocks(&text).0 {
            // With a second word it is something else: a mistake on purpose (docs/codes.md has a
            // test of its own), a file of servers.
            if block.words != ["toml"] {
                continue;
            }
            seen += 1;
            let why = refused(&block.text);
            wrong.extend(why.map(|why| format!("{name}:{}: {why}", block.line)));
        }
    }
    assert!(seen > 15, "{seen} blocks seen");
    none_wrong(&wrong);
    assert!(refused("[proxy.kube]\nlisten = 6443\n").is_some());
}

#[test]
fn every_metric_that_is_named_is_served() {
    let served = read("docs/metrics.md") + &read("conf/prometheus/rules.yml");
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
    let served: BTreeSet<&str> = served.split(|c| !is_name(c)).collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for Document { name, text } in documents() {
        for span in spans(&blocks(&text).1) {
            let metric = span.split(['{', ' ', '[']).next().unwrap_or("");
            if !metric.starts_with("lbd_") || !metric.chars().all(is_name) {
                continue;
            }
            seen += 1;
            let family = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| metric.strip_suffix(end));
            if !served.contains(metric) && !family.is_some_and(|name| served.contains(name)) {
                wrong.push(format!("{name}: {metric}"));
            }
        }
    }
    assert!(seen > 30, "{seen} metrics seen");
    none_wrong(&wrong);
}

/// Name, severity and page of each alert, in the order of the file.
fn alerts() -> Vec<(String, String, String)> {
    let text = read("conf/prometheus/alerts.yml");
    let field = |part: &str, key: &str| {
        let mut lines = part.lines();
        let value = lines.find_map(|line| line.trim().strip_prefix(key));
        value.unwrap_or_default().trim().to_owned()
    };
    text.split("- alert:")
        .skip(1)
        .map(|part| {
            let name = part.lines().next().unwrap_or_default().trim().to_owned();
            (name, field(part, "severity:"), field(part, "runbook:"))
        })
        .collect()
}

#[test]
fn every_alert_has_its_page_in_the_handbook_and_every_page_its_alert() {
    let handbook = read("docs/handbook.md");
    let pages: BTreeMap<&str, &str> = handbook
        .split("\n### Lbd")
        .skip(1)
        .filter_map(|page| page.split_once('\n'))
        .collect();
    let alerts = alerts();
    assert!(alerts.len() > 30, "{} alerts seen", alerts.len());
    let mut wrong = Vec::new();
    for (name, severity, runbook) in &alerts {
        if *runbook != format!("docs/handbook.md#{}", anchor(name)) {
            wrong.push(format!("{name}: its runbook is {runbook}"));
        }
        match name.strip_prefix("Lbd").and_then(|name| pages.get(name)) {
            None => wrong.push(format!("{name} has no page")),
            Some(page)
                if !page
                    .trim_start()
                    .to_lowercase()
                    .starts_with(severity.as_str()) =>
            {
                wrong.push(format!("{name}: the page doesn't begin with {severity}"));
            }
            Some(page) if page.split_whitespace().count() < 30 => {
                wrong.push(format!("{name}: the page says next to nothing"));
            }
            Some(_) => {}
        }
    }
    let known: BTreeSet<&str> = alerts
        .iter()
        .filter_map(|(name, ..)| name.strip_prefix("Lbd"))
        .collect();
    wrong.extend(
        pages
            .keys()
            .filter(|page| !known.contains(*page))
            .map(|page| format!("no alert is called Lbd{page}")),
    );
    none_wrong(&wrong);
}

#[test]
fn every_picture_of_the_documents_is_shown_by_one() {
    let shown: BTreeSet<PathBuf> = documents()
        .iter()
        .flat_map(|Document { name, text }| {
            let folder = Path::new(name).parent().unwrap().to_path_buf();
            links(&blocks(text).1)
                .into_iter()
                .map(move |target| folder.join(target))
        })
        .collect();
    for entry in fs::read_dir(Path::new(ROOT).join("docs/images")).unwrap() {
        let path = entry.unwrap().path();
        let path = path.strip_prefix(ROOT).unwrap();
        assert!(shown.contains(path), "nobody shows {}", path.display());
    }
}
