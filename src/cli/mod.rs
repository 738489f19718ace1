//! The command line: the only component that prints. Results go to stdout, talk to stderr.
//!
//! One file per subcommand, each with a `run(arguments) -> ExitCode`; this file holds the grammar
//! and the exit codes. `lbd --config FILE` runs the daemon; `-t` and `-c -f FILE`, which users of
//! keepalived and HAProxy type, mean `check`.

mod check;
mod completions;
pub mod demo;
mod doctor;
mod events;
mod explain;
mod failover;
mod import;
mod init;
mod log;
mod man;
mod manifest;
mod processes;
mod reach;
mod record;
mod reload;
mod replay;
mod run;
mod schema;
mod servers;
pub mod status;
#[cfg(feature = "top")]
mod top;
mod upgrade;
mod version;
mod watch;
mod who;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The configuration that is read when none is named.
const CONFIG_PATH: &str = "/etc/lbd/lb.toml";

const EXAMPLES: &str = "\
Examples:
  lbd init --vip 172.16.0.10/24 --nodes 172.16.0.2,172.16.0.3 --backends 172.16.0.4,172.16.0.5
  lbd check                    every mistake of /etc/lbd/lb.toml
  lbd doctor                   what on this machine or its network would go wrong
  lbd --config lb.toml         run the daemon in the foreground
  lbd status                   what this node is doing, and what is wrong
  lbd explain W0208            what a code, key, metric or exit code means

Exit codes: 0 done, 1 failed or something is wrong, 2 usage, 69 no daemon answers, 77 no permission,
78 the configuration is refused.";

/// How lbd ends, sysexits style; systemd knows 77 and 78 by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Success,
    /// A failure at run time.
    Failure,
    /// The command line makes no sense.
    Usage,
    /// The daemon can't be reached.
    Unreachable,
    /// No permission.
    Permission,
    /// The configuration is refused.
    Config,
}

impl Exit {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Unreachable => 69,
            Self::Permission => 77,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A TCP load balancer with a virtual IP.
#[derive(Debug, Parser)]
#[command(name = "lbd", version, long_version = version::long())]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
#[command(arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    run: run::RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    // A configuration.
    /// Print a first lb.toml from a few addresses
    Init(init::InitArgs),
    /// Make lb.toml of haproxy.cfg and keepalived.conf
    Import(import::ImportArgs),
    /// Say whether a configuration is accepted, and every mistake in it
    Check(check::CheckArgs),
    /// Say what a code, a key, a metric or an exit code means
    Explain(explain::ExplainArgs),
    /// Look for what on this machine or its network would go wrong
    Doctor(doctor::DoctorArgs),
    /// Show a pair on this machine: it starts, loses its active node and heals
    Demo(demo::DemoArgs),
    // What a node does.
    /// Say what this node is doing
    Status(status::StatusArgs),
    /// Watch this node and its peer live, and give orders
    #[cfg(feature = "top")]
    Top(top::TopArgs),
    /// Say what happened on this node, and why
    Events(events::EventsArgs),
    /// Say which client stands behind a server's connection
    Who(who::WhoArgs),
    /// Log more or less for a while, without a restart
    Log(log::LogArgs),
    /// Write down what the state machines were told of late
    Record(record::RecordArgs),
    /// Play a recording back through the same state machines
    Replay(replay::ReplayArgs),
    // Orders.
    /// Hand a VIP over to another node
    Failover(failover::FailoverArgs),
    /// Give a server no new connections; those it has go on
    Drain(servers::StateArgs),
    /// Put a server into service again
    Ready(servers::StateArgs),
    /// Take a server out of service, and probe it no more
    Maint(servers::StateArgs),
    /// Give a server another share of new connections
    Weight(servers::WeightArgs),
    /// Add or remove a server
    Server(servers::ServerArgs),
    /// Have the daemon read its configuration again
    Reload(reload::ReloadArgs),
    /// Change to the program on disk without losing a connection
    Upgrade(upgrade::UpgradeArgs),
    // What is generated.
    /// Print what a shell needs to complete lbd's words
    Completions(completions::CompletionsArgs),
    /// Print the manual, or write all its pages
    Man(man::ManArgs),
    /// Print lbd as a static pod, or the recipe of its image
    Manifest(manifest::ManifestArgs),
    /// Print the JSON Schema of lb.toml, for editors
    Schema(schema::SchemaArgs),
    // What lbd starts itself.
    /// The process that starts programs for the keeper
    #[command(hide = true)]
    Runner(processes::RunnerArguments),
    /// The process that serves connections
    #[command(hide = true)]
    Proxy(processes::ProxyArguments),
}

/// Does what the arguments say; the first is the program's name.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(familiar(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
            return match error.print() {
                Ok(()) => exit.into(),
                Err(_) => Exit::Failure.into(),
            };
        }
    };
    match arguments.command {
        None => run::run(arguments.run),
        Some(Command::Check(arguments)) => check::run(&arguments),
        Some(Command::Completions(arguments)) => {
            completions::run(&arguments, &Arguments::command()).into()
        }
        Some(Command::Demo(arguments)) => demo::run(&arguments),
        Some(Command::Doctor(arguments)) => doctor::run(&arguments).into(),
        Some(Command::Events(arguments)) => events::run(&arguments).into(),
        Some(Command::Explain(arguments)) => explain::run(&arguments).into(),
        Some(Command::Failover(arguments)) => failover::run(&arguments).into(),
        Some(Command::Log(arguments)) => log::run(&arguments).into(),
        Some(Command::Import(arguments)) => import::run(&arguments).into(),
        Some(Command::Init(arguments)) => init::run(&arguments).into(),
        Some(Command::Man(arguments)) => man::run(&arguments, &Arguments::command()).into(),
        Some(Command::Manifest(arguments)) => manifest::run(&arguments).into(),
        Some(Command::Schema(arguments)) => schema::run(&arguments).into(),
        Some(Command::Drain(arguments)) => servers::drain(&arguments).into(),
        Some(Command::Ready(arguments)) => servers::ready(&arguments).into(),
        Some(Command::Maint(arguments)) => servers::maint(&arguments).into(),
        Some(Command::Who(arguments)) => who::run(&arguments).into(),
        Some(Command::Weight(arguments)) => servers::set_weight(&arguments).into(),
        Some(Command::Server(arguments)) => servers::server(&arguments).into(),
        Some(Command::Record(arguments)) => record::run(&arguments).into(),
        Some(Command::Replay(arguments)) => replay::run(&arguments).into(),
        Some(Command::Reload(arguments)) => reload::run(&arguments).into(),
        Some(Command::Status(arguments)) => status::run(&arguments).into(),
        #[cfg(feature = "top")]
        Some(Command::Top(arguments)) => top::run(&arguments).into(),
        Some(Command::Upgrade(arguments)) => upgrade::run(&arguments).into(),
        Some(Command::Runner(arguments)) => processes::runner(arguments),
        Some(Command::Proxy(arguments)) => processes::proxy(arguments),
    }
}

/// Whether lbd understands a command line; nothing is done. What the documents tell users to type
/// is held against this.
///
/// # Errors
/// What is wrong with it.
pub fn understands(arguments: Vec<OsString>) -> Result<(), clap::Error> {
    Arguments::try_parse_from(familiar(arguments)).map(|_| ())
}

/// `-t` and `-c` at the front become `check`.
fn familiar(arguments: Vec<OsString>) -> Vec<OsString> {
    let is_check = |argument: &OsString| argument == "-t" || argument == "-c";
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    let options_only = first.is_some_and(|first| first.starts_with('-'));
    let Some(at) = arguments
        .iter()
        .skip(1)
        .position(is_check)
        .filter(|_| options_only)
    else {
        return arguments;
    };
    let mut rewritten = arguments;
    rewritten.remove(at + 1);
    rewritten.insert(1, "check".into());
    rewritten
}

/// Prints a result.
fn out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Talks to the user. Where nobody can hear, nothing is said.
fn talk(text: &str) {
    if writeln!(io::stderr().lock(), "{text}").is_err() {
        tracing::debug!("stderr is closed");
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Whether `stream` wants colours.
fn color(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words: Vec<String> = familiar(words)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_grammar_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_habits_of_haproxy_and_keepalived_mean_check() {
        assert_eq!(rewritten("lbd -t"), "lbd check");
        assert_eq!(rewritten("lbd -c -f lb.toml"), "lbd check -f lb.toml");
        assert_eq!(rewritten("lbd -f lb.toml -c"), "lbd check -f lb.toml");
        assert_eq!(rewritten("lbd --config lb.toml"), "lbd --config lb.toml");
        assert_eq!(rewritten("lbd check -t"), "lbd check -t");
    }
}
