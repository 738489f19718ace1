//! Asks the daemon, away from the thread that draws: it may be slow to answer, or stopped.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::state::{Order, Said};
use crate::admin::protocol::{self, AskError, ask_events, ask_status};
use crate::admin::servers::ServersOutcome;
use crate::admin::status::Status;
use crate::cli::{chain, failover, servers};
use crate::ipc::command::{Outcome, VipResult};
use crate::ipc::event::Event;

/// The past that can be scrolled through.
const EVENTS: u32 = 200;
/// Between two tries of a daemon that doesn't answer, at least.
const REST: Duration = Duration::from_secs(1);
/// The longest that an order to the keeper may take: four of the longest intervals, 40.95 s.
const ORDER_PATIENCE: Duration = Duration::from_secs(170);

/// What is told to the thread that draws.
#[derive(Debug)]
pub(super) enum News {
    Answer(Box<Status>, Vec<Event>),
    Trouble(String),
    Done(Said),
}

/// One answer.
///
/// # Errors
/// [`AskError`].
pub(super) fn once(path: &Path) -> Result<(Status, Vec<Event>), AskError> {
    let status = ask_status(path)?;
    let mut events = Vec::new();
    ask_events(path, EVENTS, false, |all| {
        events = all;
        true
    })?;
    Ok((status, events))
}

/// Asks every so often until nobody listens any more. What is sent to the answer of this function
/// makes it ask at once.
///
/// # Errors
/// When no thread can be started.
pub(super) fn again_and_again(
    path: PathBuf,
    every: Duration,
    news: SyncSender<News>,
) -> std::io::Result<SyncSender<()>> {
    let (wake, woken) = sync_channel(1);
    let ask = move || {
        loop {
            match woken.recv_timeout(every) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let told = match once(&path) {
                Ok((status, events)) => news.send(News::Answer(Box::new(status), events)),
                Err(error) => {
                    let told = news.send(News::Trouble(chain(&error)));
                    thread::sleep(REST.saturating_sub(every));
                    told
                }
            };
            if told.is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("asks".into()).spawn(ask)?;
    Ok(wake)
}

/// Gives an order, and tells what became of it.
///
/// # Errors
/// When no thread can be started.
pub(super) fn order(path: PathBuf, order: Order, news: SyncSender<News>) -> std::io::Result<()> {
    let give = move || {
        // Who has left needs no answer.
        if news.send(News::Done(give(&path, order))).is_err() {
            tracing::debug!("an order ended after the one who gave it");
        }
    };
    thread::Builder::new().name("orders".into()).spawn(give)?;
    Ok(())
}

fn give(path: &Path, order: Order) -> Said {
    let said = match order {
        Order::Keeper(order) => {
            protocol::order(path, order, ORDER_PATIENCE).map(|outcome| of_keeper(&outcome))
        }
        Order::Servers(order) => {
            protocol::order_servers(path, order).map(|outcome| match outcome {
                ServersOutcome::Done(done) => Said {
                    text: servers::render(&done).trim_end().to_owned(),
                    good: true,
                },
                ServersOutcome::Refused(why) => Said {
                    text: format!("refused: {why}"),
                    good: false,
                },
            })
        }
    };
    said.unwrap_or_else(|error| Said {
        text: chain(&error),
        good: false,
    })
}

fn of_keeper(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Vips(vips) => {
            let lines: Vec<String> = vips.iter().map(failover::line).collect();
            let is_good = |result: VipResult| match result {
                VipResult::TakenOver | VipResult::Released | VipResult::NotHeldBack => true,
                VipResult::NobodyTookOver
                | VipResult::NotActive
                | VipResult::Interrupted
                | VipResult::Unknown => false,
            };
            Said {
                text: lines.join("; "),
                good: vips.iter().all(|vip| is_good(vip.result)),
            }
        }
        Outcome::Reload(_) | Outcome::Log(_) => Said {
            text: "the daemon answers another question".to_owned(),
            good: false,
        },
        Outcome::Recorded(_) => Said {
            text: "answered with a recording".to_owned(),
            good: false,
        },
        Outcome::Upgrading(_) => Said {
            text: "answered with an upgrade".to_owned(),
            good: false,
        },
        Outcome::Refused(why) => Said {
            text: format!("refused: {why}"),
            good: false,
        },
        Outcome::Unknown(why) => Said {
            text: format!("nobody knows how it ended: {why}"),
            good: false,
        },
    }
}
