//! Slots for connections that have been served once already: elsewhere, or beside the one they have.

use super::slots::Slots;
use super::{Dispatch, in_rotation};
use crate::proxy::queue::Tried;

impl Dispatch {
    /// Whether a server that could serve is not in `tried`. One that is held back is better than none,
    /// but nobody waits for it: it counts while it has room.
    #[must_use]
    pub fn has_untried(&self, tried: Tried) -> bool {
        let free = |place| self.board.slots(place).is_some_and(Slots::has_room);
        let mut members = self.members().filter(|(place, _)| !tried.contains(*place));
        members.any(|(place, server)| server.usable() || server.able() && free(place))
    }

    /// A slot for a connection that has one already, or can do without, on a server among those
    /// `allowed`; on a backup if none in force is. Never a slot that somebody waits for.
    pub fn take_beside(&mut self, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        if !self.queue.is_empty() {
            return None;
        }
        self.open_paced();
        let (servers, weights) = (&self.servers, &self.weights);
        let in_force = |index: usize| weights.get(index).copied().filter(|weight| *weight > 0);
        let any = (0..weights.len()).any(|index| in_force(index).is_some() && allowed(index));
        let weight = |index: usize| {
            if !allowed(index) {
                None
            } else if any {
                in_force(index)
            } else {
                let server = servers.get(index)?.as_ref().filter(|s| s.usable())?;
                Some(server.effective_weight())
            }
        };
        let server = in_rotation(&mut self.rotation, &self.board, weight)?;
        self.keep_pace(server);
        Some(server)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::model::MaxQueue;
    use crate::proxy::balance::Key;
    use crate::proxy::dispatch::tests::{proxy, server};
    use crate::proxy::dispatch::{Admission, Dispatch, Notice, Turn};
    use crate::proxy::queue::{Ticket, Tried};

    /// One server in force and one that is held back after many outages; the one in force has failed
    /// the connection.
    fn with_one_held(max: [u32; 2]) -> (Dispatch, Tried) {
        let servers = max.map(|max| server(1, max)).to_vec();
        let mut dispatch = Dispatch::new(&proxy(servers, MaxQueue::Total(9)));
        let now = crate::net::clock::now();
        (0..2).for_each(|place| assert!(dispatch.set_up(place, true, now)));
        for _ in 0..3 {
            dispatch.set_up(1, false, now);
            dispatch.set_up(1, true, now);
        }
        assert!(!dispatch.server(1).unwrap().usable() && dispatch.server(1).unwrap().able());
        let mut tried = Tried::default();
        tried.mark(0);
        (dispatch, tried)
    }

    fn again(dispatch: &mut Dispatch, slot: u32, tried: Tried) -> Admission {
        dispatch.admit(ticket(slot), tried, Turn::Again, Key::NONE)
    }

    fn granted(dispatch: &mut Dispatch) -> Vec<(Ticket, usize)> {
        let notices = dispatch.take_notices().into_iter();
        let granted = notices.filter_map(|notice| match notice {
            Notice::Granted(ticket, server) => Some((ticket, server)),
            Notice::NoServer(_) => None,
        });
        granted.collect()
    }

    fn ticket(slot: u32) -> Ticket {
        Ticket {
            worker: 0,
            slot,
            serial: slot,
        }
    }

    #[test]
    fn nobody_waits_for_a_server_that_is_held_back_while_another_is_free() {
        let (mut dispatch, tried) = with_one_held([0, 1]);
        assert!(dispatch.has_untried(tried));
        assert_eq!(again(&mut dispatch, 1, tried), Admission::Server(1));
        assert!(!dispatch.has_untried(tried), "it is full");
        assert_eq!(again(&mut dispatch, 2, tried), Admission::Server(0));
    }

    #[test]
    fn who_waits_for_any_server_is_told_of_room_on_one_that_is_held_back() {
        let (mut dispatch, tried) = with_one_held([1, 1]);
        for expected in [1, 0] {
            assert_eq!(again(&mut dispatch, 1, tried), Admission::Server(expected));
        }
        let first = Turn::First;
        let newcomer = dispatch.admit(ticket(7), Tried::NONE, first, Key::NONE);
        assert_eq!(newcomer, Admission::Queued(0));
        assert_eq!(again(&mut dispatch, 2, tried), Admission::Queued(0));
        dispatch.release(1);
        assert_eq!(granted(&mut dispatch), [(ticket(2), 1)]);
        dispatch.release(0);
        assert_eq!(granted(&mut dispatch), [(ticket(7), 0)]);
    }
}
