//! What links and addresses mean for a virtual router: its interface goes, comes back or is made
//! anew; its own address, or a virtual one, is removed by somebody else.

use std::time::{Duration, Instant};

use super::wire::Wire;
use super::{Input, RouterEvent, VirtualRouter};
use crate::net::link::LinkEvent;

/// How long at most the node's own address may be away before the node takes no part: tools that
/// configure a network remove and add it in one breath. Not renewed meanwhile, the shortest lease
/// lasts that long.
const AWAY_MAX: Duration = Duration::from_millis(500);

/// How this node hangs on its link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attachment {
    link_up: bool,
    /// The node's own address is away, which is overlooked until then.
    away: Option<Instant>,
    /// What the machine was told.
    usable: bool,
}

impl Attachment {
    pub(super) fn new(link_up: bool) -> Self {
        Self {
            link_up,
            away: None,
            usable: link_up,
        }
    }

    /// Whether this node takes part.
    pub(super) fn is_usable(self) -> bool {
        self.usable
    }

    /// Whether no advert can leave for want of an address to send it from.
    pub(super) fn lacks_source(self) -> bool {
        self.away.is_some()
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        self.away.filter(|_| self.usable)
    }
}

impl VirtualRouter {
    /// Something happened to an interface or an address. After [`LinkEvent::Lost`] the present
    /// state is read anew.
    pub fn on_link(&mut self, now: Instant, event: &LinkEvent) {
        let mine = self.wire.index();
        match event {
            LinkEvent::Link { index, up, mac, .. } if *index == mine => {
                self.set_link(now, *up);
                self.set_mac(now, *mac);
            }
            LinkEvent::Link { name, .. } if *name == self.local.interface => self.reopen(now),
            LinkEvent::AddressThere { index, address } if *address == self.local.source => {
                if *index != mine {
                    self.reopen(now);
                } else if self.attachment.lacks_source() {
                    self.look(now);
                }
            }
            LinkEvent::Removed { index } if *index == mine => self.set_link(now, false),
            LinkEvent::AddressGone { index, address } if *index == mine => {
                let ours = self.local.vip.addresses.iter();
                if ours.map(|vip| vip.ip).any(|vip| vip == *address) && self.machine.holds() {
                    if self.warnings.about_deletion(now) {
                        tracing::warn!(vip = %address, "address deleted by somebody else");
                    }
                    self.look(now);
                } else if *address == self.local.source {
                    self.look(now);
                }
            }
            LinkEvent::Lost => {
                self.reopen(now);
                self.look(now);
            }
            LinkEvent::Link { .. }
            | LinkEvent::Removed { .. }
            | LinkEvent::AddressThere { .. }
            | LinkEvent::AddressGone { .. } => {}
        }
    }

    /// Reads the present state. A virtual address that is missing is put back, but not before the
    /// node's own: else that would be the secondary one of the subnet, and leave with ours.
    fn look(&mut self, now: Instant) {
        let present = match self.wire.present_state(self.local.source) {
            Ok(present) => present,
            Err(error) => return self.kernel_error(now, "read the interface's state", &error),
        };
        self.set_mac(now, present.mac);
        self.set_source(now, present.source);
        self.set_link(now, present.up);
        if !present.complete && present.source && self.machine.holds() {
            self.run(now, Input::AddressLost);
        }
    }

    /// Our interface was removed and made anew: new sockets, as soon as it has our address again.
    fn reopen(&mut self, now: Instant) {
        if !self.wire.is_stale() {
            return;
        }
        self.set_link(now, false);
        let reopened = Wire::open(&self.local, &self.rules, self.wire.netlink());
        match reopened {
            Ok((wire, up)) => {
                self.wire = wire;
                self.tell(RouterEvent::Reopened);
                self.attachment.away = None;
                self.set_link(now, up);
            }
            Err(error) => {
                let interface = &self.local.interface;
                tracing::debug!(%interface, %error, "interface not usable yet");
            }
        }
    }

    fn set_link(&mut self, now: Instant, up: bool) {
        self.attachment.link_up = up;
        self.attach(now);
    }

    fn set_source(&mut self, now: Instant, there: bool) {
        if there {
            self.attachment.away = None;
        } else if self.attachment.away.is_none() {
            let interval = self.machine.settings().interval.duration();
            self.attachment.away = Some(now + interval.min(AWAY_MAX));
            let address = self.local.source;
            tracing::warn!(%address, "this node's own address was removed by somebody else");
        }
        self.attach(now);
    }

    /// The hardware address is another one (a bond has changed its member): the neighbours must
    /// learn it.
    fn set_mac(&mut self, now: Instant, mac: Option<[u8; 6]>) {
        match mac.map_or(Ok(false), |mac| self.wire.set_mac(mac)) {
            Ok(false) => {}
            Ok(true) if self.machine.holds() => self.run(now, Input::Up),
            Ok(true) => {}
            Err(error) => self.kernel_error(now, "announce another hardware address", &error),
        }
    }

    /// The node's own address may have been away for too long.
    pub(super) fn attachment_due(&mut self, now: Instant) {
        if self.attachment.deadline().is_some_and(|at| at <= now) {
            self.attach(now);
        }
    }

    fn attach(&mut self, now: Instant) {
        let attachment = &mut self.attachment;
        let usable = attachment.link_up && attachment.away.is_none_or(|until| now < until);
        if usable != attachment.usable {
            attachment.usable = usable;
            self.run(now, if usable { Input::Up } else { Input::Down });
        }
    }
}
