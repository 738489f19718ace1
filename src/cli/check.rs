//! `lbd check`: says whether a configuration is accepted, and every mistake in it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use super::{Exit, color, out, run::read, talk};
use crate::config::local::HostFacts;
use crate::config::model::Config;
use crate::config::{Host, Parsed, Problem, View, examine, render, render_json};
use crate::health::files;
use crate::net::{netlink, program, tcp};
use crate::peer::task::keyfile;

const EXAMPLES: &str = "\
Every mistake is said at once, with its place and, where there is one, the change that mends it;
`lbd explain CODE` says more. `lbd -t` and `lbd -c -f FILE` mean the same.

Examples:
  lbd check                    /etc/lbd/lb.toml, as this machine
  lbd check lb.toml --as lb2   as another node of it
  lbd check lb.toml --offline  anywhere: in CI, on a laptop
  lbd check --strict -o json   for programs; warnings refuse it too

Exit codes: 0 accepted, with or without warnings; 77 not readable; 78 refused.";

/// What to check, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// The file [default: /etc/lbd/lb.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same, as HAProxy's users type it
    #[arg(
        short = 'f',
        long = "config",
        value_name = "FILE",
        hide = true,
        conflicts_with = "file"
    )]
    config: Option<PathBuf>,
    /// Check for another node, by name or address, without looking at this machine
    #[arg(long = "as", value_name = "NODE")]
    node: Option<String>,
    /// Don't look at this machine
    #[arg(long)]
    offline: bool,
    /// Refuse warnings too
    #[arg(long)]
    strict: bool,
    /// For people or for machines
    #[arg(short = 'o', long = "output", alias = "format", value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[value(alias = "table")]
    Text,
    /// For programs; the format is stable
    Json,
}

/// Checks a file: 0 if it is accepted, 78 if it is refused.
pub(super) fn run(arguments: &CheckArgs) -> ExitCode {
    let named = arguments.file.as_ref().or(arguments.config.as_ref());
    let path = named.map_or(Path::new(super::CONFIG_PATH), PathBuf::as_path);
    let text = match read(path) {
        Ok(text) => text,
        Err((why, exit)) => return unreadable(path, &why, exit, arguments.format),
    };
    let parsed = match look(arguments, &text) {
        Ok(parsed) => parsed,
        Err(error) => {
            talk(&format!(
                "error: cannot list this machine's addresses: {error}"
            ));
            return Exit::Failure.into();
        }
    };
    let shown = path.to_string_lossy();
    let report = match arguments.format {
        Format::Json => render_json(&parsed.problems, &shown, &text) + "\n",
        Format::Text => {
            let problems = render(&parsed.problems, &shown, &text, color(&io::stdout()));
            let verdict = verdict(&parsed.problems, arguments.strict);
            if let Some(note) = parsed.config.as_ref().and_then(note) {
                talk(note);
            }
            format!("{problems}{shown}: {verdict}\n")
        }
    };
    if out(&report).is_err() {
        return Exit::Failure.into();
    }
    let strict = arguments.strict && !parsed.problems.is_empty();
    if parsed.config.is_none() || strict {
        return Exit::Config.into();
    }
    Exit::Success.into()
}

/// There is no text to check: said where the format's readers look.
fn unreadable(path: &Path, why: &str, exit: Exit, format: Format) -> ExitCode {
    let problem = [Problem::error("E0004", why)];
    let said = match format {
        Format::Text => {
            talk(&format!("error: {why}"));
            Ok(())
        }
        Format::Json => out(&(render_json(&problem, &path.to_string_lossy(), "") + "\n")),
    };
    match said {
        Ok(()) => exit.into(),
        Err(_) => Exit::Failure.into(),
    }
}

fn look(arguments: &CheckArgs, text: &str) -> io::Result<Parsed> {
    if let Some(node) = &arguments.node {
        return Ok(examine(text, View::Node(node)));
    }
    if arguments.offline {
        return Ok(examine(text, View::Anywhere));
    }
    let facts = netlink::host_facts()?;
    Ok(here(text, &facts, None))
}

/// As this machine, which is `node` where its addresses don't tell.
pub(super) fn here(text: &str, facts: &HostFacts, node: Option<&str>) -> Parsed {
    let host = Host {
        facts,
        file_exists: &|path| path.exists(),
        key_problem: &|path| keyfile::read(path).err().map(|error| error.to_string()),
        check_flaws: &files::flaws,
        trouble: &|path, user| program::prepare(path, user).err(),
        port_held: &tcp::is_held,
        node,
    };
    examine(text, View::Here(host))
}

/// What is off, though nothing is wrong with that.
fn note(config: &Config) -> Option<&'static str> {
    let pair = config.vips.iter().any(|vip| vip.nodes.len() > 1);
    (pair && config.peer.is_none()).then_some(
        "note[N0271]: no `[peer]` key file: one-way loss is not noticed, and idle clients of a node \
         that dies are not woken; see docs/peer.md",
    )
}

fn verdict(problems: &[Problem], strict: bool) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = problems.len() - errors;
    let count = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    match (errors, warnings) {
        (0, 0) => "accepted".to_owned(),
        (0, n) if strict => format!("refused for {} (--strict)", count(n, "warning")),
        (0, n) => format!("accepted with {}", count(n, "warning")),
        (n, 0) => format!("refused for {}", count(n, "error")),
        (n, m) => format!("refused for {}; {}", count(n, "error"), count(m, "warning")),
    }
}
