//! How several proxy processes keep one limit together: a table in shared memory, with a line for each
//! limit and a column for each process. A process claims what it takes beyond what it has, and gives
//! back what it doesn't use; a claim is granted while the sum of the line stays within the limit. So the
//! limit is never exceeded, whoever ends at whatever moment: the keeper clears the column of one that
//! has gone.
//!
//! While a process is alone it has everything, and nobody looks here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::shm::{self, Words};

/// Processes at a time: one that serves, one that is to succeed it, and those that drain.
pub const COLUMNS: usize = 12;
/// Limits that are kept; further ones are each process's own affair.
const LINES: usize = 2048;
/// Lines for sources of connections, behind those: for as many different ones as are seen since sharing
/// began; further ones are each process's own affair.
const SOURCES: usize = 8192;
/// Where the owners' process ids stand; before them, who is alone.
const OWNERS: usize = 2;
const HEAD: usize = 16;
/// A line: its key, the sum, the columns; two cache lines.
const LINE_WORDS: usize = 16;
const SUM: usize = 1;
const CELLS: usize = 2;
/// Lines that are looked at for a key.
const PROBES: usize = 64;
const WORDS: usize = HEAD + (LINES + SOURCES) * LINE_WORDS;

/// The table.
#[derive(Debug)]
pub struct Shares(Words);

/// The table, and this process's column of it.
#[derive(Debug, Clone)]
pub struct Column {
    /// The table.
    pub shares: Arc<Shares>,
    /// Which column.
    pub column: u8,
}

impl Column {
    /// One more of what `key` names, if all processes together stay within `limit`. Where the table
    /// is full that is what this one keeps by itself.
    pub(super) fn claim(&self, key: u64, limit: u32) -> bool {
        match self.shares.line(key) {
            Some(line) => !self.shares.is_closed() && line.claim(self.column, limit),
            None => true,
        }
    }

    /// This process has so many already.
    pub(super) fn declare(&self, key: u64, count: u32) {
        if let Some(line) = self.shares.line(key) {
            line.declare(self.column, count);
        }
    }

    /// So many are free for others.
    pub(super) fn give(&self, key: u64, count: u32) {
        if let Some(line) = self.shares.line(key) {
            line.give(self.column, count);
        }
    }

    /// One more connection of a source. While another process has everything nobody knows what that
    /// is: then this one's own count decides, as where the table is full.
    pub(super) fn enter_source(&self, key: u64, limit: u32) -> bool {
        let Some(line) = self.shares.source(key) else {
            return true;
        };
        if limit == u32::MAX || self.shares.is_closed() {
            line.declare(self.column, 1);
            return true;
        }
        line.claim(self.column, limit)
    }

    /// A source has so many connections already.
    pub(super) fn declare_source(&self, key: u64, count: u32) {
        if let Some(line) = self.shares.source(key) {
            line.declare(self.column, count);
        }
    }

    /// A connection of a source has ended.
    pub(super) fn leave_source(&self, key: u64) {
        if let Some(line) = self.shares.source(key) {
            line.give(self.column, 1);
        }
    }

    /// What all processes have.
    pub(super) fn taken(&self, key: u64) -> u64 {
        self.shares.line(key).map_or(0, |line| line.taken())
    }
}

/// A line of it.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a>(&'a [AtomicU64]);

impl Shares {
    /// An empty table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create() -> io::Result<Self> {
        Self::open(shm::create("lbd limits", WORDS)?)
    }

    /// One that another process has made.
    ///
    /// # Errors
    /// When it isn't one; the kernel's.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        Words::map(fd, WORDS).map(Self)
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.0.get(at)
    }

    fn owner(&self, column: usize) -> Option<&AtomicU64> {
        self.word(OWNERS + column).filter(|_| column < COLUMNS)
    }

    /// Gives a free column to a process. The keeper's.
    #[must_use]
    pub fn assign(&self, pid: u32) -> Option<u8> {
        let free = |column: &usize| {
            let owner = self.owner(*column);
            owner.is_some_and(|owner| owner.load(Ordering::Acquire) == 0)
        };
        let column = (0..COLUMNS).find(free)?;
        self.owner(column)?.store(pid.into(), Ordering::Release);
        u8::try_from(column).ok()
    }

    /// The processes that have columns.
    pub fn owners(&self) -> impl Iterator<Item = u32> {
        let columns = (0..COLUMNS).filter_map(|column| self.owner(column));
        let pids = columns.map(|owner| owner.load(Ordering::Acquire));
        pids.filter_map(|pid| u32::try_from(pid).ok().filter(|pid| *pid != 0))
    }

    /// A process has gone: what it had is free. The keeper's.
    pub fn forget(&self, pid: u32) {
        for column in 0..COLUMNS {
            let Some(owner) = self.owner(column) else {
                continue;
            };
            if owner.load(Ordering::Acquire) != u64::from(pid) {
                continue;
            }
            for line in self.used_lines() {
                line.clear(column);
            }
            self.end_alone(column);
            owner.store(0, Ordering::Release);
        }
    }

    /// Which process has everything: its column and one; 0: none has.
    fn alone(&self) -> Option<&AtomicU64> {
        self.word(0)
    }

    /// From here on this process has everything. It is the only one.
    pub fn be_alone(&self, column: u8) {
        for line in self.used_lines() {
            line.reset();
        }
        if let Some(alone) = self.alone() {
            alone.store(u64::from(column) + 1, Ordering::Release);
        }
    }

    /// It has claimed what it has: others may claim the rest.
    pub fn end_alone(&self, column: usize) {
        let mark = u64::try_from(column).map_or(0, |column| column + 1);
        if let Some(alone) = self.alone()
            && alone.load(Ordering::Acquire) == mark
        {
            alone.store(0, Ordering::Release);
        }
    }

    /// Whether nobody can claim, for somebody has everything.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.alone()
            .is_none_or(|alone| alone.load(Ordering::Acquire) != 0)
    }

    fn line_at(&self, at: usize) -> Option<Line<'_>> {
        let start = HEAD + at * LINE_WORDS;
        self.0.get(start..start + LINE_WORDS).map(Line)
    }

    fn used_lines(&self) -> impl Iterator<Item = Line<'_>> {
        let lines = (0..LINES + SOURCES).filter_map(|at| self.line_at(at));
        lines.filter(Line::is_used)
    }

    /// Looks for the key's line among `count` lines from `first` on.
    fn find(&self, key: u64, first: usize, count: usize) -> Option<Line<'_>> {
        let key = key.max(1);
        let at = usize::try_from(key % u64::try_from(count).ok()?).ok()?;
        let places = (at..at + PROBES).map(|at| first + at % count);
        let mut lines = places.filter_map(|at| self.line_at(at));
        lines.find(|line| line.is_of(key))
    }

    /// The line of a limit, by whatever names it; `None`: the table is full.
    #[must_use]
    pub fn line(&self, key: u64) -> Option<Line<'_>> {
        self.find(key, 0, LINES)
    }

    /// The line of a source of connections; `None`: the table is full.
    #[must_use]
    pub fn source(&self, key: u64) -> Option<Line<'_>> {
        self.find(key, LINES, SOURCES)
    }
}

impl AsFd for Shares {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Line<'_> {
    fn key(&self) -> Option<&AtomicU64> {
        self.0.first()
    }

    fn sum(&self) -> Option<&AtomicU64> {
        self.0.get(SUM)
    }

    fn cell(&self, column: usize) -> Option<&AtomicU64> {
        self.0.get(CELLS + column)
    }

    fn is_used(&self) -> bool {
        self.key()
            .is_some_and(|key| key.load(Ordering::Acquire) != 0)
    }

    /// Whether it is this key's, or is from here on.
    fn is_of(&self, key: u64) -> bool {
        let Some(own) = self.key() else {
            return false;
        };
        // Looking takes no cache line from those who use it.
        let present = own.load(Ordering::Acquire);
        if present != 0 {
            return present == key;
        }
        let taken = own.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(key)
    }

    /// One more for this column, if the sum stays within `limit`. First the sum, then the column: whoever
    /// ends between the two leaves less to others, never more.
    #[must_use]
    pub fn claim(&self, column: u8, limit: u32) -> bool {
        let (Some(sum), Some(cell)) = (self.sum(), self.cell(column.into())) else {
            return false;
        };
        let within = |sum: u64| (sum < u64::from(limit)).then_some(sum + 1);
        let granted = sum.fetch_update(Ordering::AcqRel, Ordering::Acquire, within);
        if granted.is_ok() {
            cell.fetch_add(1, Ordering::AcqRel);
        }
        granted.is_ok()
    }

    /// What this column has already, whatever the limit.
    pub fn declare(&self, column: u8, count: u32) {
        let (Some(sum), Some(cell)) = (self.sum(), self.cell(column.into())) else {
            return;
        };
        sum.fetch_add(count.into(), Ordering::AcqRel);
        cell.fetch_add(count.into(), Ordering::AcqRel);
    }

    /// This column needs so many less. First the column, then the sum.
    pub fn give(&self, column: u8, count: u32) {
        let (Some(sum), Some(cell)) = (self.sum(), self.cell(column.into())) else {
            return;
        };
        let less = |held: u64| Some(held.saturating_sub(count.into()));
        let held = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        subtract(sum, held.unwrap_or(0).min(count.into()));
    }

    fn clear(&self, column: usize) {
        if let (Some(sum), Some(cell)) = (self.sum(), self.cell(column)) {
            subtract(sum, cell.swap(0, Ordering::AcqRel));
        }
    }

    /// Nobody's from here on.
    fn reset(&self) {
        for word in self.0 {
            word.store(0, Ordering::Release);
        }
    }

    /// What all columns have.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.sum().map_or(0, |sum| sum.load(Ordering::Acquire))
    }
}

fn subtract(sum: &AtomicU64, count: u64) {
    let mut present = sum.load(Ordering::Acquire);
    while let Err(other) = sum.compare_exchange_weak(
        present,
        present.saturating_sub(count),
        Ordering::AcqRel,
        Ordering::Acquire,
    ) {
        present = other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_share_one_limit_and_a_dead_ones_share_is_free() {
        let ours = Shares::create().unwrap();
        let theirs = Shares::open(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let (a, b) = (ours.assign(100).unwrap(), ours.assign(200).unwrap());
        assert_eq!((a, b), (0, 1));
        let claim = |shares: &Shares, column| shares.line(77).unwrap().claim(column, 3);
        assert!(claim(&ours, a) && claim(&theirs, b) && claim(&theirs, b));
        assert!(!claim(&ours, a) && !claim(&theirs, b));
        theirs.line(77).unwrap().give(b, 1);
        assert!(claim(&ours, a));
        ours.forget(200);
        assert_eq!(ours.line(77).unwrap().taken(), 2);
        assert_eq!(ours.owners().collect::<Vec<_>>(), [100]);
        assert!(claim(&ours, a) && !claim(&ours, a));
        // Another limit has a line of its own.
        assert_eq!(ours.line(78).unwrap().taken(), 0);
    }

    #[test]
    fn whoever_is_alone_has_everything_until_it_says_what_it_has() {
        let shares = Shares::create().unwrap();
        let column = shares.assign(7).unwrap();
        assert!(shares.line(1).unwrap().claim(column, 9));
        shares.be_alone(column);
        assert!(shares.is_closed());
        assert_eq!(shares.line(1).unwrap().taken(), 0);
        shares.line(1).unwrap().declare(column, 5);
        shares.end_alone(column.into());
        assert!(!shares.is_closed());
        assert_eq!(shares.line(1).unwrap().taken(), 5);
        // One that ended while it was alone.
        shares.be_alone(column);
        shares.forget(7);
        assert!(!shares.is_closed());
    }

    #[test]
    fn a_limit_that_finds_no_line_is_each_processs_own_affair() {
        let shares = Arc::new(Shares::create().unwrap());
        let column = Column {
            column: shares.assign(1).unwrap(),
            shares: Arc::clone(&shares),
        };
        (1..=2048).for_each(|key| assert!(shares.line(key).is_some()));
        assert!(shares.line(9_999).is_none());
        assert!(column.claim(9_999, 1) && column.claim(9_999, 1));
        // Those that have a line are kept.
        assert!(column.claim(7, 1) && !column.claim(7, 1));
    }

    #[test]
    fn giving_back_more_than_one_has_takes_nothing_from_others() {
        let shares = Shares::create().unwrap();
        let (a, b) = (shares.assign(1).unwrap(), shares.assign(2).unwrap());
        let line = shares.line(5).unwrap();
        line.declare(a, 2);
        line.declare(b, 3);
        line.give(a, 9);
        assert_eq!(line.taken(), 3);
    }

    #[test]
    fn a_storm_of_claims_never_exceeds_the_limit() {
        let shares = Shares::create().unwrap();
        std::thread::scope(|scope| {
            for pid in 1..=4 {
                let shares = &shares;
                scope.spawn(move || {
                    let column = shares.assign_for_test(pid);
                    let line = shares.line(3).unwrap();
                    for _ in 0..20_000 {
                        if line.claim(column, 10) {
                            assert!(line.taken() <= 10);
                            line.give(column, 1);
                        }
                    }
                });
            }
        });
        assert_eq!(shares.line(3).unwrap().taken(), 0);
    }

    impl Shares {
        /// Columns are the keeper's to give; here each thread has its own.
        fn assign_for_test(&self, pid: u32) -> u8 {
            let column = u8::try_from(pid).unwrap();
            self.owner(pid.try_into().unwrap())
                .unwrap()
                .store(pid.into(), Ordering::Release);
            column
        }
    }
}
