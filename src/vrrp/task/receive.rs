//! What a virtual router hears: adverts, for the machine; and each half second, for people, what
//! was refused, which wires are silent, and who else answers for its addresses.

use std::time::Instant;

use super::{Input, RouterEvent, VirtualRouter};
use crate::ipc::message::VrrpState;
use crate::net::vrrp_socket::Side;
use crate::units::Priority;
use crate::vrrp::timing;
use crate::vrrp::validate::Accepted;

/// Rejected packets are only counted: so many are looked at, each half second. The rest is the
/// kernel's to drop, so that a flood costs the keeper nothing.
const DIAGNOSTIC_READS_MAX: usize = 64;

impl VirtualRouter {
    /// What is looked at for people's sake only, now and then.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.receive_all(now, Side::Rejected, DIAGNOSTIC_READS_MAX);
        self.find_silent_wires(now);
        let active = self.machine.state() == VrrpState::Active;
        for place in 0..self.members.len() {
            let Some(member) = self.members.get_mut(place) else {
                return;
            };
            if let Some(found) = member.find_conflict(now, active) {
                self.tell(RouterEvent::Conflict {
                    address: found.address,
                    mac: found.mac,
                });
            }
        }
    }

    pub(super) fn receive_all(&mut self, now: Instant, side: Side, most: usize) {
        for place in 0..self.members.len() {
            self.receive(now, place, side, most);
        }
    }

    pub(super) fn receive(&mut self, now: Instant, place: usize, side: Side, most: usize) {
        for _ in 0..most {
            let Some(member) = self.members.get_mut(place) else {
                return;
            };
            let received = match member.wire.read(&member.rules, side) {
                Ok(None) => return,
                Ok(Some(received)) => received,
                Err(error) => {
                    member.kernel_error(now, "receive", &error);
                    return;
                }
            };
            if let Some(skew_ms) = received.skew_ms {
                member.skew(now, received.source, skew_ms);
            }
            match (received.verdict, side) {
                (Ok(advert), Side::Matching) => {
                    member.note(now, &advert);
                    self.hear(now, advert);
                }
                // Came in before the filter was attached; never acted upon from this side.
                (Ok(_), Side::Rejected) => {}
                (Err(reason), Side::Matching | Side::Rejected) => {
                    member.reject(now, reason, received.source, received.claim);
                }
            }
        }
    }

    /// The machine knows each node by one address, so that the same node is the Active on every
    /// wire, and a tie of two Actives ends the same way on each.
    fn hear(&mut self, now: Instant, mut advert: Accepted) {
        if let Some(known_as) = self.others.get(advert.peer) {
            advert.sender = *known_as;
        }
        self.run(now, Input::Advert(advert));
    }

    /// A Backup that hears the Active on one wire of its group but not on another stays where it
    /// is, and says which wire it is.
    fn find_silent_wires(&mut self, now: Instant) {
        let settings = self.machine.settings();
        let interval = self.machine.interval();
        let wait = timing::active_down_interval(settings.version, interval, Priority::LOWEST);
        let active = self.machine.active();
        let active = self.others.iter().position(|other| Some(*other) == active);
        let watches = self.state() == VrrpState::Backup
            && now.saturating_duration_since(self.since) > wait
            && self.members.len() > 1;
        for member in &mut self.members {
            let heard = active.and_then(|place| member.peers.get(place)?.last);
            let is_new = heard.is_some_and(|at| now.saturating_duration_since(at) <= wait);
            let silent = watches && active.is_some() && !is_new;
            if silent && !member.silent {
                let vip = &member.local.vip.name;
                let interface = &member.local.interface;
                tracing::warn!(%vip, %interface, "adverts of the active node come on another wire of the group only");
            }
            member.silent = silent;
        }
    }
}
