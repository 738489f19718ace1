//! Does anybody else answer for the addresses that this node holds? When to ask, and what the
//! answers mean. Pure; it never touches the election.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The first question comes so long after a take-over: a node that yields is given time to.
const FIRST: Duration = Duration::from_secs(1);
/// Between two questions while somebody else answers.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two questions where addresses are never announced again.
const SELDOM: Duration = Duration::from_secs(30);

/// Whose address somebody spoke for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A virtual address of this node.
    Virtual(IpAddr),
    /// The node at this position among the others.
    Node(usize),
}

/// Another host speaks for a virtual address that this node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The other host's hardware address.
    pub mac: [u8; 6],
    /// When it was heard last.
    at: Instant,
}

/// What is known of others on one wire.
#[derive(Debug, Clone)]
pub struct Watch {
    /// When to ask next; `None` while nothing is held.
    next: Option<Instant>,
    /// When it was asked last since the take-over. What was said before that means nothing.
    asked: Option<Instant>,
    nodes: Vec<Option<([u8; 6], Instant)>>,
    conflict: Option<Conflict>,
}

impl Watch {
    /// Beside so many other nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self {
            next: None,
            asked: None,
            nodes: vec![None; nodes],
            conflict: None,
        }
    }

    /// The addresses are on this node from here on.
    pub fn begin(&mut self, now: Instant) {
        self.next = Some(now + FIRST);
        self.asked = None;
        self.conflict = None;
    }

    /// They are not.
    pub fn end(&mut self) {
        self.next = None;
        self.asked = None;
        self.conflict = None;
    }

    /// Whether to ask now. `refresh`: how often the addresses are announced; zero: once.
    pub fn is_due(&mut self, now: Instant, refresh: Duration) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let silent_since = |asked: Instant| self.conflict.is_some_and(|found| found.at < asked);
        if self.asked.is_some_and(silent_since) {
            self.conflict = None;
        }
        self.asked = Some(now);
        let pause = if refresh.is_zero() { SELDOM } else { refresh };
        self.next = Some(
            now + if self.conflict.is_some() {
                AGAIN
            } else {
                pause
            },
        );
        true
    }

    /// Somebody spoke for an address. Says whether it is a conflict not known yet.
    pub fn sighted(&mut self, now: Instant, owner: Owner, mac: [u8; 6]) -> bool {
        match owner {
            Owner::Node(place) => {
                if let Some(node) = self.nodes.get_mut(place) {
                    *node = Some((mac, now));
                }
                false
            }
            Owner::Virtual(address) => {
                if self.asked.is_none() {
                    return false;
                }
                let known = self.conflict.is_some_and(|found| found.mac == mac);
                self.conflict = Some(Conflict {
                    address,
                    mac,
                    at: now,
                });
                if !known {
                    self.next = self.next.map(|next| next.min(now + AGAIN));
                }
                !known
            }
        }
    }

    /// The present conflict.
    #[must_use]
    pub fn conflict(&self) -> Option<Conflict> {
        self.conflict
    }

    /// The other node that has this hardware address.
    #[must_use]
    pub fn node_at(&self, mac: [u8; 6]) -> Option<usize> {
        let is = |node: &Option<([u8; 6], Instant)>| node.is_some_and(|(own, _)| own == mac);
        self.nodes.iter().position(is)
    }

    /// Whether a node has answered for its own address since it was asked last.
    #[must_use]
    pub fn answers(&self, place: usize) -> bool {
        let node = self.nodes.get(place).copied().flatten();
        let heard = node.zip(self.asked);
        heard.is_some_and(|((_, at), asked)| at >= asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
    const REFRESH: Duration = Duration::from_secs(30);

    fn vip() -> Owner {
        Owner::Virtual(IpAddr::from([172, 16, 0, 10]))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_asks_a_second_after_a_take_over_and_then_with_each_refresh() {
        let start = crate::net::clock::now();
        let mut watch = Watch::new(1);
        assert!(!watch.is_due(start + secs(90), REFRESH));
        watch.begin(start);
        let due: Vec<u64> = (0..=62)
            .filter(|second| watch.is_due(start + secs(*second), REFRESH))
            .collect();
        assert_eq!(due, [1, 31, 61]);
        watch.begin(start);
        let due = (0..=31).filter(|second| watch.is_due(start + secs(*second), Duration::ZERO));
        assert_eq!(due.collect::<Vec<_>>(), [1, 31]);
        watch.end();
        assert!(!watch.is_due(start + secs(90), REFRESH));
    }

    #[test]
    fn what_was_said_before_the_first_question_is_no_conflict() {
        let start = crate::net::clock::now();
        let mut watch = Watch::new(1);
        assert!(!watch.sighted(start, vip(), MAC));
        watch.begin(start);
        assert!(!watch.sighted(start + Duration::from_millis(999), vip(), MAC));
        assert!(watch.is_due(start + secs(1), REFRESH));
        assert!(watch.sighted(start + secs(1), vip(), MAC));
        assert!(!watch.sighted(start + secs(2), vip(), MAC));
        assert!(watch.sighted(start + secs(2), vip(), [9; 6]));
    }

    #[test]
    fn a_conflict_is_asked_about_each_five_seconds_until_nobody_answers() {
        let start = crate::net::clock::now();
        let mut watch = Watch::new(1);
        watch.begin(start);
        assert!(watch.is_due(start + secs(1), REFRESH));
        assert!(watch.sighted(start + secs(1), vip(), MAC));
        assert!(!watch.is_due(start + secs(5), REFRESH));
        assert!(watch.is_due(start + secs(6), REFRESH));
        assert!(watch.conflict().is_some());
        assert!(watch.is_due(start + secs(11), REFRESH));
        assert!(watch.conflict().is_none());
        assert!(!watch.is_due(start + secs(40), REFRESH));
    }

    #[test]
    fn a_node_is_known_by_its_hardware_address_and_alive_if_it_answers_the_last_question() {
        let start = crate::net::clock::now();
        let mut watch = Watch::new(2);
        assert!(!watch.sighted(start, Owner::Node(1), MAC));
        assert_eq!(watch.node_at(MAC), Some(1));
        assert_eq!(watch.node_at([9; 6]), None);
        watch.begin(start);
        assert!(watch.is_due(start + secs(1), REFRESH));
        assert!(!watch.answers(1));
        assert!(!watch.sighted(start + secs(1), Owner::Node(1), MAC));
        assert!(watch.answers(1) && !watch.answers(0));
        assert!(watch.is_due(start + secs(31), REFRESH));
        assert!(!watch.answers(1));
    }
}
