//! Which connections are to be woken, and when. Pure.
//!
//! The list of another node comes in parts. Each part stands by itself and is replaced when it
//! comes again, so that a lost message costs nothing but a little age. One connection too many, or
//! one that has ended meanwhile, does no harm: its client answers for it, or says there is none.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::message::FLOWS_MAX as PART_FLOWS;
use crate::ipc::message::{ClientFlow, FLOWS_MAX};

/// Packets in one burst, and the time between two bursts.
pub const BURST: usize = 64;
/// See [`BURST`].
pub const BURST_SPACING: Duration = Duration::from_millis(1);
/// What could not be sent by then, the network being too slow for it, is left out.
const PATIENCE: Duration = Duration::from_secs(5);
/// A part that was not renewed for so long is forgotten: a node that is gone for longer has been
/// replaced long since.
const KEPT: Duration = Duration::from_secs(60);

/// Parts of the longest list.
pub const PARTS_MAX: usize = FLOWS_MAX.div_ceil(PART_FLOWS);

/// The client connections of another node.
#[derive(Debug)]
pub struct Roster {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    at: Option<Instant>,
    flows: [Option<ClientFlow>; PART_FLOWS],
}

impl Default for Roster {
    fn default() -> Self {
        Self::new()
    }
}

impl Roster {
    /// An empty one. All its memory is taken here.
    #[must_use]
    pub fn new() -> Self {
        let empty = Part {
            at: None,
            flows: [None; PART_FLOWS],
        };
        Self {
            parts: vec![empty; PARTS_MAX],
        }
    }

    /// Takes a part in; one beyond the longest list is ignored.
    pub fn put(&mut self, now: Instant, part: u16, flows: impl Iterator<Item = ClientFlow>) {
        let Some(place) = self.parts.get_mut(usize::from(part)) else {
            return;
        };
        place.at = Some(now);
        place.flows = [None; PART_FLOWS];
        for (free, flow) in place.flows.iter_mut().zip(flows) {
            *free = Some(flow);
        }
    }

    /// The list has so many parts: what stands behind them is old.
    pub fn shorten(&mut self, parts: u16) {
        for part in self.parts.iter_mut().skip(usize::from(parts)) {
            part.at = None;
        }
    }

    /// What is known at `now`.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = &ClientFlow> {
        let kept = move |part: &&Part| {
            part.at
                .is_some_and(|at| now.saturating_duration_since(at) <= KEPT)
        };
        let parts = self.parts.iter().filter(kept);
        parts.flat_map(|part| part.flows.iter().flatten())
    }
}

/// Connections to wake, paced.
#[derive(Debug)]
pub struct Queue {
    waiting: Vec<ClientFlow>,
    next: Option<Instant>,
    until: Option<Instant>,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

impl Queue {
    /// An empty one. All its memory is taken here.
    #[must_use]
    pub fn new() -> Self {
        Self {
            waiting: Vec::with_capacity(FLOWS_MAX),
            next: None,
            until: None,
        }
    }

    /// Adds those to one of `addresses`; how many. More than fit are left out.
    pub fn add<'a>(
        &mut self,
        now: Instant,
        addresses: &[IpAddr],
        flows: impl Iterator<Item = &'a ClientFlow>,
    ) -> usize {
        let before = self.waiting.len();
        let room = FLOWS_MAX - before;
        let wanted = flows.filter(|flow| addresses.contains(&flow.vip));
        self.waiting.extend(wanted.take(room).copied());
        let added = self.waiting.len() - before;
        if added > 0 {
            self.next.get_or_insert(now);
            self.until = Some(now + PATIENCE);
        }
        added
    }

    /// When the next burst is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// How many may be sent now: a burst, if one is due.
    pub fn burst(&mut self, now: Instant) -> usize {
        if self.next.is_none_or(|at| now < at) {
            return 0;
        }
        if self.until.is_some_and(|until| until <= now) {
            self.waiting.clear();
        }
        self.next = (!self.waiting.is_empty()).then(|| now + BURST_SPACING);
        self.waiting.len().min(BURST)
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<ClientFlow> {
        let flow = self.waiting.pop();
        if self.waiting.is_empty() {
            self.next = None;
        }
        flow
    }

    /// There was no room for this one, it is tried again with the next burst.
    pub fn put_back(&mut self, now: Instant, flow: ClientFlow) {
        self.waiting.push(flow);
        self.next.get_or_insert(now + BURST_SPACING);
    }

    /// These addresses have left this node: nothing is sent from them.
    pub fn forget(&mut self, addresses: &[IpAddr]) {
        self.waiting.retain(|flow| !addresses.contains(&flow.vip));
        if self.waiting.is_empty() {
            self.next = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client_port: u16) -> ClientFlow {
        ClientFlow {
            vip: "172.16.0.10".parse().unwrap(),
            port: 6443,
            client: "172.16.0.100".parse().unwrap(),
            client_port,
        }
    }

    fn ports(roster: &Roster, now: Instant) -> Vec<u16> {
        roster.flows(now).map(|flow| flow.client_port).collect()
    }

    #[test]
    fn a_part_replaces_its_predecessor_and_a_shorter_list_ends_the_rest() {
        let now = crate::net::clock::now();
        let mut roster = Roster::new();
        roster.put(now, 0, [flow(1), flow(2)].into_iter());
        roster.put(now, 1, [flow(3)].into_iter());
        roster.put(now, 0, [flow(4)].into_iter());
        assert_eq!(ports(&roster, now), [4, 3]);
        roster.shorten(1);
        assert_eq!(ports(&roster, now), [4]);
        roster.shorten(0);
        assert_eq!(ports(&roster, now), [0; 0]);
    }

    #[test]
    fn an_old_part_and_one_beyond_the_longest_list_are_not_kept() {
        let now = crate::net::clock::now();
        let mut roster = Roster::new();
        roster.put(now, 0, [flow(1)].into_iter());
        roster.put(now, 9_999, [flow(2)].into_iter());
        assert_eq!(ports(&roster, now + Duration::from_secs(60)), [1]);
        assert_eq!(ports(&roster, now + Duration::from_secs(61)), [0; 0]);
    }

    #[test]
    fn a_part_takes_no_more_than_a_message_holds() {
        let now = crate::net::clock::now();
        let mut roster = Roster::new();
        roster.put(now, 0, (0..1_000).map(flow));
        assert_eq!(ports(&roster, now).len(), 30);
    }

    #[test]
    fn connections_are_woken_in_bursts_of_64_each_millisecond() {
        let now = crate::net::clock::now();
        let mut queue = Queue::new();
        let all: Vec<ClientFlow> = (0..150).map(flow).collect();
        let vip = ["172.16.0.10".parse().unwrap()];
        assert_eq!(
            queue.add(now, &["172.16.0.11".parse().unwrap()], all.iter()),
            0
        );
        assert_eq!(queue.deadline(), None);
        assert_eq!(queue.add(now, &vip, all.iter()), 150);
        let send = |queue: &mut Queue, at| -> usize {
            let burst = queue.burst(at);
            (0..burst).filter_map(|_| queue.pop()).count()
        };
        let ms = |ms| now + Duration::from_millis(ms);
        assert_eq!(send(&mut queue, now), 64);
        assert_eq!(send(&mut queue, now), 0);
        assert_eq!(queue.deadline(), Some(ms(1)));
        assert_eq!(send(&mut queue, ms(1)), 64);
        assert_eq!(send(&mut queue, ms(2)), 22);
        assert_eq!(queue.deadline(), None);
        queue.put_back(ms(2), flow(1));
        assert_eq!(queue.deadline(), Some(ms(3)));
        assert_eq!(send(&mut queue, ms(3)), 1);
        assert_eq!(queue.deadline(), None);
    }

    #[test]
    fn a_network_that_takes_nothing_is_not_tried_for_ever() {
        let now = crate::net::clock::now();
        let mut queue = Queue::new();
        queue.add(now, &["172.16.0.10".parse().unwrap()], [flow(1)].iter());
        for passed in [0, 10, 4_990] {
            let at = now + Duration::from_millis(passed);
            assert_eq!(queue.burst(at), 1, "{passed}");
            let unsent = queue.pop().unwrap();
            queue.put_back(at, unsent);
        }
        let end = now + Duration::from_secs(5);
        assert_eq!(queue.burst(end), 0);
        assert_eq!(queue.deadline(), None);
    }

    #[test]
    fn the_queue_is_bounded_and_forgets_addresses_that_left() {
        let now = crate::net::clock::now();
        let mut queue = Queue::new();
        let all: Vec<ClientFlow> = (0..10_000).map(flow).collect();
        let vip = ["172.16.0.10".parse().unwrap()];
        assert_eq!(queue.add(now, &vip, all.iter()), 8_192);
        assert_eq!(queue.add(now, &vip, all.iter()), 0);
        queue.forget(&vip);
        assert_eq!(queue.deadline(), None);
        assert_eq!(queue.burst(now), 0);
    }
}
