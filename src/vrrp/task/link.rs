//! What links and addresses mean for a virtual router: an interface goes, comes back or is made
//! anew; the node's own address, or a virtual one, is removed by somebody else.

use std::time::{Duration, Instant};

use super::member::Member;
use super::wire::Wire;
use super::{Input, RouterEvent, VirtualRouter};
use crate::net::link::LinkEvent;

/// How long at most the node's own address may be away before the node takes no part: tools that
/// configure a network remove and add it in one breath. Not renewed meanwhile, the shortest lease
/// lasts that long.
const AWAY_MAX: Duration = Duration::from_millis(500);

/// How this node hangs on one wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attachment {
    link_up: bool,
    /// The node's own address is away, which is overlooked until then.
    away: Option<Instant>,
}

impl Attachment {
    pub(super) fn new(link_up: bool) -> Self {
        Self {
            link_up,
            away: None,
        }
    }

    /// Whether this node can take part by this wire.
    pub(super) fn is_usable(self, now: Instant) -> bool {
        self.link_up && self.away.is_none_or(|until| now < until)
    }

    /// Whether no advert can leave for want of an address to send it from.
    pub(super) fn lacks_source(self) -> bool {
        self.away.is_some()
    }
}

/// What an event means for a member, beyond what it could see to itself.
enum Consequence {
    /// The link went or came.
    Link(bool),
    /// The present state must be read.
    Look,
    /// The interface may be another one by now.
    Reopen,
    /// Both.
    ReopenAndLook,
    /// The hardware address, after the link.
    Mac(bool, Option<[u8; 6]>),
}

impl Member {
    fn consequence(&mut self, now: Instant, holds: bool, event: &LinkEvent) -> Option<Consequence> {
        let (mine, home) = (self.wire.index(), self.wire.home());
        match event {
            LinkEvent::Link { index, up, mac, .. } if *index == mine => {
                Some(Consequence::Mac(*up, *mac))
            }
            LinkEvent::Link { name, .. } if *name == self.local.interface => {
                Some(Consequence::Reopen)
            }
            LinkEvent::AddressThere { index, address } if *address == self.local.source => {
                if *index != mine {
                    Some(Consequence::Reopen)
                } else {
                    let lacks = self.attachment.lacks_source();
                    lacks.then_some(Consequence::Look)
                }
            }
            LinkEvent::Removed { index } if *index == mine => Some(Consequence::Link(false)),
            LinkEvent::Removed { index } if *index == home => Some(Consequence::Reopen),
            LinkEvent::Link {
                index, up: false, ..
            } if *index == home && holds => {
                // The next renewal raises it.
                self.wire.forget_state();
                None
            }
            LinkEvent::AddressGone { index, address } if *index == mine || *index == home => {
                if self.addresses().any(|vip| vip == *address) && holds {
                    if self.warnings.about_deletion(now) {
                        tracing::warn!(vip = %address, "address deleted by somebody else");
                    }
                    return Some(Consequence::Look);
                }
                (*address == self.local.source).then_some(Consequence::Look)
            }
            LinkEvent::Lost => Some(Consequence::ReopenAndLook),
            LinkEvent::Link { .. }
            | LinkEvent::Removed { .. }
            | LinkEvent::AddressThere { .. }
            | LinkEvent::AddressGone { .. } => None,
        }
    }

    fn set_source(&mut self, now: Instant, there: bool, patience: Duration) {
        if there {
            self.attachment.away = None;
        } else if self.attachment.away.is_none() {
            self.attachment.away = Some(now + patience.min(AWAY_MAX));
            let address = self.local.source;
            tracing::warn!(%address, "this node's own address was removed by somebody else");
        }
    }
}

impl VirtualRouter {
    /// Something happened to an interface or an address. After [`LinkEvent::Lost`] the present
    /// state is read anew.
    pub fn on_link(&mut self, now: Instant, event: &LinkEvent) {
        for place in 0..self.members.len() {
            let holds = self.machine.holds();
            let Some(member) = self.members.get_mut(place) else {
                return;
            };
            match member.consequence(now, holds, event) {
                None => {}
                Some(Consequence::Link(up)) => self.set_link(now, place, up),
                Some(Consequence::Mac(up, mac)) => {
                    self.set_link(now, place, up);
                    self.set_mac(now, place, mac);
                }
                Some(Consequence::Look) => self.look(now, place),
                Some(Consequence::Reopen) => self.reopen(now, place),
                Some(Consequence::ReopenAndLook) => {
                    self.reopen(now, place);
                    self.look(now, place);
                }
            }
        }
    }

    /// Reads the present state. A virtual address that is missing is put back, but not before the
    /// node's own: else that would be the secondary one of the subnet, and leave with ours.
    fn look(&mut self, now: Instant, place: usize) {
        let patience = self.machine.settings().interval.duration();
        let Some(member) = self.members.get_mut(place) else {
            return;
        };
        let present = match member.wire.present_state(member.local.source) {
            Ok(present) => present,
            Err(error) => {
                return member.kernel_error(now, "read the interface's state", &error);
            }
        };
        member.set_source(now, present.source, patience);
        self.set_mac(now, place, present.mac);
        self.set_link(now, place, present.up);
        if !present.complete && present.source && self.machine.holds() {
            self.run(now, Input::AddressLost);
        }
    }

    /// A member's interface was removed and made anew: new sockets, as soon as it has our address
    /// again.
    fn reopen(&mut self, now: Instant, place: usize) {
        // Who has left needs no wire, and has removed what was made for it.
        if self.machine.is_released() {
            return;
        }
        let stale = |member: &&mut Member| member.wire.is_stale();
        let Some(member) = self.members.get_mut(place).filter(stale) else {
            return;
        };
        member.attachment.link_up = false;
        self.attach(now);
        let Some(member) = self.members.get_mut(place) else {
            return;
        };
        match Wire::open(&member.local, &member.rules, member.wire.netlink()) {
            Ok((wire, up)) => {
                member.wire = wire;
                member.attachment.away = None;
                member.pass_over_siblings(now);
                self.tell(RouterEvent::Reopened(place));
                self.set_link(now, place, up);
            }
            Err(error) => {
                let interface = &member.local.interface;
                tracing::debug!(%interface, %error, "interface not usable yet");
            }
        }
    }

    fn set_link(&mut self, now: Instant, place: usize, up: bool) {
        if let Some(member) = self.members.get_mut(place) {
            member.attachment.link_up = up;
        }
        self.attach(now);
    }

    /// The hardware address is another one (a bond has changed its member): the neighbours must
    /// learn it.
    fn set_mac(&mut self, now: Instant, place: usize, mac: Option<[u8; 6]>) {
        let (Some(member), Some(mac)) = (self.members.get_mut(place), mac) else {
            return;
        };
        match member.wire.set_mac(mac) {
            Ok(true) if self.machine.holds() => self.run(now, Input::Up),
            Ok(_) => {}
            Err(error) => member.kernel_error(now, "announce another hardware address", &error),
        }
    }

    /// When a node's own address may have been away for too long.
    pub(super) fn attachment_deadline(&self) -> Option<Instant> {
        let all = self.members.iter().filter(|_| self.usable);
        all.filter_map(|member| member.attachment.away).min()
    }

    pub(super) fn attachment_due(&mut self, now: Instant) {
        if self.attachment_deadline().is_some_and(|at| at <= now) {
            self.attach(now);
        }
    }

    /// This node takes part if it can on every wire.
    fn attach(&mut self, now: Instant) {
        let mut all = self.members.iter();
        let usable = all.all(|member| member.attachment.is_usable(now));
        if usable != self.usable {
            self.usable = usable;
            if usable {
                self.greet(now);
            } else {
                self.note_cut_off();
            }
            self.run(now, if usable { Input::Up } else { Input::Down });
        }
    }

    /// Says which of the two keeps this node from taking part, and that it may be another member's.
    pub(super) fn note_cut_off(&mut self) {
        let all = self.members.iter();
        let linked = all.clone().all(|member| member.attachment.link_up);
        self.machine.set_cut_off(match (linked, all.len() > 1) {
            (false, false) => "interface down",
            (false, true) => "an interface of the group is down",
            (true, false) => "this node's own address is missing",
            (true, true) => "an own address of the group is missing",
        });
    }
}
