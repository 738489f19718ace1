//! What a virtual router does: it asks the machine and carries out the answer on every wire.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::member::Member;
use super::{Action, Actions, EVENTS_MAX, Input, RELEASE_DELAY, RouterEvent, VirtualRouter};
use crate::ipc::message::VrrpState;
use crate::net::{clock, netlink};
use crate::vrrp::fsm::{FELL_SILENT, RESIGNED};

impl VirtualRouter {
    pub(super) fn run(&mut self, now: Instant, input: Input) {
        let from = self.machine.state();
        let active = self.machine.active();
        let actions = self.machine.handle(now, input);
        if self.carry_out(now, actions).is_err() {
            self.give_way(now, Input::AddressFailed);
        } else if std::mem::take(&mut self.not_renewed) {
            self.give_way(now, Input::NotRenewed);
        }
        if let Some(worked) = self.round.take()
            && worked == self.machine.is_mute()
        {
            if worked {
                tracing::info!(vip = %self.name(), "adverts can be sent again");
            } else {
                tracing::warn!(vip = %self.name(), "no advert can be sent, on no interface");
            }
            self.give_way(now, Input::Mute(!worked));
        }
        self.note_change(now, from, active);
    }

    /// The kernel refused to let us hold an address: logged and counted already.
    fn give_way(&mut self, now: Instant, refusal: Input) {
        let actions = self.machine.handle(now, refusal);
        if self.carry_out(now, actions).is_err() {
            tracing::debug!(vip = %self.name(), "the kernel refused twice");
        }
    }

    /// `before`: who was Active as far as this node knew.
    fn note_change(&mut self, now: Instant, from: VrrpState, before: Option<IpAddr>) {
        let to = self.machine.state();
        if from == to {
            return;
        }
        let elapsed = now.saturating_duration_since(self.since);
        self.since = now;
        let reason = self.machine.reason();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if to == VrrpState::Active {
            self.time_take_over(reason);
        }
        let before = self.others.iter().position(|other| Some(*other) == before);
        for member in &mut self.members {
            match to {
                VrrpState::Active => member.begin_watch(now, before),
                VrrpState::Initialize | VrrpState::Backup | VrrpState::Leaving => {
                    member.end_watch();
                }
            }
            member.counters.shown.became_active += u64::from(to == VrrpState::Active);
            member.counters.shown.left_active += u64::from(from == VrrpState::Active);
            tracing::info!(
                vip = %member.local.vip.name,
                vrid = %member.rules.vrid,
                interface = %member.local.interface,
                ?from,
                ?to,
                reason,
                elapsed_ms,
                "state changed"
            );
        }
        self.tell(RouterEvent::Changed { from, to, reason });
    }

    /// The addresses are held: for how long was nobody heard who did?
    fn time_take_over(&mut self, reason: &str) {
        let now = clock::now();
        for member in &mut self.members {
            let heard = member.peers.iter().filter_map(|peer| peer.last).max();
            let Some(last) = heard else { continue };
            let took = now.saturating_duration_since(last);
            match reason {
                FELL_SILENT => member.counters.after_silence.add(took),
                RESIGNED => member.counters.after_resignation.add(took),
                // Nobody failed.
                _ => {}
            }
        }
    }

    pub(super) fn tell(&mut self, event: RouterEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Carries out actions in order; stops where the kernel refuses to let us hold an address.
    fn carry_out(&mut self, now: Instant, actions: Actions) -> io::Result<()> {
        for action in actions.iter() {
            match action {
                Action::Claim => {
                    self.release_at = None;
                    self.claim(now)?;
                }
                Action::Renew => self.renew(now)?,
                Action::Restore => {
                    for member in &mut self.members {
                        member.counters.shown.restored += 1;
                    }
                    self.renew(now)?;
                }
                Action::Release { graceful } => self.release(now, graceful),
                Action::Advertise(priority) => {
                    let all = self.members.iter_mut();
                    let worked =
                        all.fold(false, |any, member| member.advertise(now, priority) | any);
                    self.round = Some(worked);
                }
                Action::Garp(frames) => {
                    for member in &mut self.members {
                        member.announce(now, frames);
                    }
                }
                Action::Probe => self.tell(RouterEvent::Probe),
                Action::IgnoredResign => {
                    if let Some(member) = self.members.first_mut() {
                        member.counters.ignored_resigns += 1;
                    }
                    tracing::debug!(vip = %self.name(), "resignation of a node that is not active");
                }
                Action::FailedOver { taken } => self.tell(RouterEvent::FailedOver { taken }),
            }
        }
        Ok(())
    }

    /// All addresses or none: the first refusal ends it.
    fn claim(&mut self, now: Instant) -> io::Result<()> {
        for member in &mut self.members {
            if let Err(error) = member.wire.hold() {
                member.kernel_error(now, "hold the address", &error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What passes by itself is no reason to give an address up that is still there.
    fn renew(&mut self, now: Instant) -> io::Result<()> {
        for member in &mut self.members {
            if let Err(error) = member.renew() {
                member.kernel_error(now, "renew the address", &error);
                if !netlink::is_passing(&error) {
                    return Err(error);
                }
                self.not_renewed = true;
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, now: Instant, graceful: bool) {
        let addresses = self.members.iter().flat_map(Member::addresses).collect();
        self.tell(RouterEvent::Releasing(addresses));
        if graceful {
            self.release_at = Some(now + RELEASE_DELAY);
        } else {
            self.release_now(now);
        }
    }

    pub(super) fn release_now(&mut self, now: Instant) {
        self.release_at = None;
        for member in &mut self.members {
            member.release(now);
        }
        self.tell(RouterEvent::Released);
    }
}
