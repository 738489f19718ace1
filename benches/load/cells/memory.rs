//! The workloads that are about user memory. Each is given a program that has just started: what
//! an allocator keeps from an earlier load would hide what this one needs.

use std::io;
use std::time::Duration;

use super::{Bench, CONNECTIONS, Cell, END_IN};
use crate::client::{Counts, Load, Talk, Then, Work};
use crate::targets::{Target, small};
use crate::usage::Memory;

/// Clients that don't read, or slowly.
const READERS: usize = 100;
const STALLED_ANSWER: u64 = 16 * 1024 * 1024;
const SLOW_ANSWER: u64 = 8 * 1024 * 1024;
/// What a slow reader takes at once, and how often: 0.8 MB/s.
const SIP: u64 = 16 * 1024;
const SIP_EVERY: Duration = Duration::from_millis(20);

impl Bench<'_> {
    /// Connections that have exchanged once and are silent.
    pub(super) fn idle(&self, cell: &mut Cell, target: &Target) -> io::Result<Counts> {
        let connections = self.sizes.idle;
        let (first, base) = self.warm_up(cell, target)?;
        let start = self.account(target);
        let mut load = self.load(target)?;
        load.open(small(Then::Hold), connections);
        load.run_until_done(connections as u64, END_IN * 2)?;
        // Silent for a moment: what a program gives back when a connection is quiet counts.
        load.run(self.sizes.window / 2)?;
        cell.units = load.counts().done as f64;
        cell.grow(base, target.memory(), connections);
        cell.charge(&start, &self.account(target));
        Ok(sum(first, load.finish(END_IN)?))
    }

    /// Nobody reads until the memory is taken; then everybody reads it all.
    pub(super) fn stalled(&self, cell: &mut Cell, target: &Target) -> io::Result<Counts> {
        let (first, base) = self.warm_up(cell, target)?;
        let start = self.account(target);
        let mut load = self.load(target)?;
        load.starve();
        load.open(long(STALLED_ANSWER), READERS);
        let mut most = base;
        for _ in 0..10 {
            load.run(self.sizes.window / 10)?;
            most = most.most(target.memory());
        }
        cell.grow(base, most, READERS);
        self.read_all(cell, load, first, &start, target)
    }

    /// Everybody sips for a while; then everybody reads it all.
    pub(super) fn slow_readers(&self, cell: &mut Cell, target: &Target) -> io::Result<Counts> {
        let (first, base) = self.warm_up(cell, target)?;
        let start = self.account(target);
        let mut load = self.load(target)?;
        load.starve();
        load.open(long(SLOW_ANSWER), READERS);
        let mut most = base;
        let sips = self.sizes.window.as_millis() / SIP_EVERY.as_millis();
        for sip in 0..sips {
            load.run(SIP_EVERY)?;
            load.feed(Some(SIP));
            if sip % 5 == 0 {
                most = most.most(target.memory());
            }
        }
        cell.grow(base, most, READERS);
        self.read_all(cell, load, first, &start, target)
    }

    fn read_all(
        &self,
        cell: &mut Cell,
        mut load: Load<'_>,
        first: Counts,
        start: &super::Account,
        target: &Target,
    ) -> io::Result<Counts> {
        load.feed(None);
        load.run_until_done(READERS as u64, END_IN * 2)?;
        cell.units = load.counts().done as f64;
        cell.charge(start, &self.account(target));
        Ok(sum(first, load.finish(END_IN)?))
    }

    /// What the first connections make a program allocate once is not per connection.
    fn warm_up(&self, cell: &mut Cell, target: &Target) -> io::Result<(Counts, Memory)> {
        let fresh = target.memory();
        cell.pss_base = fresh.pss as f64;
        cell.rss_base = fresh.rss as f64;
        let mut first = self.load(target)?;
        first.open(small(Then::Close), CONNECTIONS);
        first.run_until_done(CONNECTIONS as u64, END_IN)?;
        let counts = first.finish(END_IN)?;
        Ok((counts, target.memory()))
    }
}

impl Cell {
    fn grow(&mut self, base: Memory, full: Memory, connections: usize) {
        let each = |now: u64, before: u64| (now as f64 - before as f64) / connections as f64;
        self.pss_each = each(full.pss, base.pss);
        self.rss_each = each(full.rss, base.rss);
    }
}

fn long(answer: u64) -> Work {
    let request = 64;
    Work {
        talk: Talk::Exchange { request, answer },
        then: Then::Close,
    }
}

fn sum(mut first: Counts, second: Counts) -> Counts {
    first.bytes_in += second.bytes_in;
    first.bytes_out += second.bytes_out;
    for (cause, count) in second.failures {
        *first.failures.entry(cause).or_default() += count;
    }
    first
}
