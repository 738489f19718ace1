//! Who waits for a server: one bounded FIFO per proxy, across all workers. Pure. When a waiter
//! has waited too long is its worker's business; it then leaves the queue.

use std::collections::VecDeque;

use super::balance::Key;

/// A connection, named so that every worker can hand it a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The worker that owns the connection.
    pub worker: u16,
    /// Its slot there.
    pub slot: u32,
    /// Tells this user of the slot from earlier ones.
    pub serial: u32,
}

/// Servers that a connection has failed on, so that a retry goes elsewhere. Servers beyond the
/// 64th share the last mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tried(u64);

impl Tried {
    /// Nothing failed yet.
    pub const NONE: Self = Self(0);

    /// Marks `server`.
    pub fn mark(&mut self, server: usize) {
        self.0 |= 1 << server.min(63);
    }

    /// Whether `server` is marked.
    #[must_use]
    pub fn contains(self, server: usize) -> bool {
        self.0 & (1 << server.min(63)) != 0
    }

    /// Whether nothing failed yet.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Who waits.
    pub ticket: Ticket,
    /// Where it has been already.
    pub tried: Tried,
    /// Who it is, where that matters.
    pub key: Key,
}

/// The queue is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The waiting line.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    line: VecDeque<Waiter>,
    longest: usize,
}

impl Queue {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The most that ever waited.
    #[must_use]
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// Joins at the end; answers how many stand before it.
    ///
    /// # Errors
    /// [`Full`] when `limit` wait already.
    pub fn push(&mut self, waiter: Waiter, limit: usize) -> Result<usize, Full> {
        let before = self.line.len();
        if before >= limit {
            return Err(Full);
        }
        self.line.push_back(waiter);
        self.longest = self.longest.max(self.line.len());
        Ok(before)
    }

    /// Puts one that had its turn already, and lost its server, back to the head. Not bounded by
    /// the limit: it was admitted before.
    pub fn push_front(&mut self, waiter: Waiter) {
        self.line.push_front(waiter);
        self.longest = self.longest.max(self.line.len());
    }

    /// Removes a leaver; `false` when it does not wait (any more).
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(index) = self.line.iter().position(|w| w.ticket == ticket) else {
            return false;
        };
        self.line.remove(index).is_some()
    }

    /// Takes the first waiter that `choose` finds a server for.
    pub fn serve(
        &mut self,
        mut choose: impl FnMut(&Waiter) -> Option<usize>,
    ) -> Option<(Ticket, usize)> {
        let (index, server) = self
            .line
            .iter()
            .enumerate()
            .find_map(|(index, waiter)| Some((index, choose(waiter)?)))?;
        let waiter = self.line.remove(index)?;
        Some((waiter.ticket, server))
    }

    /// Takes the first waiter.
    pub fn pop(&mut self) -> Option<Ticket> {
        self.line.pop_front().map(|waiter| waiter.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(slot: u32) -> Waiter {
        Waiter {
            ticket: Ticket {
                worker: 0,
                slot,
                serial: 0,
            },
            tried: Tried::default(),
            key: Key::NONE,
        }
    }

    #[test]
    fn the_first_to_come_is_the_first_served() {
        let mut queue = Queue::default();
        for slot in 0..3 {
            assert_eq!(
                queue.push(waiter(slot), 3),
                Ok(usize::try_from(slot).unwrap())
            );
        }
        let served: Vec<u32> = std::iter::from_fn(|| queue.serve(|_| Some(9)))
            .map(|(ticket, _)| ticket.slot)
            .collect();
        assert_eq!(served, [0, 1, 2]);
    }

    #[test]
    fn one_too_many_is_refused_and_a_leaver_makes_room() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(waiter(1), 2), Ok(0));
        assert_eq!(queue.push(waiter(2), 2), Ok(1));
        assert_eq!(queue.push(waiter(3), 2), Err(Full));
        assert!(queue.remove(waiter(1).ticket));
        assert!(!queue.remove(waiter(1).ticket));
        assert_eq!(queue.push(waiter(3), 2), Ok(1));
        assert_eq!(queue.longest(), 2);
    }

    #[test]
    fn a_waiter_that_failed_on_the_free_server_lets_the_next_one_have_it() {
        let mut queue = Queue::default();
        let mut burnt = waiter(1);
        burnt.tried.mark(4);
        assert_eq!(queue.push(burnt, 9), Ok(0));
        assert_eq!(queue.push(waiter(2), 9), Ok(1));
        let free = |waiter: &Waiter| (!waiter.tried.contains(4)).then_some(4);
        assert_eq!(queue.serve(free), Some((waiter(2).ticket, 4)));
        assert_eq!(queue.serve(free), None);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn servers_beyond_the_mask_share_its_last_bit() {
        let mut tried = Tried::default();
        tried.mark(70);
        assert!(tried.contains(63) && tried.contains(100) && !tried.contains(62));
    }
}
