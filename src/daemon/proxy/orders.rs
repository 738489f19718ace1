//! Orders of operators to the keeper, on their way to the keeper and back. Every one is answered, also when the
//! keeper refuses to read, hangs or ends meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::control::Control;
use super::link::{Link, Tie};
use super::{servers, who};
use crate::admin::Order;
use crate::admin::servers::{ServerCommand, ServersDone, ServersOutcome};
use crate::ipc::command::{Command, Outcome};
use crate::ipc::message::ToKeeper;
use crate::net::clock;

/// Orders that wait for their outcome; a further one is refused. Fewer than the admin socket serves
/// askers at once, so that a status can always be had.
pub(super) const OUTSTANDING_MAX: usize = 8;
/// A keeper that said nothing for this long is not waited for. It speaks each 500 ms.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The orders whose outcome is awaited, by number.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    last: u64,
    answers: BTreeMap<u64, oneshot::Sender<Outcome>>,
}

impl Outstanding {
    /// Passes an order on; `link` is the way to the keeper, if there is one.
    pub(super) fn pass_on(
        &mut self,
        command: Command,
        answer: oneshot::Sender<Outcome>,
        link: Option<&Link>,
    ) {
        // Those who asked and left don't count.
        self.answers.retain(|_, answer| !answer.is_closed());
        if self.answers.len() >= OUTSTANDING_MAX {
            reply(answer, Outcome::Refused("too many orders at once".into()));
            return;
        }
        let Some(link) = link else {
            reply(answer, Outcome::Refused("no keeper is there".into()));
            return;
        };
        let id = self.last + 1;
        match link.send_now(&ToKeeper::Command { id, command }) {
            Ok(()) => {
                self.last = id;
                self.answers.insert(id, answer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                reply(answer, Outcome::Refused("the keeper does not read".into()));
            }
            Err(error) => {
                let why = format!("the keeper cannot be reached: {error}");
                reply(answer, Outcome::Refused(why));
            }
        }
    }

    /// The keeper has answered.
    pub(super) fn settle(&mut self, id: u64, outcome: Outcome) {
        match self.answers.remove(&id) {
            Some(answer) => reply(answer, outcome),
            None => tracing::debug!(id, "outcome of an order nobody waits for"),
        }
    }

    /// The keeper is gone.
    pub(super) fn keeper_lost(&mut self) {
        self.give_up("the keeper ended before it said how it ended");
    }

    /// Time has passed since the keeper spoke.
    pub(super) fn tick(&mut self, now: Instant, heard: Option<Instant>) {
        if heard.is_none_or(|heard| now.saturating_duration_since(heard) >= SILENCE_MAX) {
            self.give_up("the keeper does not answer: what becomes of it is not known");
        }
    }

    fn give_up(&mut self, why: &str) {
        for answer in std::mem::take(&mut self.answers).into_values() {
            reply(answer, Outcome::Unknown(why.to_owned()));
        }
    }
}

/// Answers whoever waits.
pub(super) fn reply<T>(answer: oneshot::Sender<T>, outcome: T) {
    if answer.send(outcome).is_err() {
        tracing::debug!("whoever gave an order does not wait for its outcome");
    }
}

impl Control {
    /// What somebody at the admin socket wants done.
    pub(super) fn on_order(&mut self, order: Order) {
        let link = match &self.keeper {
            Tie::Connected(link) => Some(link),
            Tie::Lost => None,
        };
        match order {
            Order::Keeper(command, answer) => self.outstanding.pass_on(command, answer, link),
            Order::Who(address, answer) => who::ask(&self.shared, address, answer),
            Order::Servers(command, uid, answer) => self.on_servers(command, uid, answer),
        }
    }

    /// An order about servers: carried out at once, answered when it lies on disk.
    fn on_servers(
        &mut self,
        command: ServerCommand,
        uid: u32,
        answer: oneshot::Sender<ServersOutcome>,
    ) {
        let now = clock::now();
        let carried_out = servers::carry_out(&self.shared, &mut self.memory, command, (uid, now));
        let (done, events) = match carried_out {
            Ok(done) => done,
            Err(why) => return reply(answer, ServersOutcome::Refused(why)),
        };
        self.follow_rosters(now);
        self.news.note(events);
        match &self.shelf {
            None => reply(answer, ServersOutcome::Done(done)),
            Some(shelf) => {
                let kept = servers::keep(shelf.clone(), self.memory.all());
                tokio::spawn(async move {
                    let kept = kept.await;
                    reply(answer, ServersOutcome::Done(ServersDone { kept, ..done }));
                });
            }
        }
    }
}
