//! How many connections each server should give up, and who has room for them. Pure: time comes in.
//!
//! A server's fair share is its part, by weight, of all connections to the servers in force. Nothing
//! is closed for fun: a move begins when a server came back, or when one has far more than its
//! share; it ends when nobody has more than the share, and the next one has to wait. While clients
//! that were closed are away, they count as if they were here, and only few may be away; if they
//! don't come back, closing more of them would help nobody, and the move is given up.

use std::time::{Duration, Instant};

use crate::config::model;
use crate::proxy::dispatch::seats::Seat;

/// Between the end of a move and one that skew alone begins.
const REST: Duration = Duration::from_secs(30);
/// After a move whose clients did not come back, before any other.
const REST_IN_VAIN: Duration = Duration::from_secs(600);
/// For so long somebody may be away before nobody is expected any more.
const RETURN: Duration = Duration::from_secs(10);
/// So many seconds' worth of closed connections may be away at once.
const AWAY: u64 = 3;
/// And at least so many.
const AWAY_MIN: u64 = 4;
/// Connections above the share that skew alone must have.
const EXCESS_MIN: u64 = 3;
/// Clients that have to stay away before a move is in vain; and it must be half of all.
const LOST_MIN: u64 = 8;

/// What one server should give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed {
    /// Its place.
    pub place: usize,
    /// Connections to close.
    pub count: u32,
    /// Its fair share: below that nothing is closed.
    pub floor: u32,
}

/// What is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A move began: a server came back (`true`), or the skew was too great.
    Began(bool),
    /// It ended after so long; so many were closed, and shares are even.
    Done(Duration, u64),
    /// The same, but too many of the clients stayed away.
    InVain(Duration, u64),
}

/// The outcome of one step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What is to be closed now.
    pub sheds: Vec<Shed>,
    /// How many newcomers may be led to which place.
    pub credits: Vec<(usize, u32)>,
    /// What is worth telling.
    pub news: Option<News>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Even,
    Moving {
        since: Instant,
        closed: u64,
        /// Clients that stayed away.
        lost: u64,
    },
    Resting {
        until: Instant,
        in_vain: bool,
    },
}

/// One proxy's plan.
#[derive(Debug)]
pub struct Plan {
    /// Connections a second.
    rate: u64,
    /// Percent of the fair share at which a move begins.
    above: u64,
    phase: Phase,
    /// Those in force at the last step; `None`: there was none.
    known: Option<Vec<usize>>,
    /// A server came back, and nobody has made room for it yet.
    returned: bool,
    /// Thousandths of connections that may be closed.
    tokens: u64,
    last: Option<Instant>,
    /// What the counters said at the last step.
    counted: (u64, u64),
    /// Closed, and expected back.
    away: u64,
    /// When somebody last came back, or the first one left.
    progress: Option<Instant>,
    turn: usize,
}

/// A server and its fair share.
#[derive(Debug, Clone, Copy)]
struct Part {
    seat: Seat,
    /// Rounded up.
    fair: u64,
    /// Connections above that.
    excess: u64,
    /// Connections missing to it, as far as there is room.
    missing: u64,
}

impl Plan {
    /// Nothing moves.
    #[must_use]
    pub fn new(config: &model::Rebalance) -> Self {
        Self {
            rate: config.rate.get().into(),
            above: config.above.into(),
            phase: Phase::Even,
            known: None,
            returned: false,
            tokens: 0,
            last: None,
            counted: (0, 0),
            away: 0,
            progress: None,
            turn: 0,
        }
    }

    /// What to do at `now`. `seats`: the servers in force, `None` while nothing may be moved;
    /// `counters`: connections closed, and newcomers led to a server that was owed one, so far.
    pub fn step(&mut self, seats: Option<&[Seat]>, counters: (u64, u64), now: Instant) -> Step {
        self.account(counters, now);
        let Some(seats) = seats else {
            return Step::default();
        };
        self.see_who_returned(seats);
        if seats.len() < 2 {
            self.phase = match self.phase {
                Phase::Moving { .. } => Phase::Even,
                other @ (Phase::Even | Phase::Resting { .. }) => other,
            };
            return Step::default();
        }
        let parts = self.parts(seats);
        let moves = self.moves(&parts);
        let warming = seats.iter().any(|seat| seat.warming);
        let news = match self.phase {
            Phase::Moving { .. } => self.end(moves, warming, now),
            Phase::Even | Phase::Resting { .. } => self.begin(&parts, moves, now),
        };
        if moves == 0 && !warming && self.away == 0 {
            self.returned = false;
        }
        let Phase::Moving { .. } = self.phase else {
            return Step {
                news,
                ..Step::default()
            };
        };
        let most = AWAY_MIN.max(AWAY * self.rate).saturating_sub(self.away);
        let count = moves.min(self.tokens / 1000).min(most);
        Step {
            sheds: sheds(&parts, count),
            credits: credits(&parts, self.away + count),
            news,
        }
    }

    /// Deals the work out to the workers: to each the same, and what is left over in turn. Each
    /// deal begins with another worker: only one of them may have what a server could give up.
    #[must_use]
    pub fn split(&mut self, sheds: &[Shed], workers: usize) -> Vec<Vec<Shed>> {
        let mut orders = vec![Vec::new(); workers];
        let Ok(each) = u32::try_from(workers.max(1)) else {
            return orders;
        };
        let mut turn = self.turn;
        self.turn = (self.turn + 1) % workers.max(1);
        for shed in sheds {
            let over = usize::try_from(shed.count % each).unwrap_or(0);
            for (worker, orders) in orders.iter_mut().enumerate() {
                let first = (worker + workers - turn % workers) % workers < over;
                let count = shed.count / each + u32::from(first);
                if count > 0 {
                    orders.push(Shed { count, ..*shed });
                }
            }
            turn = (turn + over) % workers;
        }
        orders
    }

    /// What happened since the last step.
    fn account(&mut self, counters: (u64, u64), now: Instant) {
        let (closed, redeemed) = (
            counters.0.saturating_sub(self.counted.0),
            counters.1.saturating_sub(self.counted.1),
        );
        self.counted = counters;
        let elapsed = self
            .last
            .replace(now)
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        // What nobody closed in time is not made up for: half a second's worth at most.
        let most = (self.rate * 500).max(1000);
        let earned = self
            .tokens
            .saturating_add(elapsed.saturating_mul(self.rate));
        self.tokens = earned.min(most).saturating_sub(closed * 1000);
        if redeemed > 0 || self.away == 0 {
            self.progress = Some(now);
        }
        self.away = (self.away + closed).saturating_sub(redeemed);
        let late = self
            .progress
            .is_some_and(|progress| now.saturating_duration_since(progress) >= RETURN);
        let missing = if late {
            std::mem::take(&mut self.away)
        } else {
            0
        };
        if let Phase::Moving {
            closed: all, lost, ..
        } = &mut self.phase
        {
            *all += closed;
            *lost += missing;
        }
    }

    fn see_who_returned(&mut self, seats: &[Seat]) {
        let places: Vec<usize> = seats.iter().map(|seat| seat.place).collect();
        if let Some(known) = &self.known
            && !known.is_empty()
        {
            self.returned |= places.iter().any(|place| !known.contains(place));
        }
        self.known = Some(places);
    }

    fn parts(&self, seats: &[Seat]) -> Vec<Part> {
        let here: u64 = seats.iter().map(|seat| u64::from(seat.used)).sum();
        let total = u128::from(here + self.away);
        let weights: u128 = seats.iter().map(|seat| u128::from(seat.weight)).sum();
        let part = |seat: &Seat| {
            let share = total * u128::from(seat.weight);
            let fair = u64::try_from(share.div_ceil(weights.max(1))).unwrap_or(u64::MAX);
            let used = u64::from(seat.used);
            let missing = fair.saturating_sub(used);
            Part {
                seat: *seat,
                fair,
                excess: used.saturating_sub(fair),
                missing: missing.min(seat.room.into()),
            }
        };
        seats.iter().map(part).collect()
    }

    /// How many connections are to be closed yet: no more than are missing elsewhere.
    fn moves(&self, parts: &[Part]) -> u64 {
        let excess: u64 = parts.iter().map(|part| part.excess).sum();
        let missing: u64 = parts.iter().map(|part| part.missing).sum();
        excess.min(missing.saturating_sub(self.away))
    }

    fn begin(&mut self, parts: &[Part], moves: u64, now: Instant) -> Option<News> {
        let (rests, in_vain) = match self.phase {
            Phase::Resting { until, in_vain } if now < until => (true, in_vain),
            Phase::Even | Phase::Moving { .. } | Phase::Resting { .. } => (false, false),
        };
        let skewed = parts.iter().any(|part| {
            let used = u64::from(part.seat.used);
            part.excess >= EXCESS_MIN && used * 100 >= part.fair * self.above
        });
        let begins = moves > 0 && !in_vain && (self.returned || (skewed && !rests));
        if !begins {
            return None;
        }
        self.phase = Phase::Moving {
            since: now,
            closed: 0,
            lost: 0,
        };
        Some(News::Began(self.returned))
    }

    fn end(&mut self, moves: u64, warming: bool, now: Instant) -> Option<News> {
        let Phase::Moving {
            since,
            closed,
            lost,
        } = self.phase
        else {
            return None;
        };
        let elapsed = now.saturating_duration_since(since);
        let in_vain = lost >= LOST_MIN && lost * 2 >= closed;
        let news = if in_vain {
            News::InVain(elapsed, closed)
        } else if moves == 0 && self.away == 0 && !warming {
            News::Done(elapsed, closed)
        } else {
            return None;
        };
        self.phase = Phase::Resting {
            until: now + if in_vain { REST_IN_VAIN } else { REST },
            in_vain,
        };
        self.returned = false;
        Some(news)
    }
}

/// Takes `count` connections, each from the server that is fullest by then.
fn sheds(parts: &[Part], count: u64) -> Vec<Shed> {
    let mut taken = vec![0_u32; parts.len()];
    for _ in 0..count {
        let fullest = parts
            .iter()
            .zip(&taken)
            .enumerate()
            .filter(|(_, (part, taken))| part.excess > u64::from(**taken))
            .max_by(|(_, a), (_, b)| {
                let left = |(part, taken): (&Part, &u32)| part.seat.used.saturating_sub(*taken);
                fuller(left(*a), a.0.seat.weight, left(*b), b.0.seat.weight)
            });
        let Some((at, _)) = fullest else { break };
        if let Some(taken) = taken.get_mut(at) {
            *taken += 1;
        }
    }
    let given = parts.iter().zip(taken).filter(|(_, taken)| *taken > 0);
    given
        .map(|(part, count)| Shed {
            place: part.seat.place,
            count,
            floor: u32::try_from(part.fair).unwrap_or(u32::MAX),
        })
        .collect()
}

/// Gives `count` newcomers, each to the server that is emptiest by then.
fn credits(parts: &[Part], count: u64) -> Vec<(usize, u32)> {
    let mut given = vec![0_u32; parts.len()];
    for _ in 0..count {
        let emptiest = parts
            .iter()
            .zip(&given)
            .enumerate()
            .filter(|(_, (part, given))| part.missing > u64::from(**given))
            .min_by(|(_, a), (_, b)| {
                let then = |(part, given): (&Part, &u32)| part.seat.used.saturating_add(*given);
                fuller(then(*a), a.0.seat.weight, then(*b), b.0.seat.weight)
            });
        let Some((at, _)) = emptiest else { break };
        if let Some(given) = given.get_mut(at) {
            *given += 1;
        }
    }
    let given = parts.iter().zip(given).filter(|(_, given)| *given > 0);
    given
        .map(|(part, given)| (part.seat.place, given))
        .collect()
}

/// Compares `used` connections for their weights.
fn fuller(used: u32, weight: u32, other: u32, other_weight: u32) -> std::cmp::Ordering {
    let (used, other) = (u64::from(used), u64::from(other));
    (used * u64::from(other_weight)).cmp(&(other * u64::from(weight)))
}

#[cfg(test)]
mod tests;
