//! The world: its time, its wire, the client that believes the last gratuitous ARP, and what nodes
//! do in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use lbd::config::model::Preempt;
use lbd::ipc::message::VrrpState;
use lbd::units::AdvertInterval;
use lbd::vrrp::fsm::{Action, Input, Machine, NodeHealth};
use lbd::vrrp::validate::Accepted;

use super::check::Watch;
use super::dice::Dice;
use super::keepalived::Keepalived;
use super::node::{Brain, Clock, Node, Ns, Output, Report, address, ns};
use super::plan::Plan;

/// What a socket buffer holds.
const INBOX_MAX: usize = 256;
const MS: Ns = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Wake(usize),
    Deliver {
        to: usize,
        from: usize,
        priority: u8,
    },
    /// A node says by the peer channel whom it hears.
    Report(usize),
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) now: Ns,
    seq: u64,
    queue: BinaryHeap<Reverse<(Ns, u64, Event)>>,
    pub(crate) nodes: Vec<Node>,
    /// Percent of packets lost from a node to another.
    pub(crate) loss: Vec<Vec<u64>>,
    pub(crate) interval: AdvertInterval,
    pub(crate) preempt: Preempt,
    pub(crate) refresh: Duration,
    /// Whether the peer channel works.
    pub(crate) channel: Option<bool>,
    pub(crate) arp: Option<usize>,
    pub(crate) watch: Watch,
    story: bool,
    pub(crate) takeovers: usize,
    /// Failovers that succeeded, and that did not.
    pub(crate) answers: (usize, usize),
}

pub(crate) fn healthy(epoch: u64) -> NodeHealth {
    NodeHealth {
        can_serve: true,
        known: true,
        weight: 0,
        probe_epoch: epoch,
    }
}

impl World {
    pub(crate) fn new(plan: &Plan, dice: Dice, story: bool) -> Self {
        let base = lbd::net::clock::now();
        let count = plan.nodes.len();
        let mut world = Self {
            dice,
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            nodes: Vec::new(),
            loss: vec![vec![0; count]; count],
            interval: AdvertInterval::new(plan.version, plan.interval).unwrap(),
            preempt: plan.preempt,
            refresh: plan.refresh,
            channel: plan.channel.then_some(true),
            arp: None,
            watch: Watch::default(),
            story,
            takeovers: 0,
            answers: (0, 0),
        };
        world.tell(&format!("{plan:?}"));
        for place in 0..count {
            let settings = plan.settings(place);
            let rate = 1_000 - plan.drift + world.dice.below(2 * plan.drift + 1);
            let clock = Clock { base, rate };
            let brain = if plan.nodes[place].1 {
                Brain::Keepalived(Keepalived::new(
                    settings.version,
                    settings.me,
                    settings.base,
                    settings.interval,
                    settings.preempt != Preempt::Never,
                ))
            } else {
                Brain::Lbd(Box::new(Machine::new(settings.clone(), clock.local(0))))
            };
            world.nodes.push(Node::new(brain, settings, clock, count));
        }
        for place in 0..count {
            world.start(place);
            world.nodes[place].health = healthy(0);
            let first = world.dice.below(1_500);
            world.wake(first * MS, place);
            if plan.channel && world.nodes[place].brain.is_lbd() {
                world.at(world.report_spacing(), Event::Report(place));
            }
        }
        world
    }

    pub(crate) fn tell(&self, what: &str) {
        if self.story {
            println!(
                "{:>10.4} {what}",
                Duration::from_nanos(self.now).as_secs_f64()
            );
        }
    }

    /// How often a node speaks by the peer channel.
    fn report_spacing(&self) -> Ns {
        ns(self.interval.duration()).clamp(50 * MS, 500 * MS)
    }

    pub(crate) fn wake(&mut self, at: Ns, node: usize) {
        self.nodes[node].next_wake = Some(at);
        self.at(at, Event::Wake(node));
    }

    fn at(&mut self, at: Ns, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse((at, self.seq, event)));
    }

    /// The daemon of that node starts for the first time, or again.
    pub(crate) fn start(&mut self, place: usize) {
        let now = self.nodes[place].clock.local(self.now);
        let actions = match &mut self.nodes[place].brain {
            Brain::Lbd(machine) => machine.handle(now, Input::Up).iter().collect(),
            Brain::Keepalived(model) => model.start(now),
        };
        self.carry_out(place, &actions);
        self.plan_wake(place);
    }

    /// Tells lbd's machine; keepalived has no ear for it.
    pub(crate) fn input(&mut self, place: usize, input: Input) {
        let now = self.nodes[place].clock.local(self.now);
        let Brain::Lbd(machine) = &mut self.nodes[place].brain else {
            return;
        };
        let before = machine.state();
        let actions: Vec<Action> = machine.handle(now, input).iter().collect();
        self.note(place, before == VrrpState::Active, before);
        self.carry_out(place, &actions);
        self.plan_wake(place);
    }

    fn note(&mut self, place: usize, was_active: bool, before: VrrpState) {
        let node = &mut self.nodes[place];
        let is_active = node.brain.is_active();
        let changed = node
            .brain
            .machine()
            .is_none_or(|machine| machine.state() != before);
        if is_active && !was_active {
            self.takeovers += 1;
            node.active = Ok(self.now);
        } else if !is_active && was_active {
            node.active = Err(self.now);
        }
        if changed && self.story {
            let story = node.brain.story();
            self.tell(&format!("node {place} {story}"));
        }
    }

    fn plan_wake(&mut self, place: usize) {
        let jitter = self.dice.below(900_000);
        let node = &self.nodes[place];
        if let Some(deadline) = node.brain.deadline()
            && node.runs()
        {
            // Scheduling is never exact.
            let at = node.clock.world(deadline).max(self.now) + jitter;
            self.wake(at, place);
        }
    }

    pub(crate) fn carry_out(&mut self, place: usize, actions: &[Action]) {
        let mut round = None;
        for action in actions {
            self.act(place, *action, &mut round);
        }
        let now = self.nodes[place].clock.local(self.now);
        if let (Some(worked), Brain::Lbd(machine)) = (round, &mut self.nodes[place].brain)
            && worked == machine.is_mute()
        {
            let none = machine.handle(now, Input::Mute(!worked));
            assert_eq!(none.iter().count(), 0, "a mute node has nothing to do");
        }
    }

    fn act(&mut self, place: usize, action: Action, round: &mut Option<bool>) {
        match action {
            Action::Claim | Action::Renew | Action::Restore => {
                let node = &mut self.nodes[place];
                if action == Action::Renew {
                    let there = node.vip_until.is_some_and(|until| until > self.now);
                    assert!(there, "node {place} renews what the kernel has removed");
                }
                let lease = node.settings.lease.filter(|_| node.brain.is_lbd());
                node.vip_until =
                    Some(lease.map_or(Ns::MAX, |lease| self.now + node.clock.span(lease)));
            }
            Action::Release { .. } => self.nodes[place].vip_until = None,
            Action::Advertise(priority) => {
                *round = Some(self.nodes[place].output == Output::Free);
                self.advertise(place, priority);
            }
            Action::Garp(_) => {
                let node = &self.nodes[place];
                assert!(node.holds(), "node {place} announces what it does not have");
                if node.island == 0 && node.output != Output::Nothing {
                    self.arp = Some(place);
                }
            }
            Action::Probe => {
                // Answered at the next wake-up.
                if self.nodes[place].health.can_serve {
                    self.nodes[place].health.probe_epoch += 1;
                }
            }
            Action::IgnoredResign => {}
            Action::FailedOver { taken } => {
                let asked = self.nodes[place].failing_over.take();
                assert!(asked.is_some(), "node {place} answers what nobody asked");
                self.tell(&format!("node {place} failed over: {taken}"));
                self.answers.0 += usize::from(taken);
                self.answers.1 += usize::from(!taken);
            }
        }
    }

    fn advertise(&mut self, place: usize, priority: u8) {
        if self.nodes[place].output != Output::Free {
            return;
        }
        self.nodes[place].advertised = Some(self.now);
        for to in 0..self.nodes.len() {
            let percent = self.loss[place][to];
            let lost = percent > 0 && self.dice.chance(percent);
            let apart = self.nodes[place].island != self.nodes[to].island;
            if to != place && !lost && !apart {
                let delay = 50_000 + self.dice.below(900_000);
                let event = Event::Deliver {
                    to,
                    from: place,
                    priority,
                };
                self.at(self.now + delay, event);
            }
        }
    }

    fn drain(&mut self, place: usize) {
        for advert in std::mem::take(&mut self.nodes[place].inbox) {
            self.nodes[place].heard[advert.peer] = Some(self.now);
            let now = self.nodes[place].clock.local(self.now);
            self.think(place, |brain| brain.hear(now, &advert));
        }
    }

    fn timer(&mut self, place: usize) {
        let now = self.nodes[place].clock.local(self.now);
        if self.nodes[place]
            .brain
            .deadline()
            .is_some_and(|due| due <= now)
        {
            self.think(place, |brain| brain.timer(now));
            let next = self.nodes[place].brain.deadline();
            assert!(
                next.is_none_or(|next| next > now),
                "node {place} would spin"
            );
        }
    }

    pub(crate) fn think(&mut self, place: usize, what: impl FnOnce(&mut Brain) -> Vec<Action>) {
        let brain = &mut self.nodes[place].brain;
        let was_active = brain.is_active();
        let before = brain
            .machine()
            .map_or(VrrpState::Initialize, Machine::state);
        let actions = what(brain);
        let changed = was_active != brain.is_active()
            || brain
                .machine()
                .is_some_and(|machine| machine.state() != before);
        if changed {
            self.note(place, was_active, before);
        }
        self.carry_out(place, &actions);
        self.plan_wake(place);
    }

    fn probed(&mut self, place: usize) {
        let health = self.nodes[place].health;
        if self.nodes[place].seen != health {
            self.nodes[place].seen = health;
            let now = self.nodes[place].clock.local(self.now);
            self.think(place, |brain| match brain {
                Brain::Lbd(machine) => machine.handle(now, Input::Health(health)).iter().collect(),
                Brain::Keepalived(model) => model.judge(now, health.can_serve),
            });
        }
    }

    /// What runs when a node is scheduled. keepalived may see its timer before the packets.
    fn awake(&mut self, place: usize) {
        let hasty = !self.nodes[place].brain.is_lbd() && self.dice.chance(50);
        if hasty {
            self.timer(place);
        }
        self.drain(place);
        self.timer(place);
        self.probed(place);
        let node = &self.nodes[place];
        let held = node.brain.machine().is_some_and(Machine::holds);
        assert!(!held || node.holds(), "node {place} holds past its lease");
    }

    fn step(&mut self, until: Ns) -> bool {
        let Some(Reverse((at, _, event))) = self.queue.pop() else {
            return false;
        };
        if at > until {
            self.queue.push(Reverse((at, 0, event)));
            self.now = until;
            return false;
        }
        self.now = at;
        for node in &mut self.nodes {
            if node.vip_until.is_some_and(|gone| gone <= at) {
                node.vip_until = None;
            }
        }
        match event {
            Event::Deliver { to, from, priority } => self.deliver(to, from, priority),
            Event::Wake(place) if self.nodes[place].next_wake != Some(at) => {}
            Event::Wake(place) => {
                if self.nodes[place].paused_until.is_some_and(|end| end <= at) {
                    self.nodes[place].paused_until = None;
                    self.nodes[place].undisturbed = at;
                    self.tell(&format!("node {place} goes on"));
                }
                if self.nodes[place].runs() {
                    self.awake(place);
                    if self.nodes[place].next_wake == Some(at) {
                        self.plan_wake(place);
                    }
                }
            }
            Event::Report(place) => self.report(place),
        }
        self.check();
        true
    }

    fn deliver(&mut self, to: usize, from: usize, priority: u8) {
        let interval = self.interval;
        let node = &mut self.nodes[to];
        if node.alive && node.inbox.len() < INBOX_MAX {
            node.inbox.push(Accepted {
                sender: address(from),
                peer: from,
                priority,
                interval,
                interval_as_sent: true,
                same_addresses: true,
            });
        }
        if node.runs() {
            self.awake(to);
        }
    }

    fn report(&mut self, place: usize) {
        let spacing = self.report_spacing();
        self.at(self.now + spacing, Event::Report(place));
        if !self.nodes[place].runs() {
            return;
        }
        for to in 0..self.nodes.len() {
            let apart = self.nodes[place].island != self.nodes[to].island;
            if to != place && self.channel == Some(true) && !apart && self.nodes[to].runs() {
                self.nodes[to].reports[place] = Some(Report {
                    made: self.now,
                    heard: self.nodes[place].heard[to],
                });
                self.judge_reports(to);
            }
        }
        self.judge_reports(place);
    }

    fn judge_reports(&mut self, place: usize) {
        let fresh = 3 * self.report_spacing();
        if let Some(unheard) = self.nodes[place].judge_reports(self.now, fresh) {
            self.nodes[place].unheard = unheard;
            self.tell(&format!("node {place} unheard: {unheard}"));
            self.input(place, Input::Unheard(unheard));
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let until = self.now + ns(span);
        while self.step(until) {}
        self.now = until;
    }

    pub(crate) fn holders(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|node| self.nodes[*node].holds())
            .collect()
    }
}
