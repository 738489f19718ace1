//! `lbd import`: haproxy.cfg and keepalived.conf as lb.toml, with a report of what became of each
//! directive.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Exit, out, run::read, talk};
use crate::config::{Problem, is_name};
use crate::import::{Fate, Input, Node, Outcome, Source, import, render, render_json};

/// Arguments of `lbd import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArgs {
    /// HAProxy's configuration
    #[arg(long, value_name = "FILE", required_unless_present = "keepalived")]
    haproxy: Option<PathBuf>,
    /// keepalived's configuration; once for each node
    #[arg(long, value_name = "FILE")]
    keepalived: Vec<PathBuf>,
    /// The nodes' addresses, in the order of the --keepalived, where their files don't say
    #[arg(long, value_name = "[NAME=]ADDRESS,…", value_delimiter = ',', value_parser = node, requires = "keepalived")]
    nodes: Vec<Node>,
    /// Write lb.toml there instead of to stdout
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Overwrite that file
    #[arg(long, requires = "write")]
    force: bool,
    /// Write lb.toml although something is not translated
    #[arg(long)]
    allow_loss: bool,
    /// Report every directive, not only those that are not translated or changed
    #[arg(long)]
    all: bool,
    /// How the report looks: for people on stderr, or everything as one JSON document on stdout
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

const EXAMPLES: &str = "\
lb.toml goes to stdout, each line with its origin; the report to stderr. If something is not
translated or a template's placeholder is left, nothing is written and the exit code is 78.

Examples:
  lbd import --haproxy haproxy.cfg --keepalived lb1.conf --keepalived lb2.conf > lb.toml
  lbd import --haproxy haproxy.cfg                       a proxy without a virtual address
  lbd import --keepalived a.conf --keepalived b.conf --nodes lb1=10.0.0.2,lb2=10.0.0.3
  lbd import --haproxy haproxy.cfg --allow-loss --write /etc/lbd/lb.toml
  lbd import --haproxy haproxy.cfg -o json | jq '.directives[] | select(.fate == \"changed\")'";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs; the format is stable
    Json,
}

/// `NAME=ADDRESS`, or an address alone.
fn node(text: &str) -> Result<Node, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (Some(name), address),
        None => (None, text),
    };
    if let Some(name) = name
        && !is_name(name)
    {
        return Err(format!(
            "`{name}` is no name: use letters, digits, `-`, `_` and `.`"
        ));
    }
    let address = address
        .parse()
        .map_err(|_invalid| format!("`{address}` is no IP address"))?;
    Ok(Node {
        name: name.map(str::to_owned),
        address: Some(address),
    })
}

/// Translates: 0 when nothing is lost, 78 when something would be, 1 when it can't be written.
pub(super) fn run(arguments: &ImportArgs) -> Exit {
    match translate(arguments) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn translate(arguments: &ImportArgs) -> Result<Exit, Exit> {
    if arguments.nodes.len() > arguments.keepalived.len() {
        talk(
            "error: more --nodes than --keepalived: give each node's file, the same one twice if need be",
        );
        return Err(Exit::Usage);
    }
    let texts: Vec<(String, String)> = arguments
        .haproxy
        .iter()
        .chain(&arguments.keepalived)
        .map(|path| load(path))
        .collect::<Result<_, _>>()?;
    let mut sources = texts.iter().map(|(name, text)| Source { name, text });
    let haproxy = arguments.haproxy.as_ref().and_then(|_| sources.next());
    let outcome = import(&Input {
        haproxy,
        keepalived: sources.collect(),
        nodes: arguments.nodes.clone(),
    });
    let exit = verdict(&outcome, arguments.allow_loss);
    let written = exit == Exit::Success;
    if written && let Some(path) = &arguments.write {
        store(path, &outcome.text, arguments.force)?;
    }
    let printed = match arguments.output {
        Output::Json => out(&render_json(&outcome, written)),
        Output::Text => {
            talk(render(&outcome, arguments.all).trim_end());
            explain(&outcome, arguments);
            if written && arguments.write.is_none() {
                out(&outcome.text)
            } else {
                Ok(())
            }
        }
    };
    printed.map_err(|_closed| Exit::Failure)?;
    Ok(exit)
}

fn load(path: &Path) -> Result<(String, String), Exit> {
    match read(path) {
        Ok(text) => Ok((path.to_string_lossy().into_owned(), text)),
        Err((why, exit)) => {
            talk(&format!("error: {why}"));
            Err(exit)
        }
    }
}

fn verdict(outcome: &Outcome, allow_loss: bool) -> Exit {
    let complete = outcome.needs.is_empty() && outcome.count(Fate::Lost) == 0;
    if outcome.accepted && (complete || allow_loss) {
        Exit::Success
    } else {
        Exit::Config
    }
}

/// Says how it ended, and what to do next.
fn explain(outcome: &Outcome, arguments: &ImportArgs) {
    if !outcome.accepted {
        let errors = outcome.problems.iter().filter(|problem| problem.is_error());
        for problem in errors.take(10) {
            talk(&format!("error[{}]: {}", problem.code, problem.message));
            if let Some(origin) = origin(&outcome.text, problem) {
                talk(&format!("  from {origin}"));
            }
            for help in &problem.help {
                talk(&format!("  help: {help}"));
            }
        }
        talk("nothing is written: what can be translated is no configuration yet");
    } else if verdict(outcome, arguments.allow_loss) == Exit::Success {
        let place = arguments
            .write
            .as_deref()
            .map_or("lb.toml".into(), Path::to_string_lossy);
        talk(&format!(
            "next: `lbd check --offline {place}` explains its warnings; docs/migration.md has the way there"
        ));
    } else {
        talk("nothing is written: --allow-loss writes lb.toml without what is not translated");
    }
}

/// The lines of the old files from which that line of lb.toml comes.
fn origin<'a>(text: &'a str, problem: &Problem) -> Option<&'a str> {
    let label = problem.labels.iter().find(|label| label.primary)?;
    let (before, behind) = (text.get(..label.span.start)?, text.get(label.span.start..)?);
    let line = behind.lines().next()?;
    let whole = before.rsplit('\n').next().map_or(0, str::len) + line.len();
    let start = label.span.start + line.len() - whole;
    let line = text.get(start..start + whole)?;
    line.rsplit_once("  # ").map(|(_, origin)| origin)
}

/// Writes the file, by a rename; over another one only if told to.
fn store(path: &Path, text: &str, force: bool) -> Result<(), Exit> {
    let failed = |error: &io::Error| {
        talk(&format!("error: cannot write {}: {error}", path.display()));
        if error.kind() == io::ErrorKind::AlreadyExists {
            talk("help: --force overwrites it");
        }
        if error.kind() == io::ErrorKind::PermissionDenied {
            Exit::Permission
        } else {
            Exit::Failure
        }
    };
    if !force {
        let created = OpenOptions::new().write(true).create_new(true).open(path);
        let written = created.and_then(|mut file| file.write_all(text.as_bytes()));
        return written.map_err(|error| failed(&error));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_an_address_with_or_without_a_name() {
        let named = node("lb1=10.0.0.2").unwrap();
        assert_eq!(named.name.as_deref(), Some("lb1"));
        assert_eq!(node("fd00::2").unwrap().address, "fd00::2".parse().ok());
        assert!(node("lb1").is_err());
        assert!(node("a b=10.0.0.2").is_err());
    }
}
