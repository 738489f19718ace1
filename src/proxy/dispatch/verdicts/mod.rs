//! What follows from what checks and traffic say of a server: whether it takes new connections, and
//! whether it keeps those it has. Pure.
//!
//! Three rules stand above the rest. Nobody is ejected for what traffic tells alone if that would
//! leave no other server, or too few. Those that are held back, ejected or not believed yet, are
//! used when there is nobody else. And connections are closed only while another server could take
//! the clients, and was seen to be well while this one was seen to fail: a pause of all of them,
//! which one notices first, or from which one wakes up first, costs nobody a connection.

use std::time::{Duration, Instant};

use super::Dispatch;
use crate::config::model::{self, OnNotReady, OnUnresponsive};
use crate::health::fsm::Health;
use crate::proxy::evidence::{Grounds, Look};
use crate::proxy::server::{Operational, Run, Server};
use crate::proxy::unanswered::Tally;

/// So many servers are asked whether they are well when another one seems to be lost.
const WITNESSES: usize = 3;

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// By the rules, this result counted.
    pub health: Health,
    /// This result alone.
    pub found: Health,
    /// When the check began.
    pub began: Instant,
}

/// What others have to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Connects in flight to this server go elsewhere.
    Elsewhere(usize),
    /// The established connections of this server are to be closed.
    Close(usize),
    /// This server is to be checked at once.
    Check(usize),
    /// Traffic has made this server suspect.
    Suspect(usize),
    /// This server was ejected.
    Ejected(usize, Grounds),
    /// This server's ejection has ended, after so long.
    Returned(usize, Duration),
    /// This server is up, and needs so many more successes to be believed.
    Held(usize, u16),
    /// This server is believed again.
    Believed(usize),
    /// Every server that could serve is held back: they are used all the same, or no more.
    Panic(bool),
}

/// What a dispatcher keeps for this.
#[derive(Debug)]
pub(super) struct Verdicts {
    on_unresponsive: OnUnresponsive,
    on_not_ready: OnNotReady,
    /// Percent of the servers that could serve which may be ejected.
    ejected_max: usize,
    rise: u16,
    panic: bool,
    news: Vec<News>,
}

impl Verdicts {
    pub(super) fn new(config: &model::Proxy) -> Self {
        Self {
            on_unresponsive: config.on_unresponsive,
            on_not_ready: config.on_not_ready,
            ejected_max: usize::from(config.max_ejected),
            rise: config.check.rise.get().into(),
            panic: false,
            news: Vec::new(),
        }
    }

    /// Other rules from here on.
    pub(super) fn set_config(&mut self, config: &model::Proxy) {
        self.on_unresponsive = config.on_unresponsive;
        self.on_not_ready = config.on_not_ready;
        self.ejected_max = usize::from(config.max_ejected);
        self.rise = config.check.rise.get().into();
    }

    /// Whether a server that is so gives its connections up.
    fn gives_up(&self, server: &Server) -> bool {
        match server.health() {
            Some(Health::Unresponsive) => self.on_unresponsive == OnUnresponsive::Reset,
            Some(Health::NotReady) => self.on_not_ready == OnNotReady::Reset,
            Some(Health::Ready) | None => false,
        }
    }
}

impl Dispatch {
    /// A verdict without the check that it comes from; answers whether the server went up or down.
    pub fn set_health(&mut self, server: usize, health: Health, now: Instant) -> bool {
        let checked = Checked {
            health,
            found: health,
            began: now,
        };
        self.on_check(server, checked, now)
    }

    /// Ready, or alive and not ready; answers whether the server went up or down.
    pub fn set_up(&mut self, server: usize, up: bool, now: Instant) -> bool {
        self.set_health(server, Health::up_or_not(up), now)
    }

    /// A check has finished; answers whether the server went up or down. Slowstart follows an
    /// outage only.
    pub fn on_check(&mut self, place: usize, checked: Checked, now: Instant) -> bool {
        let (ramp, rise) = (self.slowstart, self.verdicts.rise);
        let Some(server) = self.servers.get_mut(place).and_then(Option::as_mut) else {
            return false;
        };
        let before = server.operational();
        server.note_result(checked.found.is_ready(), checked.began);
        let changed = server.set_health(checked.health, ramp, now);
        let news = &mut self.verdicts.news;
        let mut moved = changed;
        if changed && !checked.health.is_ready() {
            news.push(News::Elsewhere(place));
        }
        if changed && before == Operational::Down && server.damping.came_up(rise, now) {
            news.push(News::Held(place, server.damping.missing()));
        } else if !changed && server.damping.on_check(checked.found.is_ready(), now) {
            server.believe(ramp, now);
            news.push(News::Believed(place));
            moved = true;
        }
        if checked.found.is_ready() {
            if server.evidence.may_return(checked.began, now) {
                moved |= self.end_ejection(place, now);
            } else {
                server.evidence.acquitted(checked.began);
            }
        } else if server.able()
            && let Some(grounds) = server.evidence.convicted(now)
        {
            moved |= self.eject(place, grounds, now);
        }
        self.after_change(moved);
        self.close_or_keep();
        changed
    }

    /// A connect failed, after `connected` that succeeded in all.
    pub fn connect_failed(&mut self, place: usize, connected: u64, now: Instant) {
        let Some(server) = self.member_mut(place) else {
            return;
        };
        let grounds = server.evidence.connect_failed(connected, now);
        self.verdicts.news.push(News::Check(place));
        if let Some(grounds) = grounds {
            let ejected = self.eject(place, grounds, now);
            self.after_change(ejected);
        }
    }

    /// A connect that began at `began` had no answer where another server answered, after
    /// `connected` that succeeded in all.
    pub fn connect_silent(&mut self, place: usize, connected: u64, began: Instant, now: Instant) {
        if let Some(server) = self.member_mut(place)
            && let Some(grounds) = server.evidence.connect_silent(connected, began, now)
        {
            let ejected = self.eject(place, grounds, now);
            self.after_change(ejected);
        }
    }

    /// A server ended a connection before it had answered; `answered` clients of it were answered
    /// so far, and `elsewhere` those of others.
    pub fn broke_off(&mut self, place: usize, answered: u64, elsewhere: u64, now: Instant) {
        let Some(server) = self.member_mut(place) else {
            return;
        };
        let grounds = server.evidence.broke_off(answered, elsewhere, now);
        self.verdicts.news.push(News::Check(place));
        if let Some(grounds) = grounds {
            let ejected = self.eject(place, grounds, now);
            self.after_change(ejected);
        }
    }

    /// What was counted so far for each server.
    pub fn watch_answers(&mut self, tallies: &[(usize, Tally)], now: Instant) {
        let answered = |(place, tally): &(usize, Tally)| {
            let server = self.server(*place);
            let fit = server.filter(|server| server.able() && !server.held());
            fit.is_some_and(|server| server.evidence.answered() != tally.answered)
        };
        let answered: Vec<bool> = tallies.iter().map(answered).collect();
        let count = answered.iter().filter(|answered| **answered).count();
        for ((place, tally), own) in tallies.iter().zip(answered) {
            let others = count > usize::from(own);
            let Some(server) = self.member_mut(*place) else {
                continue;
            };
            let look = server.evidence.watch(*tally, others, now);
            if look == Look::Fine || server.operational() != Operational::Up {
                continue;
            }
            let news = &mut self.verdicts.news;
            news.push(News::Suspect(*place));
            news.push(News::Check(*place));
            if look == Look::Silence {
                let ejected = self.eject(*place, Grounds::Silence, now);
                self.after_change(ejected);
            }
        }
    }

    /// Takes a server out of service, if others are left; answers whether it did.
    fn eject(&mut self, place: usize, grounds: Grounds, now: Instant) -> bool {
        let able = self.members().filter(|(_, s)| s.able()).count();
        let ejected = |s: &Server| s.able() && s.evidence.ejected().is_some();
        let ejected = self.members().filter(|(_, s)| ejected(s)).count();
        let another = |(at, s): (usize, &Server)| at != place && s.able() && !s.held();
        let another = self.members().any(another);
        let few_enough = (ejected + 1) * 100 <= self.verdicts.ejected_max * able;
        let Some(server) = self.member_mut(place) else {
            return false;
        };
        if !server.able() || server.held() || !another || !few_enough {
            return false;
        }
        server.evidence.eject(grounds, now);
        let news = &mut self.verdicts.news;
        news.push(News::Ejected(place, grounds));
        news.push(News::Elsewhere(place));
        // Was it wrong, it is not out for long.
        news.push(News::Check(place));
        true
    }

    fn end_ejection(&mut self, place: usize, now: Instant) -> bool {
        let Some(server) = self.member_mut(place) else {
            return false;
        };
        let Some(ejected) = server.evidence.ejected() else {
            return false;
        };
        server.evidence.end_ejection();
        let elapsed = now.saturating_duration_since(ejected.since);
        self.verdicts.news.push(News::Returned(place, elapsed));
        true
    }

    /// Uses those that are held back where nobody else could serve. To be called before anything
    /// is made of who is usable.
    pub(super) fn settle(&mut self) {
        let able = self.members().any(|(_, s)| s.able());
        let free = self.members().any(|(_, s)| s.able() && !s.held());
        let panic = able && !free;
        for server in self.servers.iter_mut().flatten() {
            server.spare(panic);
        }
        if std::mem::replace(&mut self.verdicts.panic, panic) != panic {
            self.verdicts.news.push(News::Panic(panic));
        }
    }

    /// Decides whose established connections are closed: of those that are lost, whoever another
    /// server that could take the clients has outlived. Where it takes another look to know, at it
    /// and at a few of the others, that look is ordered.
    fn close_or_keep(&mut self) {
        let able = self.members().filter(|(_, other)| other.able());
        let able: Vec<(usize, Option<Run>)> = able.map(|(at, s)| (at, s.run())).collect();
        for place in 0..self.servers.len() {
            let Some(server) = self.server(place) else {
                continue;
            };
            let lost = self.verdicts.gives_up(server);
            let bad = server.run();
            let outlived = |good| {
                bad.zip(good)
                    .is_some_and(|(b, g)| Run::is_outlived_by(b, g))
            };
            let close = lost && able.iter().any(|(_, good)| outlived(*good));
            let told = self.member_mut(place).is_some_and(|s| s.set_closing(close));
            let news = &mut self.verdicts.news;
            if told && close {
                news.push(News::Close(place));
            }
            if lost && !close && !able.is_empty() {
                news.push(News::Check(place));
                let witnesses = able.iter().take(WITNESSES);
                news.extend(witnesses.map(|(at, _)| News::Check(*at)));
            }
        }
    }

    fn another_able(&self, place: usize) -> bool {
        let mut others = self.members();
        others.any(|(at, server)| at != place && server.able())
    }

    /// Whether a server's established connections are to be closed, at this moment.
    #[must_use]
    pub fn closes(&self, place: usize) -> bool {
        self.server(place).is_some_and(Server::closing) && self.another_able(place)
    }

    /// Servers that could serve, held back or not.
    #[must_use]
    pub fn able(&self) -> usize {
        self.members().filter(|(_, s)| s.able()).count()
    }

    /// Whether servers are used that are held back.
    #[must_use]
    pub fn panics(&self) -> bool {
        self.verdicts.panic
    }

    /// The news that came up since the last call.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.verdicts.news)
    }
}

#[cfg(test)]
mod tests;
