//! Limits that another process keeps, too: while there is one, a server's slots are those that were
//! claimed for it from a common pool. More are claimed when somebody would have to wait, and what is
//! not used is given back. While this process is alone none of this is in the way.

use std::fmt::Debug;
use std::sync::Arc;

use super::Dispatch;
use crate::proxy::server::Server;

/// Where slots come from that several processes share; servers by [`Server::seed`].
pub trait Pool: Debug + Send + Sync {
    /// One more slot, if all processes together stay within `limit`.
    fn claim(&self, seed: u64, limit: u32) -> bool;
    /// This process has so many already.
    fn declare(&self, seed: u64, count: u32);
    /// So many are free for others.
    fn give(&self, seed: u64, count: u32);
}

/// Of one dispatcher.
#[derive(Debug)]
pub(super) struct Sharing {
    pool: Arc<dyn Pool>,
    /// By place.
    claimed: Vec<u32>,
}

impl Sharing {
    /// The slots claimed for a server; one without a limit needs none.
    pub(super) fn bound(&self, place: usize, server: &Server) -> u32 {
        match server.max() {
            None => u32::MAX,
            Some(_) => self.claimed.get(place).copied().unwrap_or(0),
        }
    }

    fn add(&mut self, place: usize) {
        if self.claimed.len() <= place {
            self.claimed.resize(place + 1, 0);
        }
        if let Some(claimed) = self.claimed.get_mut(place) {
            *claimed = claimed.saturating_add(1);
        }
    }
}

impl Dispatch {
    /// Another process uses the servers, too, from here on.
    pub fn share(&mut self, pool: Arc<dyn Pool>) {
        if self.sharing.is_some() {
            return;
        }
        let claimed = (0..self.servers.len()).map(|place| {
            let limited = self.server(place).filter(|server| server.max().is_some());
            let (Some(server), Some(slots)) = (limited, self.board.slots(place)) else {
                return 0;
            };
            let used = slots.lower(slots.used());
            pool.declare(server.seed(), used);
            used
        });
        let claimed = claimed.collect();
        self.sharing = Some(Sharing { pool, claimed });
        self.reopen();
    }

    /// This process is alone.
    pub fn end_sharing(&mut self) {
        if self.sharing.take().is_some() {
            self.reopen();
            self.pump();
        }
    }

    fn reopen(&self) {
        for place in 0..self.servers.len() {
            if let Some(slots) = self.board.slots(place) {
                slots.set_limit(self.open_limit(place));
            }
        }
    }

    /// Claims one more slot on each server that has none left; whether there are more now.
    pub(super) fn claim_slots(&mut self) -> bool {
        let Some(mut sharing) = self.sharing.take() else {
            return false;
        };
        let mut granted = Vec::new();
        for (place, server) in self.members() {
            let limit = server.limit(!self.cold);
            let bound = sharing.bound(place, server);
            let full = self
                .board
                .slots(place)
                .is_some_and(|slots| slots.used() >= bound);
            let wanted = server.able() && bound < limit && full;
            if wanted && sharing.pool.claim(server.seed(), limit) {
                granted.push(place);
            }
        }
        granted.iter().for_each(|place| sharing.add(*place));
        self.sharing = Some(sharing);
        for place in &granted {
            if let Some(slots) = self.board.slots(*place) {
                slots.set_limit(self.open_limit(*place));
            }
        }
        !granted.is_empty()
    }

    /// Gives back what is not used, but for `spare` slots a server, and serves those who wait with what
    /// others gave back. To be called often while there is another process.
    pub fn settle_sharing(&mut self, spare: u32) {
        let Some(mut sharing) = self.sharing.take() else {
            return;
        };
        for place in 0..self.servers.len() {
            let limited = self.server(place).filter(|server| server.max().is_some());
            let (Some(server), Some(slots)) = (limited, self.board.slots(place)) else {
                continue;
            };
            let seed = server.seed();
            let Some(claimed) = sharing.claimed.get_mut(place) else {
                continue;
            };
            let least = slots.used().saturating_add(spare);
            if *claimed <= least {
                continue;
            }
            let keep = slots.lower(least).min(*claimed);
            sharing.pool.give(seed, *claimed - keep);
            *claimed = keep;
        }
        self.sharing = Some(sharing);
        self.reopen();
        self.pump();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::model::MaxQueue;
    use crate::health::fsm::Health;
    use crate::proxy::balance::Key;
    use crate::proxy::dispatch::tests::{proxy, server};
    use crate::proxy::dispatch::{Admission, Turn};
    use crate::proxy::queue::{Ticket, Tried};

    /// What all have of the one server.
    #[derive(Debug, Default)]
    struct One(Mutex<u32>);

    impl Pool for One {
        fn claim(&self, _seed: u64, limit: u32) -> bool {
            let mut taken = self.0.lock().unwrap();
            let granted = *taken < limit;
            *taken += u32::from(granted);
            granted
        }
        fn declare(&self, _seed: u64, count: u32) {
            *self.0.lock().unwrap() += count;
        }
        fn give(&self, _seed: u64, count: u32) {
            *self.0.lock().unwrap() -= count;
        }
    }

    fn of_one(max: u32) -> Dispatch {
        let mut dispatch = Dispatch::new(&proxy(vec![server(1, max)], MaxQueue::Total(9)));
        dispatch.restore(0, true, None, crate::net::clock::now());
        assert_eq!(
            dispatch.server(0).and_then(Server::health),
            Some(Health::up_or_not(true))
        );
        dispatch
    }

    fn admit(dispatch: &mut Dispatch, slot: u32) -> Admission {
        let ticket = Ticket {
            worker: 0,
            slot,
            serial: slot,
        };
        if let Some(server) = dispatch.board().take(Key::NONE) {
            return Admission::Server(server);
        }
        dispatch.admit(ticket, Tried::default(), Turn::First, Key::NONE)
    }

    #[test]
    fn two_dispatchers_keep_one_limit_and_use_all_of_it() {
        let pool = Arc::new(One::default());
        let (mut old, mut new) = (of_one(3), of_one(3));
        assert_eq!(admit(&mut old, 1), Admission::Server(0));
        assert_eq!(admit(&mut old, 2), Admission::Server(0));
        old.share(pool.clone());
        new.share(pool.clone());
        assert_eq!(*pool.0.lock().unwrap(), 2);
        assert_eq!(admit(&mut new, 1), Admission::Server(0));
        assert_eq!(admit(&mut new, 2), Admission::Queued(0));
        assert_eq!(admit(&mut old, 3), Admission::Queued(0));
        assert_eq!(old.release(0), 1);
        // Its own queue's head got the slot.
        assert_eq!(old.take_notices().len(), 1);
        assert_eq!(old.release(0), 1);
        old.settle_sharing(0);
        assert_eq!(*pool.0.lock().unwrap(), 2);
        new.settle_sharing(0);
        assert_eq!(new.take_notices().len(), 1);
        assert_eq!(*pool.0.lock().unwrap(), 3);
        assert_eq!(admit(&mut old, 4), Admission::Queued(0));
    }

    #[test]
    fn one_that_is_alone_again_has_its_whole_limit() {
        let pool = Arc::new(One::default());
        let mut new = of_one(2);
        new.share(pool.clone());
        pool.declare(0, 2);
        assert_eq!(admit(&mut new, 1), Admission::Queued(0));
        new.end_sharing();
        assert_eq!(new.take_notices().len(), 1);
        assert_eq!(new.release(0), 0);
        assert_eq!(admit(&mut new, 2), Admission::Server(0));
        assert_eq!(admit(&mut new, 3), Admission::Server(0));
        assert_eq!(admit(&mut new, 4), Admission::Queued(0));
    }

    #[test]
    fn a_backup_with_room_keeps_nobody_from_claiming_the_slot_it_waits_for() {
        let pool = Arc::new(One::default());
        let mut backup = server(1, 0);
        backup.backup = true;
        let config = proxy(vec![server(1, 1), backup], MaxQueue::Total(9));
        let mut dispatch = Dispatch::new(&config);
        let now = crate::net::clock::now();
        (0..2).for_each(|place| assert!(dispatch.set_up(place, true, now)));
        dispatch.share(pool.clone());
        pool.declare(0, 1);
        assert_eq!(admit(&mut dispatch, 1), Admission::Queued(0));
        pool.give(0, 1);
        dispatch.settle_sharing(0);
        assert_eq!(dispatch.take_notices().len(), 1);
    }

    #[test]
    fn a_server_without_a_limit_is_never_asked_about() {
        let pool = Arc::new(One::default());
        let mut dispatch = of_one(0);
        dispatch.share(pool.clone());
        for slot in 0..100 {
            assert_eq!(admit(&mut dispatch, slot), Admission::Server(0));
        }
        assert_eq!(*pool.0.lock().unwrap(), 0);
    }
}
