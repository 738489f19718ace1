//! What must hold whatever happens.

use std::time::Duration;

use super::node::{Ns, Output, ns};
use super::world::World;

/// What is checked over time.
#[derive(Default)]
pub(crate) struct Watch {
    vacant_since: Ns,
    double_since: Option<Ns>,
    /// The network and all nodes are well since then.
    calm_since: Option<Ns>,
    stale_since: Option<Ns>,
}

impl Watch {
    /// Something was done to the world: what lasts from here on counts from here.
    pub(crate) fn disturbed(&mut self) {
        self.double_since = None;
        self.calm_since = None;
    }
}

impl World {
    /// The longest a span of a node's clock can last in the world.
    pub(crate) fn longest(span: Duration) -> Ns {
        ns(span) * 10 / 9 + 1
    }

    fn hear_each_other(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.nodes[one], &self.nodes[other]);
        a.island == b.island
            && a.output == Output::Free
            && b.output == Output::Free
            && self.loss[one][other] == 0
            && self.loss[other][one] == 0
    }

    /// Called after each event.
    pub(crate) fn check(&mut self) {
        self.check_two_actives();
        self.check_vacancy();
        self.check_belief();
        self.check_failovers();
    }

    /// Two that hear each other don't both stay Active.
    fn check_two_actives(&mut self) {
        let actives = || {
            let all = self.nodes.iter().enumerate();
            all.filter(|(_, node)| node.runs() && node.brain.is_active())
                .map(|(place, _)| place)
        };
        let clash = actives().count() > 1
            && actives()
                .any(|one| actives().any(|other| one != other && self.hear_each_other(one, other)));
        if !clash {
            self.watch.double_since = None;
            return;
        }
        let since = *self.watch.double_since.get_or_insert(self.now);
        let bound = Self::longest(2 * self.interval.duration()) + ns(Duration::from_millis(10));
        assert!(
            self.now - since <= bound,
            "two actives that hear each other for more than {bound} ns"
        );
    }

    /// A vacant address is taken. Of a node that could take it for long enough the bound holds: four
    /// intervals (one second of skew in version 2 at the shortest), the grace at its start, late
    /// timers.
    fn check_vacancy(&mut self) {
        let held = self.nodes.iter().any(super::node::Node::holds);
        if held {
            self.watch.vacant_since = self.now;
            return;
        }
        let bound = Self::longest(8 * self.interval.duration() + Duration::from_secs(4));
        let able = self.nodes.iter().any(|node| {
            node.runs() && node.brain.takes_part() && self.now - node.undisturbed > bound
        });
        if !able {
            self.watch.vacant_since = self.now;
        }
        assert!(
            self.now - self.watch.vacant_since <= bound,
            "vacant for more than {bound} ns"
        );
    }

    fn is_calm(&self) -> bool {
        let clean = self.loss.iter().flatten().all(|percent| *percent == 0);
        clean
            && self
                .nodes
                .iter()
                .all(|node| node.runs() && node.island == 0 && node.output == Output::Free)
    }

    /// Where all is well, the client's ARP entry is right after a moment. keepalived doesn't
    /// promise that: it yields without a word, and never announces itself again.
    fn check_belief(&mut self) {
        if self.watch.calm_since.is_none() && self.is_calm() {
            self.watch.calm_since = Some(self.now);
            self.watch.stale_since = Some(self.now);
        }
        let Some(calm) = self.watch.calm_since else {
            return;
        };
        let right = self.arp.is_some_and(|place| self.nodes[place].holds())
            || self.holders().is_empty()
            || self
                .nodes
                .iter()
                .any(|node| node.holds() && !node.brain.is_lbd());
        if right {
            self.watch.stale_since = None;
            return;
        }
        let since = self.watch.stale_since.get_or_insert(self.now);
        // One refresh at the latest.
        let bound = Self::longest(2 * self.interval.duration() + self.refresh);
        assert!(
            self.now - (*since).max(calm) <= bound,
            "the client has believed the wrong node for more than {bound} ns"
        );
    }

    /// Each failover is answered in time.
    fn check_failovers(&self) {
        // 3 intervals, a skew of one interval or second at most, one interval more.
        let bound = Self::longest(5 * self.interval.duration() + Duration::from_secs(1));
        for (place, node) in self.nodes.iter().enumerate() {
            if let Some(since) = node.failing_over.filter(|_| node.runs()) {
                let since = since.max(node.undisturbed);
                assert!(self.now - since <= bound, "node {place} owes an answer");
            }
        }
    }
}
