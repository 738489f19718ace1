//! `lbd reload`: has the daemon read its configuration again, and waits until it counts or is
//! refused.

use std::io;
use std::time::Duration;

use clap::Args;

use super::reach::{FAILURE, Reach, complain};
use super::status::Output;
use super::{Exit, out, talk};
use crate::admin::protocol::{self, AskError, Command};
use crate::ipc::command::Outcome;
use crate::ipc::reload::{ChangeKind, ReloadChange, ReloadOrder, ReloadReport, ReloadResult};
use crate::log::escape;
use crate::net::clock;

/// Reading a slow disk, and a new process's first checks.
const PATIENCE: Duration = Duration::from_secs(90);
/// Another process is there after this, or none comes.
const NEXT_WITHIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
The new file is taken whole or not at all: what is wrong with it is printed as
`lbd check` prints it, and the old one goes on. Connections, health, counters,
what operators changed about servers and the state of virtual IPs stay. SIGHUP
does the same without an answer; while an upgrade is under way it waits.

Examples:
  lbd reload             apply the configuration the daemon was started with
  lbd reload --dry-run   only print what would change
  lbd reload -o json     for scripts

Exit codes: 0 it counts, 1 it could not be applied now, 69 no daemon, 77 not
root or the daemon's user, 78 refused.";

/// Arguments of `lbd reload`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReloadArgs {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

/// Orders, waits, prints, and says with which code to exit.
pub(super) fn run(args: &ReloadArgs) -> u8 {
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let order = Command::Reload(ReloadOrder {
        dry_run: args.dry_run,
    });
    let outcome = match order_again(|| protocol::order(&path, order.clone(), PATIENCE)) {
        Ok(outcome) => outcome,
        Err(error) => return complain("lbd reload", &error),
    };
    let report = match outcome {
        Outcome::Reload(report) => *report,
        Outcome::Refused(why) | Outcome::Unknown(why) => {
            talk(&format!("lbd reload: {}", escape(&why)));
            return FAILURE;
        }
        Outcome::Vips(_) | Outcome::Log(_) | Outcome::Upgrading(_) | Outcome::Recorded(_) => {
            talk("lbd reload: the daemon answers another question");
            return FAILURE;
        }
    };
    let text = match args.output {
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
        Output::Table => {
            if !report.diagnostics.is_empty() {
                talk(report.diagnostics.trim_end());
            }
            render(&report)
        }
    };
    if out(&text).is_err() {
        return FAILURE;
    }
    verdict(report.result)
}

/// Whoever was asked may go before it has answered: upgraded, or hung and killed. The next one is asked
/// again: to read the same file twice does no harm.
fn order_again(mut order: impl FnMut() -> Result<Outcome, AskError>) -> Result<Outcome, AskError> {
    let (began, mut lost) = (clock::now(), false);
    loop {
        match order() {
            Err(AskError::Broken { ref source, .. }) if is_loss(source) => lost = true,
            Err(AskError::Unreachable { .. }) if lost => {}
            other => return other,
        }
        if clock::now() - began >= NEXT_WITHIN {
            return order();
        }
        std::thread::sleep(ASK_EVERY);
    }
}

fn is_loss(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
    )
}

fn verdict(result: ReloadResult) -> u8 {
    match result {
        ReloadResult::Applied
        | ReloadResult::Replaced
        | ReloadResult::Unchanged
        | ReloadResult::Planned => 0,
        ReloadResult::Refused => Exit::Config.code(),
        ReloadResult::Failed => FAILURE,
    }
}

/// The changes, a line each, and what came of it.
fn render(report: &ReloadReport) -> String {
    let mut text = String::new();
    for change in &report.changes {
        line(&mut text, change);
    }
    if report.more > 0 {
        text.push_str(&format!("  … and {} more\n", report.more));
    }
    for problem in &report.problems {
        text.push_str(&format!("! {}\n", escape(problem)));
    }
    let file = escape(&report.file);
    let time = format!("{} ms", report.elapsed_ms);
    let none = report.changes.is_empty();
    text.push_str(&match report.result {
        ReloadResult::Applied if none => {
            format!("{file}: applied in {time}, nothing that counts differs\n")
        }
        ReloadResult::Applied => format!("{file}: applied in {time}\n"),
        ReloadResult::Replaced => {
            format!("{file}: applied in {time}, a new proxy process takes over\n")
        }
        ReloadResult::Unchanged => format!("{file}: nothing has changed\n"),
        ReloadResult::Planned if none => {
            format!("{file}: would be applied, nothing that counts differs\n")
        }
        ReloadResult::Planned => format!("{file}: would be applied, nothing was done\n"),
        ReloadResult::Refused => format!("{file}: refused, the old configuration counts\n"),
        ReloadResult::Failed => format!("{file}: not applied, the old configuration counts\n"),
    });
    text
}

fn line(text: &mut String, change: &ReloadChange) {
    let what = escape(&change.what);
    let value = |value: &Option<String>| value.as_deref().map(escape).unwrap_or_default();
    let (from, to) = (value(&change.from), value(&change.to));
    text.push_str(&match change.kind {
        ChangeKind::Added => format!("+ {what}: {to}\n"),
        ChangeKind::Removed => format!("- {what}: {from}\n"),
        ChangeKind::Changed => format!("~ {what}: {from} → {to}\n"),
    });
    if let Some(note) = &change.note {
        text.push_str(&format!("    {}\n", escape(note)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(result: ReloadResult) -> ReloadReport {
        let change = |kind, from: Option<&str>, to: Option<&str>| ReloadChange {
            kind,
            what: "proxy.api.x".into(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            note: None,
        };
        ReloadReport {
            result,
            file: "/etc/lbd/lb.toml".into(),
            changes: vec![
                change(ChangeKind::Added, None, Some("10.0.0.4:1")),
                change(ChangeKind::Changed, Some("1h"), Some("2h")),
                ReloadChange {
                    note: Some("no new connections".into()),
                    ..change(ChangeKind::Removed, Some("10.0.0.5:1"), None)
                },
            ],
            more: 0,
            problems: Vec::new(),
            diagnostics: String::new(),
            elapsed_ms: 12,
        }
    }

    #[test]
    fn every_change_is_a_line_and_the_last_line_says_what_came_of_it() {
        let expected = "\
+ proxy.api.x: 10.0.0.4:1
~ proxy.api.x: 1h → 2h
- proxy.api.x: 10.0.0.5:1
    no new connections
/etc/lbd/lb.toml: applied in 12 ms
";
        assert_eq!(render(&report(ReloadResult::Applied)), expected);
    }

    #[test]
    fn a_process_that_goes_before_it_has_answered_is_followed_by_one_that_is_asked_again() {
        let path = || std::path::PathBuf::from("/run/lbd/admin.sock");
        let broken = || AskError::Broken {
            path: path(),
            source: io::ErrorKind::ConnectionReset.into(),
        };
        let absent = || AskError::Unreachable {
            path: path(),
            source: io::ErrorKind::NotFound.into(),
        };
        let done = || Ok(Outcome::Refused("done".to_owned()));
        let mut answers = vec![done(), Err(absent()), Err(broken())];
        let outcome = order_again(|| answers.pop().unwrap());
        assert!(matches!(outcome, Ok(Outcome::Refused(_))), "{outcome:?}");
        let mut asked = 0;
        let outcome = order_again(|| {
            asked += 1;
            Err(absent())
        });
        assert!(matches!(outcome, Err(AskError::Unreachable { .. })));
        assert_eq!(asked, 1, "where nobody was, nobody is waited for");
    }

    #[test]
    fn a_refused_file_ends_with_78_and_one_that_could_not_be_applied_with_1() {
        let codes = [
            (ReloadResult::Applied, 0),
            (ReloadResult::Replaced, 0),
            (ReloadResult::Unchanged, 0),
            (ReloadResult::Planned, 0),
            (ReloadResult::Refused, 78),
            (ReloadResult::Failed, 1),
        ];
        for (result, code) in codes {
            assert_eq!(verdict(result), code, "{result:?}");
        }
    }
}
