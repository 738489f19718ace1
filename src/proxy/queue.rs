//! Who waits for a server: one bounded FIFO per proxy, across all workers. Pure. When a waiter
//! has waited too long is its worker's business; it then leaves the queue.

use std::collections::{HashMap, VecDeque};

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

/// The waiting line: those who had a server and lost it, then the others, each in the order they
/// came. Joining, leaving and being served take the same short time however many wait.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    again: Lane,
    first: Lane,
    places: HashMap<Ticket, Place>,
    longest: usize,
}

/// Where somebody waits.
#[derive(Debug, Clone, Copy)]
struct Place {
    again: bool,
    number: u64,
}

/// Waiters by number. A leaver leaves a gap, and gaps never outnumber those who wait by much.
#[derive(Debug, Clone, Default)]
struct Lane {
    line: VecDeque<Option<Waiter>>,
    /// The number of the one at the head.
    head: u64,
    waiting: usize,
}

/// Gaps that a lane may always have.
const GAPS_FREE: usize = 64;

impl Lane {
    /// Joins at the end; answers the number.
    fn push(&mut self, waiter: Waiter) -> u64 {
        let number = self.head.wrapping_add(wide(self.line.len()));
        self.line.push_back(Some(waiter));
        self.waiting += 1;
        number
    }

    /// Takes whoever has this number.
    fn take(&mut self, number: u64) -> Option<Waiter> {
        let index = usize::try_from(number.wrapping_sub(self.head)).ok()?;
        let waiter = self.line.get_mut(index)?.take()?;
        self.waiting -= 1;
        while let Some(None) = self.line.front() {
            self.line.pop_front();
            self.head = self.head.wrapping_add(1);
        }
        Some(waiter)
    }

    /// Whether it is worth it to close the gaps.
    fn is_full_of_gaps(&self) -> bool {
        self.line.len() > 2 * self.waiting + GAPS_FREE
    }

    /// Those who wait, with their numbers, in order.
    fn waiters(&self) -> impl Iterator<Item = (u64, &Waiter)> {
        let line = self.line.iter().enumerate();
        line.filter_map(|(at, waiter)| Some((self.head.wrapping_add(wide(at)), waiter.as_ref()?)))
    }

    /// Closes the gaps: everybody has another number.
    fn close_gaps(&mut self, again: bool, places: &mut HashMap<Ticket, Place>) {
        self.line.retain(Option::is_some);
        for (number, waiter) in self.waiters() {
            places.insert(waiter.ticket, Place { again, number });
        }
    }
}

impl Queue {
    /// How many wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.again.waiting + self.first.waiting
    }

    /// Whether nobody waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
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
        let before = self.len();
        if before >= limit {
            return Err(Full);
        }
        self.join(waiter, false);
        Ok(before)
    }

    /// Joins those that had their turn already, and lost their server: they stand before all others.
    /// Not bounded by the limit: it was admitted before. Answers how many stand before it.
    pub fn push_again(&mut self, waiter: Waiter) -> usize {
        let before = self.again.waiting;
        self.join(waiter, true);
        before
    }

    fn join(&mut self, waiter: Waiter, again: bool) {
        let number = self.lane(again).push(waiter);
        let earlier = self.places.insert(waiter.ticket, Place { again, number });
        // A ticket waits once; whoever joins twice has left its first place.
        if let Some(earlier) = earlier {
            self.vacate(earlier);
        }
        self.longest = self.longest.max(self.len());
    }

    /// Removes a leaver; `false` when it does not wait (any more).
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(place) = self.places.remove(&ticket) else {
            return false;
        };
        self.vacate(place).is_some()
    }

    /// Takes the first waiter that `choose` finds a server for. Whoever has tried no server yet
    /// could have any: if there is none for it, there is none for those behind.
    pub fn serve(
        &mut self,
        mut choose: impl FnMut(&Waiter) -> Option<usize>,
    ) -> Option<(Ticket, usize)> {
        let again = self.again.waiters().map(|(number, w)| (true, number, w));
        let first = self.first.waiters().map(|(number, w)| (false, number, w));
        let mut in_vain = None;
        let mut found = None;
        for (again, number, waiter) in again.chain(first) {
            if in_vain == Some(waiter.tried) {
                continue;
            }
            if let Some(server) = choose(waiter) {
                found = Some((Place { again, number }, server));
                break;
            }
            if waiter.tried.is_empty() {
                break;
            }
            in_vain = Some(waiter.tried);
        }
        let (place, server) = found?;
        let waiter = self.vacate(place)?;
        self.places.remove(&waiter.ticket);
        Some((waiter.ticket, server))
    }

    /// Takes the first waiter.
    pub fn pop(&mut self) -> Option<Ticket> {
        self.serve(|_| Some(0)).map(|(ticket, _)| ticket)
    }

    /// Makes a gap of a place. Where its ticket waits is the caller's to note.
    fn vacate(&mut self, place: Place) -> Option<Waiter> {
        let lane = self.lane(place.again);
        let waiter = lane.take(place.number)?;
        if lane.is_full_of_gaps() {
            let Self {
                again,
                first,
                places,
                ..
            } = self;
            let lane = if place.again { again } else { first };
            lane.close_gaps(place.again, places);
        }
        Some(waiter)
    }

    const fn lane(&mut self, again: bool) -> &mut Lane {
        if again {
            &mut self.again
        } else {
            &mut self.first
        }
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
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
    fn whoever_joins_twice_waits_once_at_its_last_place() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(waiter(1), 9), Ok(0));
        assert_eq!(queue.push(waiter(2), 9), Ok(1));
        assert_eq!(queue.push(waiter(1), 9), Ok(2));
        assert_eq!(queue.len(), 2);
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|t| t.slot).collect();
        assert_eq!(order, [2, 1]);
        assert!(!queue.remove(waiter(1).ticket));
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
    fn those_who_lost_their_server_stand_before_the_others_in_the_order_they_lost_it() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(waiter(1), 2), Ok(0));
        assert_eq!(queue.push(waiter(2), 2), Ok(1));
        assert_eq!(queue.push_again(waiter(3)), 0);
        assert_eq!(queue.push_again(waiter(4)), 1);
        assert_eq!((queue.len(), queue.longest()), (4, 4));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|t| t.slot).collect();
        assert_eq!(order, [3, 4, 1, 2]);
    }

    #[test]
    fn whoever_could_have_any_server_and_finds_none_speaks_for_those_behind() {
        let mut queue = Queue::default();
        let mut burnt = waiter(1);
        burnt.tried.mark(4);
        queue.push_again(burnt);
        queue.push_again(Waiter {
            ticket: waiter(2).ticket,
            ..burnt
        });
        for slot in 3..1000 {
            assert!(queue.push(waiter(slot), 9999).is_ok());
        }
        let mut asked = Vec::new();
        assert_eq!(
            queue.serve(|waiter| {
                asked.push(waiter.tried.is_empty());
                None
            }),
            None
        );
        assert_eq!(asked, [false, true]);
    }

    #[test]
    fn leavers_anywhere_keep_the_order_and_leave_no_gaps_behind() {
        let mut queue = Queue::default();
        for slot in 0..100_000 {
            assert!(queue.push(waiter(slot), 100_000).is_ok());
        }
        // From the back, so that nothing is trimmed at the head.
        for slot in (0..100_000).rev().filter(|slot| slot % 1000 != 7) {
            assert!(queue.remove(waiter(slot).ticket));
            assert!(!queue.remove(waiter(slot).ticket));
        }
        assert_eq!(queue.len(), 100);
        assert!(queue.first.line.len() <= 264, "{}", queue.first.line.len());
        assert_eq!((queue.places.len(), queue.longest()), (100, 100_000));
        assert_eq!(queue.push(waiter(5), 101), Ok(100));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|t| t.slot).collect();
        let mut expected: Vec<u32> = (0..100).map(|k| k * 1000 + 7).collect();
        expected.push(5);
        assert_eq!(order, expected);
        assert!(queue.is_empty() && queue.places.is_empty() && queue.first.line.is_empty());
    }

    #[test]
    fn servers_beyond_the_mask_share_its_last_bit() {
        let mut tried = Tried::default();
        tried.mark(70);
        assert!(tried.contains(63) && tried.contains(100) && !tried.contains(62));
    }
}
