//! What was found, as values, and how it is told to people and to programs. Pure.

use serde::Serialize;

/// How wide the text is: it fits a terminal of 80 columns.
const COLUMNS: usize = 79;
/// Where the text of a finding begins.
const INDENT: usize = 13;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// It works, or will; a second look is due.
    Warning,
    /// It doesn't work, or won't.
    Failed,
    /// It could not be looked at; the finding says why.
    NotChecked,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Which check: a constant word.
    pub(super) check: &'static str,
    /// What it is about: a file, a VIP, a server.
    pub(super) subject: String,
    /// How it ended.
    pub(super) state: State,
    /// What was found; why nothing was looked at.
    pub(super) found: String,
    /// What it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, subject: &str, state: State, found: String) -> Self {
        Self {
            check,
            subject: subject.to_owned(),
            state,
            found,
            cause: None,
            remedy: None,
        }
    }

    /// All is well.
    pub(super) fn ok(check: &'static str, subject: &str, found: impl Into<String>) -> Self {
        Self::new(check, subject, State::Ok, found.into())
    }

    /// A second look is due.
    pub(super) fn warning(check: &'static str, subject: &str, found: impl Into<String>) -> Self {
        Self::new(check, subject, State::Warning, found.into())
    }

    /// It doesn't work.
    pub(super) fn failed(check: &'static str, subject: &str, found: impl Into<String>) -> Self {
        Self::new(check, subject, State::Failed, found.into())
    }

    /// It was not looked at.
    pub(super) fn not_checked(check: &'static str, subject: &str, why: impl Into<String>) -> Self {
        Self::new(check, subject, State::NotChecked, why.into())
    }

    /// Says what it comes from.
    pub(super) fn cause(mut self, text: impl Into<String>) -> Self {
        self.cause = Some(text.into());
        self
    }

    /// Says what helps.
    pub(super) fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}

/// The whole for programs; `v` counts up when a field changes its meaning.
#[derive(Debug, Serialize)]
struct Document<'a> {
    v: u32,
    ok: bool,
    checks: &'a [Finding],
}

/// Whether nothing failed.
pub(super) fn is_well(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.state != State::Failed)
}

/// For programs.
pub(super) fn json(findings: &[Finding]) -> String {
    let document = Document {
        v: 1,
        ok: is_well(findings),
        checks: findings,
    };
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

/// For people: a line each, with cause and remedy where something is off, and the sum.
pub(super) fn text(findings: &[Finding], color: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        append(&mut text, finding, color);
    }
    let count = |state| {
        findings
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    };
    text.push_str(&format!(
        "\n{} ok, {} to look at, {} failed, {} not checked\n",
        count(State::Ok),
        count(State::Warning),
        count(State::Failed),
        count(State::NotChecked),
    ));
    text
}

fn append(text: &mut String, finding: &Finding, color: bool) {
    let (word, paint) = match finding.state {
        State::Ok => ("ok", "\u{1b}[32m"),
        State::Warning => ("warning", "\u{1b}[33m"),
        State::Failed => ("FAILED", "\u{1b}[1;31m"),
        State::NotChecked => ("not checked", "\u{1b}[2m"),
    };
    let shown = if color {
        format!("{paint}{word:<11}\u{1b}[0m")
    } else {
        format!("{word:<11}")
    };
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!(" {subject}"),
    };
    let head = format!("{}{subject}: {}", finding.check, finding.found);
    text.push_str(&shown);
    text.push_str("  ");
    wrap(text, &head);
    for (name, part) in [("cause", &finding.cause), ("remedy", &finding.remedy)] {
        if let Some(part) = part {
            text.push_str(&" ".repeat(INDENT));
            wrap(text, &format!("{name}: {part}"));
        }
    }
}

/// Appends words, broken into lines that begin at [`INDENT`]. What others said is escaped.
fn wrap(text: &mut String, words: &str) {
    let mut column = INDENT;
    for (number, word) in words.split_whitespace().enumerate() {
        let word = crate::log::escape(word);
        let width = word.chars().count();
        if number > 0 && column + 1 + width > COLUMNS {
            text.push('\n');
            text.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else if number > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(&word);
        column += width;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("config", "lb.toml", "accepted"),
            Finding::failed("port", ":6443", "held by haproxy (pid 812)")
                .cause("lbd can't listen beside another process that has the port for itself")
                .remedy("stop it"),
            Finding::not_checked("arp", "kube", "needs CAP_NET_RAW"),
        ]
    }

    #[test]
    fn people_read_a_line_each_within_80_columns() {
        let expected = "\
ok           config lb.toml: accepted
FAILED       port :6443: held by haproxy (pid 812)
             cause: lbd can't listen beside another process that has the port
             for itself
             remedy: stop it
not checked  arp kube: needs CAP_NET_RAW

1 ok, 0 to look at, 1 failed, 1 not checked
";
        assert_eq!(text(&findings(), false), expected);
        assert!(text(&findings(), true).starts_with("\u{1b}[32mok "));
    }

    #[test]
    fn a_line_is_filled_to_its_79th_column_and_no_further() {
        let lines = |last: usize| {
            let words = format!("{} {}", "x".repeat(40), "y".repeat(last));
            let mut text = String::new();
            wrap(&mut text, &words);
            text.lines().count()
        };
        // 13 columns are before it.
        assert_eq!((lines(25), lines(26)), (1, 2));
    }

    #[test]
    fn what_failed_decides_and_programs_get_every_field() {
        assert!(!is_well(&findings()));
        assert!(is_well(&[Finding::warning("a", "b", "c")]));
        let json: serde_json::Value = serde_json::from_str(&json(&findings())).unwrap();
        assert_eq!(json["v"], 1);
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][1]["state"], "failed");
        assert_eq!(json["checks"][1]["remedy"], "stop it");
        assert_eq!(json["checks"][2]["state"], "not-checked");
    }

    #[test]
    fn what_strangers_say_cannot_write_to_the_terminal() {
        let finding = Finding::failed("server", "a", "said \u{1b}]0;title\u{7}");
        assert!(!text(&[finding], false).contains('\u{1b}'));
    }
}
