//! Who is connected, and who has to go when another one comes. Pure.
//!
//! There are places for those whose question has not come yet, and others for those who are being
//! answered: nobody waits for a place that a slow client has. When all are taken, the client with
//! most of them loses its oldest one, which has had [`GRACE`] to ask.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::proxy::sources::Source;

/// Clients whose question has not come yet.
pub(super) const ASKING_MAX: usize = 24;
/// A client that is not slow has asked by then, even on a busy machine.
pub(super) const GRACE: Duration = Duration::from_millis(5);
/// Clients that take their answer.
pub(super) const ANSWERED_MAX: usize = 8;

/// Places, each with the means to end what goes on there.
#[derive(Debug)]
pub(super) struct Crowd<H> {
    asking: Vec<Seat<H>>,
    answered: Vec<Seat<H>>,
    seated: u64,
}

/// In the order of coming, that is: of asking, for those who have asked.
#[derive(Debug)]
struct Seat<H> {
    number: u64,
    client: Source,
    since: Instant,
    handle: H,
}

impl<H> Default for Crowd<H> {
    fn default() -> Self {
        Self {
            asking: Vec::with_capacity(ASKING_MAX),
            answered: Vec::with_capacity(ANSWERED_MAX),
            seated: 0,
        }
    }
}

impl<H> Crowd<H> {
    /// The number of the next one to enter.
    pub(super) const fn next(&self) -> u64 {
        self.seated
    }

    /// Until when `client` has to wait at the door, because those inside have just come.
    pub(super) fn wait(&self, client: IpAddr, now: Instant) -> Option<Instant> {
        if self.asking.len() < ASKING_MAX {
            return None;
        }
        let next = next_to_go(&self.asking, Some(Source::of(client)))?;
        let until = self.asking.get(next)?.since + GRACE;
        (now < until).then_some(until)
    }

    /// A client has connected; whoever is answered has lost the place for it.
    pub(super) fn enter(&mut self, client: IpAddr, now: Instant, handle: H) -> Option<H> {
        let seat = Seat {
            number: self.seated,
            client: Source::of(client),
            since: now,
            handle,
        };
        self.seated += 1;
        sit(&mut self.asking, ASKING_MAX, seat)
    }

    /// The client's question has come; whoever is answered has lost the place for it.
    pub(super) fn ask(&mut self, number: u64) -> Option<H> {
        let at = self.asking.iter().position(|seat| seat.number == number)?;
        let seat = self.asking.remove(at);
        sit(&mut self.answered, ANSWERED_MAX, seat)
    }

    /// The connection has ended.
    pub(super) fn leave(&mut self, number: u64) {
        self.asking.retain(|seat| seat.number != number);
        self.answered.retain(|seat| seat.number != number);
    }

    /// For want of something else: one of those who have not asked goes.
    pub(super) fn thin_out(&mut self) -> Option<H> {
        let next = next_to_go(&self.asking, None)?;
        Some(self.asking.remove(next).handle)
    }
}

fn sit<H>(seats: &mut Vec<Seat<H>>, most: usize, seat: Seat<H>) -> Option<H> {
    let full = seats.len() >= most;
    let next = full.then(|| next_to_go(seats, Some(seat.client))).flatten();
    let gone = next.map(|at| seats.remove(at).handle);
    seats.push(seat);
    gone
}

/// The oldest one of the client that has most, `coming` counted.
fn next_to_go<H>(seats: &[Seat<H>], coming: Option<Source>) -> Option<usize> {
    let count = |client: Source| {
        let same = seats.iter().filter(|seat| seat.client == client).count();
        same + usize::from(coming == Some(client))
    };
    let most = seats.iter().map(|seat| count(seat.client)).max()?;
    seats.iter().position(|seat| count(seat.client) == most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_oldest_of_a_client_that_takes_all_places_goes_for_the_next_one() {
        let (mut crowd, now) = (Crowd::default(), clock::now());
        for number in 0..24 {
            assert_eq!(crowd.enter(from(1), now, number), None);
        }
        // Another client has few, and keeps them however many the first one opens.
        assert_eq!(crowd.enter(from(2), now, 24), Some(0));
        for number in 25..200 {
            let oldest = if number < 48 {
                number - 24
            } else {
                number - 23
            };
            assert_eq!(crowd.enter(from(1), now, number), Some(oldest));
        }
        assert_eq!(crowd.ask(24), None);
        crowd.leave(24);
        assert_eq!(crowd.enter(from(3), now, 200), None);
        assert_eq!(crowd.enter(from(4), now, 201), Some(177));
    }

    #[test]
    fn who_has_just_come_gets_a_moment_to_ask() {
        let (mut crowd, start) = (Crowd::default(), clock::now());
        let after = |ms| start + Duration::from_millis(ms);
        for number in 0..24 {
            assert_eq!(crowd.wait(from(1), after(number)), None);
            crowd.enter(from(1), after(number), number);
        }
        assert_eq!(crowd.wait(from(1), after(4)), Some(after(5)));
        assert_eq!(crowd.wait(from(2), after(5)), None);
        assert_eq!(crowd.enter(from(2), after(5), 24), Some(0));
        assert_eq!(crowd.wait(from(1), after(5)), Some(after(6)));
        crowd.ask(7);
        assert_eq!(crowd.wait(from(1), after(5)), None);
    }

    #[test]
    fn among_clients_with_as_many_the_oldest_goes() {
        let (mut crowd, now) = (Crowd::default(), clock::now());
        for number in 0..24 {
            assert_eq!(crowd.enter(from(number), now, number), None);
        }
        assert_eq!(crowd.enter(from(77), now, 24), Some(0));
        // The newcomer counts: its own older one goes first.
        assert_eq!(crowd.enter(from(77), now, 25), Some(24));
        assert_eq!(crowd.thin_out(), Some(1));
    }

    #[test]
    fn who_reads_no_answer_loses_the_place_to_who_has_asked() {
        let (mut crowd, now) = (Crowd::default(), clock::now());
        for number in 0..8 {
            crowd.enter(from(1), now, number);
            assert_eq!(crowd.ask(number), None);
        }
        crowd.enter(from(2), now, 8);
        assert_eq!(crowd.ask(8), Some(0));
        assert_eq!(crowd.ask(8), None, "it has asked already");
        // Those without a question have places of their own.
        for number in 9..33 {
            assert_eq!(crowd.enter(from(1), now, number), None);
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let (mut crowd, now) = (Crowd::default(), clock::now());
        for number in 0..24_u64 {
            let ip = format!("2001:db8::{number:x}").parse().unwrap();
            assert_eq!(crowd.enter(ip, now, number), None);
        }
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(crowd.enter(from(1), now, 100), Some(0));
        assert_eq!(crowd.enter(mapped, now, 24), Some(1));
        assert_eq!(
            crowd.enter("2001:db8::1:0".parse().unwrap(), now, 25),
            Some(2)
        );
    }

    #[test]
    fn who_has_left_is_missed_by_nobody() {
        let (mut crowd, now) = (Crowd::default(), clock::now());
        assert_eq!(crowd.thin_out(), None);
        assert_eq!(crowd.next(), 0);
        assert_eq!(crowd.enter(from(1), now, 'a'), None);
        assert_eq!(crowd.next(), 1);
        crowd.leave(0);
        assert_eq!(crowd.ask(0), None);
        assert_eq!(crowd.thin_out(), None);
    }
}
