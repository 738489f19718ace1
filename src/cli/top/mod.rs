//! `lbd top`: the node and its peer live in a terminal, with the orders an operator gives most.
//!
//! `state` is what is shown and what keys do, `rates` what passed each second, `draw`, `panels` and
//! `servers` how it looks (all pure); `ask` talks to the daemon on threads of its own, `terminal` takes the
//! terminal and gives it back whatever happens. This file is the loop between them.

mod ask;
mod draw;
mod panels;
mod rates;
mod servers;
mod state;
mod terminal;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;

use super::reach::{FAILURE, Reach, complain};
use super::{Exit, color, talk};
use crate::config;
use crate::net::clock;

use ask::News;
use state::{Act, Said, Top};
use terminal::{Input, Screen};

/// Between two looks at what came from the daemon, and at signals.
const TICK: Duration = Duration::from_millis(50);
/// Answers that wait to be drawn; who has further ones waits.
const NEWS_MAX: usize = 8;
/// Of `--every`.
const EVERY_MIN: Duration = Duration::from_millis(200);
const EVERY_MAX: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Shows who holds the VIPs and why, what the other nodes say of themselves (with [peer] in lb.toml),
the servers with their rates, and what happened last. Press ? for the keys. Orders (drain, maint,
ready, failover) ask first and need root or the user the daemon runs as.

Examples:
  lbd top                 look, once a second
  lbd top --every 250ms   four times a second
  lbd status -w           the same numbers without taking the terminal

Exit codes: 0 left, 1 the terminal failed, 2 no terminal, 69 no daemon, 77 not allowed.";

/// Arguments of `lbd top`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopArgs {
    /// How often the daemon is asked, 200ms to 60s
    #[arg(short = 'n', long, value_name = "TIME", default_value = "1s", value_parser = every)]
    every: Duration,
    #[command(flatten)]
    reach: Reach,
}

/// A time with a unit, between asking too often and too rarely.
pub(super) fn every(text: &str) -> Result<Duration, String> {
    match config::plain_duration(text) {
        Some(time) if (EVERY_MIN..=EVERY_MAX).contains(&time) => Ok(time),
        Some(_) => Err("from 200ms to 60s".to_owned()),
        None => Err("write a whole number and a unit: 500ms, 2s".to_owned()),
    }
}

/// Shows until it is told to stop, and says with which code to exit.
pub(super) fn run(args: &TopArgs) -> u8 {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        talk("error: lbd top needs a terminal; elsewhere use `lbd status` or `lbd status -w`");
        return Exit::Usage.code();
    }
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let (status, events) = match ask::once(&path) {
        Ok(answer) => answer,
        Err(error) => return complain("lbd top", &error),
    };
    let top = Top::new(status, events, color(&io::stdout()));
    match show(&path, args.every, top) {
        Ok(()) => 0,
        Err(error) => {
            talk(&format!("lbd top: the terminal failed: {error}"));
            FAILURE
        }
    }
}

fn show(path: &Path, every: Duration, mut top: Top) -> io::Result<()> {
    // Before other threads begin.
    let ended = terminal::ended_by_signal()?;
    let (tell, news) = sync_channel(NEWS_MAX);
    let wake = ask::again_and_again(path.to_owned(), every, tell.clone())?;
    let mut screen = Screen::take()?;
    let mut answered = clock::now();
    let mut stale = true;
    while !ended.load(Ordering::Relaxed) {
        for told in news.try_iter() {
            stale = true;
            hear(&mut top, told, &mut answered, &wake);
        }
        if stale {
            screen.draw(|frame| draw::draw(frame, &top))?;
            stale = false;
        }
        let Some(input) = screen.input(TICK)? else {
            continue;
        };
        stale = true;
        let Input::Key(key) = input else {
            continue;
        };
        match top.key(key) {
            None => {}
            Some(Act::Quit) => return Ok(()),
            Some(Act::Order(order)) => ask::order(path.to_owned(), order, tell.clone())?,
        }
    }
    Ok(())
}

fn hear(top: &mut Top, told: News, answered: &mut Instant, wake: &SyncSender<()>) {
    let now = clock::now();
    match told {
        News::Answer(status, events) => {
            *answered = now;
            top.answered(*status, events);
        }
        News::Trouble(why) => {
            let silent = now.saturating_duration_since(*answered).as_millis();
            top.unanswered(why, u64::try_from(silent).unwrap_or(u64::MAX));
        }
        News::Done(said) => {
            top.done(said);
            ask_now(wake, top);
        }
    }
}

/// What an order changed is to be seen at once.
fn ask_now(wake: &SyncSender<()>, top: &mut Top) {
    match wake.try_send(()) {
        Ok(()) | Err(TrySendError::Full(())) => {}
        Err(TrySendError::Disconnected(())) => {
            top.done(Said {
                text: "nobody asks the daemon any more: leave and begin again".to_owned(),
                good: false,
            });
        }
    }
}

#[cfg(test)]
mod tests;
