//! Counts that go on when one proxy process takes over from another: what those before counted is
//! added to what this one counts. Pure.
//!
//! Each process counts for itself. What another one tells ([`Page`]) are its own counts as they stand,
//! never a difference: told twice, late, or out of order, they are the same counts. Those of a process
//! that goes on with its connections are kept apart, for it tells again; those of one that has ended
//! become part of this one's own.

mod counts;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

use self::counts::{Counts, Frozen, all, kind, visit};
use super::status::Status;
use crate::ipc::tally::{Counted, Page, Row};

/// Rows in a page: it stays well below the longest message.
const ROWS_PER_PAGE: usize = 32;
/// Processes that go on with their connections; of more the oldest are taken for ended.
const OTHERS_MAX: usize = 24;
/// Processes that have ended and are remembered for it.
const ENDED_MAX: usize = 256;

/// What this process knows of the counts of those before it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// This process.
    of: u64,
    /// Of processes that have ended.
    base: Counts,
    others: BTreeMap<u64, Counts>,
    ended: Vec<u64>,
    /// What this process had counted of servers' health when it took over: the one before counted that.
    before: Counts,
    /// `base` and `others` together, once somebody asks: a process tells in many pages.
    sum: OnceCell<Counts>,
    handed: bool,
}

impl Ledger {
    /// Of a process that began then (since 1970).
    #[must_use]
    pub fn new(began: Duration, pid: u32) -> Self {
        let nanos = u64::try_from(began.as_nanos()).unwrap_or(u64::MAX);
        Self {
            // Distinct for two that began at once, and still in their order.
            of: nanos & !0xfff | u64::from(pid & 0xfff),
            ..Self::default()
        }
    }

    /// Takes in what another process tells. `present` is what this one has counted by now.
    pub fn take_in(&mut self, page: Page, present: impl FnOnce() -> Status) {
        match page {
            Page::Counts(counted) => self.take_counts(counted),
            Page::Ended(ids) => {
                for id in ids {
                    self.others.remove(&id);
                    self.note_ended(id);
                }
            }
            Page::Done => {
                if !std::mem::replace(&mut self.handed, true) {
                    self.before = all(&present(), Duration::ZERO).of_health();
                }
            }
        }
        self.sum.take();
    }

    fn sum(&self) -> &Counts {
        self.sum.get_or_init(|| {
            let mut sum = self.base.clone();
            self.others.values().for_each(|counts| sum.add(counts));
            sum
        })
    }

    fn take_counts(&mut self, counted: Counted) {
        let (of, ended) = (counted.of, counted.ended);
        if of == self.of || self.ended.contains(&of) {
            return;
        }
        self.others.entry(of).or_default().raise(counted);
        if ended {
            self.retire(of);
        }
        while self.others.len() > OTHERS_MAX
            && let Some(oldest) = self.others.keys().next().copied()
        {
            self.retire(oldest);
        }
    }

    /// What a process counted is this one's own from here on.
    fn retire(&mut self, id: u64) {
        if let Some(counts) = self.others.remove(&id) {
            self.base.add(&counts);
        }
        self.note_ended(id);
    }

    fn note_ended(&mut self, id: u64) {
        if self.ended.contains(&id) {
            return;
        }
        self.ended.push(id);
        let surplus = self.ended.len().saturating_sub(ENDED_MAX);
        self.ended.drain(..surplus);
    }

    /// What this process shows: `own` is what it counted itself, `wall` the time since 1970.
    #[must_use]
    pub fn show(&self, mut own: Status, wall: Duration) -> Status {
        let sum = self.sum();
        if sum.is_empty() && self.before.is_empty() {
            return own;
        }
        visit(&mut own, |place, name, count| {
            let before = self.before.of(place, name);
            *count = kind(name).together(count.saturating_sub(before), sum.of(place, name));
        });
        sum.date_back(&mut own, wall);
        own
    }

    /// What this process has counted, and those that ended before: `own` as in [`Self::show`].
    fn own(&self, own: &Status, wall: Duration) -> Counts {
        let mut counts = all(own, wall);
        counts.subtract(&self.before);
        counts.add(&self.base.only_places_of(&counts));
        counts
    }

    /// This process was succeeded: all that it knows, for its successor; and what it told of its own.
    #[must_use]
    pub fn hand_over(&self, own: &Status, wall: Duration) -> (Vec<Page>, Told) {
        let counts = self.own(own, wall);
        let told = Told {
            health: counts.frozen(),
            counts,
        };
        (self.known(&told), told)
    }

    /// All that it knows, once more.
    #[must_use]
    pub fn known(&self, told: &Told) -> Vec<Page> {
        let mut pages = vec![Page::Ended(self.ended.clone())];
        for (of, counts) in &self.others {
            pages.extend(pages_of(*of, counts, false));
        }
        pages.extend(self.repeat(told, false));
        pages.push(Page::Done);
        pages
    }

    /// This process goes on with the connections it has: what it counted since `told`, if anything.
    #[must_use]
    pub fn tell_again(&self, own: &Status, told: &mut Told, ended: bool) -> Vec<Page> {
        let mut counts = self.own(own, Duration::ZERO);
        // Its successor checks the servers, and counts that.
        told.health.put_into(&mut counts);
        if counts == told.counts && !ended {
            return Vec::new();
        }
        told.counts = counts;
        self.repeat(told, ended)
    }

    /// What was told last, once more.
    #[must_use]
    pub fn repeat(&self, told: &Told, ended: bool) -> Vec<Page> {
        pages_of(self.of, &told.counts, ended)
    }
}

/// What a process that was succeeded has told.
#[derive(Debug)]
pub struct Told {
    counts: Counts,
    health: Frozen,
}

fn pages_of(of: u64, counts: &Counts, ended: bool) -> Vec<Page> {
    let rows: Vec<_> = counts.rows().collect();
    let chunks = rows.chunks(ROWS_PER_PAGE);
    let mut pages: Vec<Counted> = chunks
        .map(|chunk| {
            let mut names = BTreeMap::new();
            let rows = chunk.iter().map(|((proxy, server), counts)| {
                let counts = counts.iter().filter_map(|(name, count)| {
                    let next = u16::try_from(names.len()).ok()?;
                    Some((*names.entry(name.clone()).or_insert(next), *count))
                });
                Row {
                    proxy: (*proxy).to_owned(),
                    server: (*server).to_owned(),
                    counts: counts.collect(),
                }
            });
            let rows = rows.collect();
            let mut names: Vec<_> = names.into_iter().collect();
            names.sort_by_key(|(_, at)| *at);
            Counted {
                of,
                names: names.into_iter().map(|(name, _)| name).collect(),
                rows,
                ended: false,
            }
        })
        .collect();
    match pages.last_mut() {
        Some(last) => last.ended = ended,
        None => pages.push(Counted {
            of,
            names: Vec::new(),
            rows: Vec::new(),
            ended,
        }),
    }
    pages.into_iter().map(Page::Counts).collect()
}

#[cfg(test)]
mod tests;
