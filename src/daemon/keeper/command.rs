//! Orders of operators: what is begun at once, what is waited for, and how it ended. At most one
//! answer to each order; the proxy that passed it on carries it back.

use std::time::{Duration, Instant};

use super::Keeper;
use super::routers::Routers;
use crate::ipc::command::{Command, NAMES_MAX, Outcome, VipOutcome, VipResult};
use crate::ipc::message::{ToProxy, VrrpState};

/// Orders that wait for their end; a further one is refused. The proxy bounds them, too.
const PENDING_MAX: usize = 16;
/// Failovers that may be ordered in a row, and the time after which one more is free: a proxy process
/// that serves somebody else by now must not play ping-pong with the addresses.
const FAILOVERS_MAX: u32 = 16;
const FAILOVER_SPACING: Duration = Duration::from_secs(5);

/// Orders that were begun.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pending: Vec<Pending>,
    allowance: Allowance,
}

/// The failovers of late.
#[derive(Debug, Default)]
struct Allowance {
    used: u32,
    since: Option<Instant>,
}

impl Allowance {
    /// Whether one more may be begun; if so it counts.
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let passed =
            now.saturating_duration_since(since).as_millis() / FAILOVER_SPACING.as_millis();
        let freed = u32::try_from(passed).unwrap_or(u32::MAX);
        if freed >= self.used {
            self.used = 0;
            self.since = Some(now);
        } else {
            self.used -= freed;
            self.since = Some(since + FAILOVER_SPACING * freed);
        }
        let free = self.used < FAILOVERS_MAX;
        self.used += u32::from(free);
        free
    }
}

#[derive(Debug)]
struct Pending {
    id: u64,
    began: Instant,
    /// Routers that are handing over, with the name each was asked for by.
    waiting: Vec<(usize, String)>,
    done: Vec<VipOutcome>,
}

impl Commands {
    /// Who waited is gone.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
    }

    /// Those that wait, by number: whoever took them over for the askers is about to go.
    pub(super) fn forsaken(&mut self) -> Vec<u64> {
        let pending = std::mem::take(&mut self.pending);
        pending.into_iter().map(|pending| pending.id).collect()
    }

    /// The routers have other positions; who waits for one that is gone has waited in vain.
    pub(super) fn carry(&mut self, now: Instant, moved: &[Option<usize>], all: &Routers) {
        for pending in &mut self.pending {
            for (router, name) in std::mem::take(&mut pending.waiting) {
                match moved.get(router).copied().flatten() {
                    Some(index) => pending.waiting.push((index, name)),
                    None => {
                        let elapsed = now.saturating_duration_since(pending.began);
                        let interrupted = VipResult::Interrupted;
                        let done = outcome(&name, interrupted, None, elapsed, now, all);
                        pending.done.push(done);
                    }
                }
            }
        }
    }

    /// A failover of router `index` has ended.
    pub(super) fn failed_over(&mut self, now: Instant, index: usize, taken: bool, all: &Routers) {
        let result = if taken {
            VipResult::TakenOver
        } else {
            VipResult::NobodyTookOver
        };
        self.end(now, index, result, all);
    }

    fn end(&mut self, now: Instant, index: usize, result: VipResult, all: &Routers) {
        for pending in &mut self.pending {
            let Pending {
                began,
                waiting,
                done,
                ..
            } = pending;
            waiting.retain(|(router, name)| {
                if *router == index {
                    let elapsed = now.saturating_duration_since(*began);
                    done.push(outcome(name, result, Some(index), elapsed, now, all));
                }
                *router != index
            });
        }
    }

    /// A router that waits for nobody any more although no end was announced was interrupted.
    fn look_after(&mut self, now: Instant, all: &Routers) {
        let waiting = self.pending.iter().flat_map(|pending| &pending.waiting);
        let stray = waiting.map(|(index, _)| *index);
        let stray: Vec<usize> = stray
            .filter(|index| all.state_of(*index) != Some(VrrpState::Leaving))
            .collect();
        for index in stray {
            self.end(now, index, VipResult::Interrupted, all);
        }
    }

    fn take_ended(&mut self) -> Vec<Pending> {
        let (ended, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| pending.waiting.is_empty());
        self.pending = pending;
        ended
    }
}

impl Keeper {
    /// The proxy passes an order on.
    pub(super) fn on_command(&mut self, now: Instant, id: u64, command: Command) {
        if self.stopping.is_some() {
            return self.answer(now, id, Outcome::Refused("this node is stopping".into()));
        }
        if self.commands.pending.len() >= PENDING_MAX {
            return self.answer(now, id, Outcome::Refused("too many orders at once".into()));
        }
        match command {
            Command::Upgrade => {
                let outcome = match self.begin_upgrade(now) {
                    Ok(number) => Outcome::Upgrading(number),
                    Err(why) => Outcome::Refused(why),
                };
                self.answer(now, id, outcome);
            }
            Command::Failover(_) if !self.commands.allowance.take(now) => {
                self.answer(
                    now,
                    id,
                    Outcome::Refused("too many failovers of late".into()),
                );
            }
            Command::Failover(failover) => {
                tracing::info!(vips = ?failover.vips, hold_ms = failover.hold_ms, "failover ordered");
                let hold = failover.hold_ms.map(Duration::from_millis);
                let named = self.named(now, &failover.vips);
                let pending = self.fail_over(now, id, named, hold);
                self.commands.pending.push(pending);
            }
            Command::Log(order) => {
                let outcome = self.set_log(now, order);
                self.answer(now, id, outcome);
            }
            Command::Record => self.on_record_order(now, id),
            Command::Reload(order) => self.on_reload_order(now, id, order),
            Command::ReleaseHold(release) => {
                tracing::info!(vips = ?release.vips, "end of a failover ordered");
                let named = self.named(now, &release.vips);
                // What is said of one member of a group is true of all.
                let mut released: Vec<usize> = Vec::new();
                let outcomes = named.into_iter().map(|(name, index)| {
                    let held = index.is_some_and(|index| {
                        released.contains(&index) || self.routers.release_hold(index, now)
                    });
                    released.extend(index.filter(|_| held));
                    let result = match (index, held) {
                        (None, _) => VipResult::Unknown,
                        (Some(_), true) => VipResult::Released,
                        (Some(_), false) => VipResult::NotHeldBack,
                    };
                    outcome(&name, result, index, Duration::ZERO, now, &self.routers)
                });
                let outcome = Outcome::Vips(outcomes.collect());
                self.answer(now, id, outcome);
            }
        }
    }

    /// The routers meant, by name; no name means all of them.
    fn named(&self, now: Instant, names: &[String]) -> Vec<(String, Option<usize>)> {
        let known = self.routers.names(now);
        if names.is_empty() {
            return known;
        }
        let position = |name: &String| {
            let found = known.iter().find(|(known, _)| known == name);
            (name.clone(), found.and_then(|(_, index)| *index))
        };
        names.iter().take(NAMES_MAX).map(position).collect()
    }

    fn fail_over(
        &mut self,
        now: Instant,
        id: u64,
        named: Vec<(String, Option<usize>)>,
        hold: Option<Duration>,
    ) -> Pending {
        let mut pending = Pending {
            id,
            began: now,
            waiting: Vec::new(),
            done: Vec::new(),
        };
        for (name, index) in named {
            let Some(index) = index else {
                let unknown = VipResult::Unknown;
                let none = Duration::ZERO;
                let done = outcome(&name, unknown, None, none, now, &self.routers);
                pending.done.push(done);
                continue;
            };
            let state = self.routers.state_of(index);
            if matches!(state, Some(VrrpState::Active | VrrpState::Leaving)) {
                // A second order, or a second name of one router: one failover, held back for as
                // long as the last order says. A hand-off becomes one.
                self.routers.failover(index, now, hold);
                pending.waiting.push((index, name));
            } else {
                let (result, none) = (VipResult::NotActive, Duration::ZERO);
                let done = outcome(&name, result, Some(index), none, now, &self.routers);
                pending.done.push(done);
            }
        }
        pending
    }

    /// Answers what has ended. After the routers' events were taken.
    pub(super) fn tick_commands(&mut self, now: Instant) {
        if self.commands.pending.is_empty() {
            return;
        }
        self.commands.look_after(now, &self.routers);
        for ended in self.commands.take_ended() {
            self.answer(now, ended.id, Outcome::Vips(ended.done));
        }
    }

    pub(super) fn answer(&mut self, now: Instant, id: u64, outcome: Outcome) {
        self.tell_proxy(now, &ToProxy::Outcome { id, outcome });
    }
}

fn outcome(
    name: &str,
    result: VipResult,
    index: Option<usize>,
    elapsed: Duration,
    now: Instant,
    all: &Routers,
) -> VipOutcome {
    let (active, node) = index.map_or((None, None), |index| all.holder(index, name, now));
    VipOutcome {
        vip: name.to_owned(),
        result,
        active,
        node,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failovers_in_a_row_are_bounded_and_come_back_one_each_five_seconds() {
        let base = crate::net::clock::now();
        let at = |ms| base + Duration::from_millis(ms);
        let mut allowance = Allowance::default();
        let taken =
            |allowance: &mut Allowance, now| (0..100).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, base), 16);
        assert_eq!(taken(&mut allowance, at(4_999)), 0);
        assert_eq!(taken(&mut allowance, at(5_000)), 1);
        assert_eq!(taken(&mut allowance, at(9_999)), 0);
        assert_eq!(taken(&mut allowance, at(20_000)), 3);
        assert_eq!(taken(&mut allowance, at(600_000)), 16);
    }
}
