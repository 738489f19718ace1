//! What is done to the world, and how all becomes well again.

use std::time::Duration;

use lbd::config::model::Preempt;
use lbd::vrrp::fsm::{Input, Machine, NodeHealth};

use super::node::{Brain, Ns, Output, ns};
use super::world::{World, healthy};

const MS: Ns = 1_000_000;

impl World {
    pub(crate) fn disturb(&mut self) {
        let place = self.dice.place(self.nodes.len());
        let other = self.dice.place(self.nodes.len());
        match self.dice.below(17) {
            0 => {
                let percent = 30 + self.dice.below(71);
                self.lose(place, other, percent);
                self.lose(other, place, percent);
            }
            1 => self.lose(place, other, 100),
            2 => self.lose(place, other, 0),
            3 => self.tear(),
            4 => self.mend(),
            5 => {
                let ms = self.dice.below(4_000);
                self.pause(place, ms);
            }
            6 => self.kill(place),
            7 | 8 => self.restart(place),
            9 => self.judge(place, false),
            10 => self.judge(place, true),
            11 => self.block(place),
            12 => {
                self.tell(&format!("node {place} sends again"));
                self.nodes[place].output = Output::Free;
            }
            13 | 14 => {
                let hold = match self.dice.below(3) {
                    0 => None,
                    _ => Some(Duration::from_millis(self.dice.below(20_000))),
                };
                self.fail_over(place, hold);
            }
            15 => {
                if let Some(works) = self.channel {
                    self.tell(&format!("the channel works: {}", !works));
                    self.channel = Some(!works);
                }
            }
            _ => self.resign(place),
        }
        if self.dice.chance(20) && self.nodes[place].runs() {
            self.delete(place);
        }
        if self.dice.chance(20) {
            self.release(place);
        }
        self.watch.disturbed();
    }

    pub(crate) fn lose(&mut self, from: usize, to: usize, percent: u64) {
        if from != to {
            self.loss[from][to] = percent;
            self.tell(&format!("loss {from}->{to} {percent}%"));
        }
    }

    fn tear(&mut self) {
        for place in 0..self.nodes.len() {
            let island = u8::try_from(self.dice.below(2)).unwrap();
            self.set_island(place, island);
        }
    }

    pub(crate) fn set_island(&mut self, place: usize, island: u8) {
        if self.nodes[place].island != island {
            self.nodes[place].island = island;
            self.nodes[place].undisturbed = self.now;
            self.tell(&format!("node {place} in part {island}"));
        }
    }

    fn mend(&mut self) {
        for place in 0..self.nodes.len() {
            self.set_island(place, 0);
        }
    }

    pub(crate) fn pause(&mut self, place: usize, ms: u64) {
        self.tell(&format!("node {place} paused for {ms} ms"));
        let end = self.now + ms * MS;
        self.nodes[place].paused_until = Some(end);
        self.nodes[place].undisturbed = self.now;
        self.wake(end, place);
    }

    pub(crate) fn kill(&mut self, place: usize) {
        self.tell(&format!("node {place} killed"));
        self.nodes[place].alive = false;
        self.nodes[place].active = Err(self.now);
        self.nodes[place].failing_over = None;
    }

    fn block(&mut self, place: usize) {
        let output = self.dice.one_of(&[Output::NoAdverts, Output::Nothing]);
        self.tell(&format!("node {place} sends: {output:?}"));
        self.nodes[place].output = output;
        self.nodes[place].undisturbed = self.now;
    }

    pub(crate) fn fail_over(&mut self, place: usize, hold: Option<Duration>) {
        if self.nodes[place].runs() && self.nodes[place].brain.is_lbd() {
            self.tell(&format!("node {place} is to fail over, hold {hold:?}"));
            let since = self.now;
            self.nodes[place].failing_over.get_or_insert(since);
            self.input(place, Input::Failover { hold });
        }
    }

    pub(crate) fn release(&mut self, place: usize) {
        if self.nodes[place].runs() {
            self.input(place, Input::ReleaseHold);
        }
    }

    fn delete(&mut self, place: usize) {
        self.tell(&format!("address deleted on {place}"));
        let until = self.nodes[place].vip_until.take();
        if self.nodes[place].brain.is_lbd() {
            self.input(place, Input::AddressLost);
            let holds = self.nodes[place]
                .brain
                .machine()
                .is_some_and(Machine::holds);
            if holds && !self.nodes[place].holds() {
                // A second deletion within milliseconds waits for the renewal.
                self.nodes[place].vip_until = until;
            }
        } else if self.nodes[place].runs() {
            // It resigns and watches.
            let now = self.nodes[place].clock.local(self.now);
            self.think(place, |brain| match brain {
                Brain::Keepalived(model) if model.is_master() => {
                    let mut actions = model.judge(now, false);
                    actions.extend(model.judge(now, true));
                    actions
                }
                Brain::Keepalived(_) | Brain::Lbd(_) => Vec::new(),
            });
        }
    }

    fn resign(&mut self, place: usize) {
        if !self.nodes[place].runs() {
            return;
        }
        self.tell(&format!("node {place} resigns"));
        self.input(place, Input::Resign);
        self.think(place, |brain| match brain {
            Brain::Keepalived(model) => model.stop(),
            Brain::Lbd(_) => Vec::new(),
        });
    }

    /// Whether it can serve. An owner and keepalived are spared where all are judged.
    pub(crate) fn judge(&mut self, place: usize, can_serve: bool) {
        let node = &mut self.nodes[place];
        let epoch = node.health.probe_epoch + u64::from(can_serve);
        node.health = NodeHealth {
            can_serve,
            ..healthy(epoch)
        };
        if !node.brain.is_lbd() {
            // It was out of the running until then.
            node.undisturbed = self.now;
        }
        self.tell(&format!("node {place} can serve: {can_serve}"));
        let at = self.now + 1;
        if self.nodes[place].runs() {
            self.wake(at, place);
        }
    }

    /// Starts what is gone. A keeper that comes back soon enough goes on where it stopped.
    pub(crate) fn restart(&mut self, place: usize) {
        let node = &self.nodes[place];
        let left = node.alive && node.brain.is_gone();
        if node.alive && !left {
            return;
        }
        let now = node.clock.local(self.now);
        let wait = node.settings.interval.duration();
        let fresh = node.advertised.is_some_and(|at| {
            let wait = node
                .brain
                .machine()
                .map_or(wait, Machine::own_active_down_interval)
                - wait;
            node.holds() && self.now - at < ns(wait) * 1_000 / node.clock.rate
        });
        let resumes = fresh && !left && node.brain.is_lbd();
        self.tell(&format!("node {place} starts, resumes: {resumes}"));
        let node = &mut self.nodes[place];
        node.alive = true;
        node.paused_until = None;
        node.inbox.clear();
        node.undisturbed = self.now;
        node.health = healthy(node.health.probe_epoch + 1);
        node.seen = NodeHealth::UNKNOWN;
        node.unheard = false;
        node.failing_over = None;
        node.heard.fill(None);
        node.reports.fill(None);
        if let Brain::Lbd(machine) = &mut node.brain {
            **machine = Machine::new(node.settings.clone(), now);
        }
        if resumes {
            self.input(place, Input::Resume);
        } else {
            self.nodes[place].vip_until = None;
            self.start(place);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.tell("all is well again");
        for row in &mut self.loss {
            row.fill(0);
        }
        self.channel = self.channel.map(|_| true);
        for place in 0..self.nodes.len() {
            self.nodes[place].island = 0;
            self.nodes[place].output = Output::Free;
            self.nodes[place].paused_until = None;
            self.nodes[place].undisturbed = self.now;
            self.restart(place);
            self.judge(place, true);
            self.release(place);
        }
        self.watch.disturbed();
    }

    /// Starts again what was about to leave when all became well, and ends what failed over then.
    pub(crate) fn restart_all(&mut self) {
        for place in 0..self.nodes.len() {
            self.restart(place);
            self.release(place);
        }
    }

    pub(crate) fn expect_one_good_holder(&self) {
        let holders = self.holders();
        assert_eq!(holders.len(), 1, "holders: {holders:?}");
        let holder = &self.nodes[holders[0]];
        assert!(holder.brain.is_active());
        if holder.brain.is_lbd() {
            assert_eq!(
                self.arp,
                Some(holders[0]),
                "the client's ARP entry is stale"
            );
        }
        let best = self.nodes.iter().map(|node| node.settings.base).max();
        if self.preempt != Preempt::Never {
            let base = Some(holder.settings.base);
            assert_eq!(base, best, "the holder is not the strongest node");
        }
    }
}
