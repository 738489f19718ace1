//! `lbd demo`: the pair on one machine, killed and healed before the user's eyes.
//!
//! `plan` draws the laboratory from a configuration, `lab` builds it (namespaces, servers, nodes,
//! a watcher of the VIP), `client` goes through the VIP, `tally` and `history` answer what the
//! client and the watcher saw, `play` is the plot on its `stage`, `show` the
//! screen. Nothing here knows how lbd
//! works inside: the nodes are the program itself, started as an operator starts it.

pub mod ask;
pub mod certificate;
pub mod client;
pub mod history;
pub mod lab;
pub mod plan;
pub mod play;
pub mod server;
pub mod show;
pub mod stage;
pub mod tally;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::config;
use crate::net::netns::Namespace;
use crate::net::netns::sandbox::{self, Inside, Sandbox};
use lab::Lab;
use plan::Plan;
use show::Screen;
use stage::{Ended, Stage};

/// The users' pair.
const PAIR: &str = include_str!("pair.toml");
/// Lines of a node's log that are shown when something went wrong.
const LOG_LINES: usize = 15;
/// The exit code for a refused configuration (sysexits.h, `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;

/// `lbd demo`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DemoArgs {
    /// Show this lb.toml instead of the users' pair.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Leave the pair up to play with, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo; success only if the VIP moved and the client was served again. To be called
/// before the process has any other thread.
#[must_use]
pub fn run(args: &DemoArgs) -> ExitCode {
    let (text, plan) = match prepare(args) {
        Ok(prepared) => prepared,
        Err(message) => {
            complain(&message);
            return EXIT_CONFIG.into();
        }
    };
    let inside = match sandbox::enter() {
        Ok(Sandbox::Inside(inside)) => inside,
        Ok(Sandbox::Ended(code)) => return code.into(),
        Err(error) => {
            complain(&format!("lbd demo: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match show(args, &text, &plan, inside) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("lbd demo: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The configuration's text and the laboratory it calls for, or what to tell the user.
fn prepare(args: &DemoArgs) -> Result<(String, Plan), String> {
    let (name, text) = match &args.config {
        None => ("the demo's own file".to_owned(), PAIR.to_owned()),
        Some(path) => {
            let text = fs::read_to_string(path)
                .map_err(|error| format!("lbd demo: cannot read {}: {error}", path.display()))?;
            (path.display().to_string(), text)
        }
    };
    let color = io::stderr().is_terminal();
    let config =
        config::load(&text).map_err(|problems| config::render(&problems, &name, &text, color))?;
    let plan = plan::plan(&config)
        .map_err(|reasons| format!("lbd demo: cannot show {name}:\n  {}", reasons.join("\n  ")))?;
    Ok((text, plan))
}

fn show(args: &DemoArgs, text: &str, plan: &Plan, inside: Inside) -> Result<(), Ended> {
    let interrupted = Arc::new(AtomicBool::new(false));
    watch_signals(Arc::clone(&interrupted))?;
    let mut screen = Screen::new();
    for note in &plan.notes {
        screen.print(&[format!("  note: {note}")])?;
    }
    let lab = Lab::build(plan)?;
    let mut stage = Stage::new(plan, text, &lab, &mut screen, &interrupted)?;
    let failover = match play::play(&mut stage) {
        Ok(failover) => failover,
        Err(Ended::Interrupted) => return Err(Ended::Interrupted),
        Err(ended) => {
            stage.print(&last_words(&lab))?;
            return Err(ended);
        }
    };
    stage.print(&play::summary(&stage, &failover))?;
    if !args.keep {
        return Ok(());
    }
    stage.print(&how_to_play(&lab, plan, inside))?;
    match play::keep(&mut stage) {
        Ok(()) | Err(Ended::Interrupted) => Ok(()),
        Err(ended) => Err(ended),
    }
}

/// Commands for another terminal.
fn how_to_play(lab: &Lab, plan: &Plan, inside: Inside) -> Vec<String> {
    let pid = inside.outer_pid;
    let user = if inside.user_namespace {
        format!("--user=/proc/{pid}/ns/user --preserve-credentials ")
    } else {
        String::new()
    };
    let enter = |host: &Namespace| {
        let (net, mount) = (host.net().as_raw_fd(), host.mount().as_raw_fd());
        format!("nsenter {user}--net=/proc/{pid}/fd/{net} --mount=/proc/{pid}/fd/{mount}")
    };
    let mut lines = vec![
        String::new(),
        "  The pair stays up until Ctrl-C. From another terminal:".into(),
        format!(
            "    client:  {} curl -k https://{}/",
            enter(&lab.client),
            plan.target
        ),
    ];
    for node in &lab.nodes {
        lines.push(format!(
            "    {}:     {} $SHELL",
            node.name,
            enter(&node.host)
        ));
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "lbd".into());
    lines.push(format!(
        "    and there:  {} status   ip address   tail -f /run/lbd/log   kill",
        program.display()
    ));
    lines.push(String::new());
    lines
}

/// The ends of the nodes' logs.
fn last_words(lab: &Lab) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &lab.nodes {
        lines.push(format!("--- the last messages of lbd on {}", node.name));
        let log = node.log().unwrap_or_else(|error| error.to_string());
        let log: Vec<&str> = log.lines().collect();
        let first = log.len().saturating_sub(LOG_LINES);
        lines.extend(log.iter().skip(first).map(|line| format!("  {line}")));
    }
    lines
}

/// Turns Ctrl-C and its kin into a flag, so that the demo ends in order.
fn watch_signals(interrupted: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let watch = move || {
        runtime.block_on(async {
            let (mut interrupt, mut terminate, mut hangup) = (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            );
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            interrupted.store(true, Ordering::Relaxed);
            Ok::<(), io::Error>(())
        })
    };
    thread::Builder::new().name("signals".into()).spawn(watch)?;
    Ok(())
}

fn complain(message: &str) {
    // Nobody is left to tell when standard error is gone.
    drop(writeln!(io::stderr(), "{message}"));
}

#[cfg(test)]
mod tests;
