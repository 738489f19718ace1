//! Words that other places define: metrics by docs/metrics.md, keys by the table of lb.toml, kinds of
//! events, exit codes.

use super::Page;
use crate::config::docs;
use crate::config::schema::{self, Key, SECTIONS, Section, Support};
use crate::ipc::event::EventKind;

/// The reference of metrics; a test of the metrics compares it with the code.
const METRICS: &str = include_str!("../../../docs/metrics.md");

/// The page of a metric, also by one of its series.
pub(super) fn metric(word: &str) -> Option<Page> {
    let plain = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| word.strip_suffix(end));
    let named = |name: &str| rows().find(|row| row.name == name);
    let row = named(word).or_else(|| named(plain?))?;
    let mut text = row.meaning.replace("\\|", "|");
    if !row.labels.is_empty() {
        text.push_str(&format!("\n\nLabels: {}.", row.labels));
    }
    Some(Page {
        topic: row.name.to_owned(),
        kind: "metric",
        title: format!("a {} of /metrics", row.kind),
        text,
        wrong: None,
        right: None,
    })
}

/// The names of all metrics.
pub(super) fn metrics() -> Vec<&'static str> {
    rows().map(|row| row.name).collect()
}

/// One line of a table of docs/metrics.md.
struct Row {
    name: &'static str,
    kind: &'static str,
    labels: &'static str,
    meaning: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    METRICS.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.splitn(5, " | ");
        let name = cells.next()?.strip_suffix('`')?;
        let (kind, labels) = (cells.next()?, cells.next()?);
        Some(Row {
            name,
            kind,
            labels: labels.trim(),
            meaning: cells.next()?.trim_end_matches('|').trim(),
        })
    })
}

/// The pages of a key of lb.toml: `idle-timeout`, `proxy.idle-timeout`, `vip.kube.preempt`, or by
/// another program's name.
pub(super) fn keys(word: &str) -> Vec<Page> {
    let (place, name) = word.rsplit_once('.').unwrap_or(("", word));
    let mut pages: Vec<Page> = SECTIONS
        .iter()
        .filter(|section| place.is_empty() || is_at(section, place))
        .filter_map(|section| Some((section, section.key_called(name)?)))
        .map(|(section, key)| key_page(section, key))
        .collect();
    if let (true, Some(remark)) = (pages.is_empty() && place.is_empty(), remark(name)) {
        pages.push(remark);
    }
    pages
}

/// The names of all keys.
pub(super) fn key_names() -> impl Iterator<Item = &'static str> {
    let keys = SECTIONS.iter().flat_map(|section| section.keys.iter());
    keys.map(|key| key.name)
}

/// Whether `place`, as users write it, is that section: `proxy`, `proxy.kube`, `[proxy.NAME]`.
fn is_at(section: &Section, place: &str) -> bool {
    let words: Vec<&str> = place.trim_matches(['[', ']']).split('.').collect();
    let of_table: Vec<&str> = section.path.split('.').collect();
    let fixed: Vec<&str> = of_table
        .iter()
        .copied()
        .filter(|word| *word != "NAME")
        .collect();
    let same = |(word, of_table): (&&str, &&str)| *of_table == "NAME" || word == of_table;
    words == fixed || (words.len() == of_table.len() && words.iter().zip(&of_table).all(same))
}

fn key_page(section: &Section, key: &Key) -> Page {
    let place = match section.path {
        "" => "the top of lb.toml".to_owned(),
        path => format!("[{path}]"),
    };
    let mut text = format!(
        "{}\n\nValues: {}\nDefault: {}",
        key.doc,
        docs::values(key.kind),
        docs::default(key)
    );
    if !key.aliases.is_empty() {
        text.push_str(&format!("\nKnown elsewhere as: {}", key.aliases.join(", ")));
    }
    if key.support == Support::Later {
        text.push_str("\nThis release doesn't support it yet, and refuses it.");
    }
    Page {
        topic: format!("{place} {}", key.name),
        kind: "key",
        title: "a key of lb.toml".to_owned(),
        text: text.replace('`', ""),
        wrong: None,
        right: None,
    }
}

/// A word of another program that takes more than a new name.
fn remark(word: &str) -> Option<Page> {
    let (section, alias, text) = schema::REMARKS
        .iter()
        .find(|(_, alias, _)| *alias == word)?;
    let place = match *section {
        "" => "the top of lb.toml".to_owned(),
        path => format!("[{path}]"),
    };
    Some(Page {
        topic: (*alias).to_owned(),
        kind: "key",
        title: format!("another program's word; in {place}:"),
        text: (*text).to_owned(),
        wrong: None,
        right: None,
    })
}

/// The page of a kind of event.
pub(super) fn event(word: &str) -> Option<Page> {
    let kind: EventKind = serde_json::from_value(serde_json::Value::from(word)).ok()?;
    let text = event_text(kind);
    Some(Page {
        topic: kind.name().to_owned(),
        kind: "event",
        title: "a kind of event, see `lbd events`".to_owned(),
        text: text.to_owned(),
        wrong: None,
        right: None,
    })
}

const fn event_text(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Keeper => {
            "The keeper, lbd's privileged process, began or is about to end. One that nobody ordered is a crash or a\nwatchdog: see the log before it, and `systemctl status lbd`."
        }
        EventKind::State => {
            "A virtual router changed its state; the reason says why. `leaving` is a hand-off: the address goes on being\nserved until another node has taken over."
        }
        EventKind::Conflict => {
            "Another host answers by ARP for an address that this node holds. It has been configured by hand somewhere, or\nanother cluster uses it: the reason names the hardware address. `lbd doctor` looks for it too."
        }
        EventKind::Failover => "A failover by command has ended; the reason says how.",
        EventKind::Peer => {
            "Another node says that it doesn't hear this one's adverts, or hears them again. While one way is lost, the\nnode that is unheard yields. Look for a firewall that drops IP protocol 112 in one direction."
        }
        EventKind::Track => {
            "Something that a VIP tracks changed its verdict: a proxy, a script, a file or an interface. Without a weight a\nfailure hands the address over."
        }
        EventKind::Proxy => {
            "A proxy process started, hung, recovered or ended. While there is none, new connections wait in the kernel's\nbacklog; if that lasts, the address is handed over."
        }
        EventKind::Server => {
            "An operator changed a server: drain, ready, maint, weight, added or removed."
        }
        EventKind::Runner => {
            "The process that starts track and notify programs ended, and was started again."
        }
        EventKind::Notify => {
            "A notify program failed or took too long: whom it tells has not been told. Its output is in the log."
        }
        EventKind::Reload => {
            "Another configuration counts from here on, or was refused: then the old one goes on. `lbd reload` prints why."
        }
        EventKind::Health => {
            "A server's check changed its verdict. Down, it gets no new connections; the reason says what the check met:\nask the server the same thing by hand."
        }
        EventKind::Ejection => {
            "A server was held back for what clients met on it although its checks pass, or is used again. Look for what\nits checks don't see: a firewall, a full backlog, a port that only sometimes answers."
        }
        EventKind::Limit => {
            "A limit of the configuration or a resource of the machine was reached, or is left again; `key` names it. One\nevent at the beginning and one at the end, however many clients met it. `lbd status` shows how much is used."
        }
        EventKind::Discovery => {
            "Servers were discovered or no longer, or a source of servers failed. Known servers stay while it fails."
        }
        EventKind::Log => {
            "The log level was changed by `lbd log`, or its time was over, or lines of a log were lost because its reader is\nslow."
        }
    }
}

/// The page of an exit code.
pub(super) fn exit(word: &str) -> Option<Page> {
    let (title, text) = match word {
        "0" => (
            "success",
            "All is well; of `lbd check`: accepted, with or without warnings.",
        ),
        "1" => (
            "a failure at run time",
            "What was ordered did not happen, or `--check` found something wrong. The reason is on stderr.",
        ),
        "2" => (
            "wrong usage",
            "The command line makes no sense, or names something that isn't there.",
        ),
        "69" => (
            "the daemon is not reachable",
            "Nobody answers at the admin socket: lbd doesn't run, or is stuck, or uses another place (`--socket`,\n`--config`). See `systemctl status lbd` and `lbd doctor`.",
        ),
        "77" => (
            "no permission",
            "The file or the socket is not for this user. Questions take root, lbd's user or its group; orders take root or\nlbd's user.",
        ),
        "78" => (
            "the configuration is refused",
            "`lbd check` says every mistake in it. systemd doesn't restart a daemon that ends so; one that runs goes on with\nthe configuration it has.",
        ),
        _ => return None,
    };
    Some(Page {
        topic: word.to_owned(),
        kind: "exit",
        title: format!("exit code: {title}"),
        text: text.to_owned(),
        wrong: None,
        right: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_reference_has_a_page() {
        let names = metrics();
        assert!(names.len() > 80, "{}", names.len());
        for name in names {
            assert!(
                metric(name).is_some_and(|page| !page.text.is_empty()),
                "{name}"
            );
        }
    }

    #[test]
    fn every_key_of_every_table_has_a_page() {
        for section in SECTIONS {
            for key in section.keys {
                let topic = key_page(section, key).topic;
                let place = section.path.replace("NAME", "kube");
                let word = if place.is_empty() {
                    key.name.to_owned()
                } else {
                    format!("{place}.{}", key.name)
                };
                let found = keys(&word).into_iter().any(|page| page.topic == topic);
                assert!(found, "{word}");
            }
        }
        assert!(keys("nopreempt")[0].text.contains("preempt = false"));
    }
}
