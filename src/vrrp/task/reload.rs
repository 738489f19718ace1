//! What becomes of a virtual router when its configuration changes: some of it is changed in place,
//! for the rest a router with the new configuration takes over from the one with the old, as a new
//! keeper does from one that died: the addresses stay where they are.

use std::net::IpAddr;
use std::time::Instant;

use super::member::Member;
use super::{Input, OpenError, RouterEvent, SharedNetlink, VirtualRouter, settings};
use crate::config::local::LocalVip;
use crate::ipc::message::VrrpState;
use crate::net::clock;
use crate::net::link::LinkEvent;
use crate::units::Priority;
use crate::vrrp::stamp::{Resume, Stamp};
use crate::vrrp::validate::Rules;

impl VirtualRouter {
    /// Whether these members differ from the present ones only in what can be changed in place:
    /// names, priorities, preemption, announcements, tracks, programs.
    #[must_use]
    pub fn can_adjust(&self, members: &[LocalVip]) -> bool {
        let own = self.members.iter().map(|member| &member.local);
        let owner = |local: &LocalVip| base(local) == Some(Priority::OWNER);
        members.len() == self.members.len()
            && own.zip(members).all(|(old, new)| {
                let touched = base(old) != base(new) && (owner(old) || owner(new));
                !touched && fixed(old) == fixed(new)
            })
    }

    /// Takes over what [`can_adjust`](Self::can_adjust) allows.
    pub fn adjust(&mut self, members: &[LocalVip]) {
        for (member, local) in self.members.iter_mut().zip(members) {
            member.local = local.clone();
            if let Ok(rules) = Rules::new(local) {
                member.rules = rules;
            }
        }
        if let Some(first) = members.first() {
            self.machine.adjust(settings(first));
        }
    }

    /// Whether there are events that nobody has taken.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.events.is_empty()
    }

    /// Opens what `members` need and does nothing with it yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn prepare(
        members: &[LocalVip],
        netlink: &SharedNetlink,
        now: Instant,
    ) -> Result<Self, OpenError> {
        Self::opened(members, netlink, now)
    }

    /// Begins in the place of routers that had some of its addresses or names; others may do so, too,
    /// in this moment, and nobody uses them afterwards. While one of them was Active it goes on as such.
    pub fn succeed(&mut self, now: Instant, before: &[&Self], boot_id: &str) {
        let boottime = clock::boottime();
        let stamp = before
            .iter()
            .find_map(|router| router.stamp(now, boottime, boot_id));
        let resume = stamp.map(|stamp| Resume {
            stamp: Stamp {
                // It is Active in this moment, however long its last advert is ago: by the new
                // interval that may seem too long.
                advertised_at: boottime,
                ..stamp
            },
            boot_id: boot_id.to_owned(),
            boottime,
        });
        if let Some(hold) = before.iter().find_map(|router| router.machine.hold_until()) {
            self.machine.hold_back(hold);
        }
        self.begin(now, resume.as_ref());
        for router in before {
            self.inherit(router);
        }
        // What happened between its opening and here.
        self.on_link(now, &LinkEvent::Lost);
    }

    /// Begins where there was no such router. Where `there` has all of its addresses it is Active at
    /// once: these are on this node at this moment, held by others that give them up to it, and
    /// must go on answering.
    pub fn begin_anew(&mut self, now: Instant, there: &[(u32, IpAddr)], boot_id: &str) {
        let all = |member: &Member| {
            let home = member.wire.home();
            member.addresses().all(|ip| there.contains(&(home, ip)))
        };
        let boottime = clock::boottime();
        let first = self.members.first().map(|member| &member.local.vip);
        let resume = first.map(|vip| Resume {
            stamp: Stamp {
                name: vip.name.clone(),
                vrid: vip.vrid.get(),
                boot_id: boot_id.to_owned(),
                advertised_at: boottime,
            },
            boot_id: boot_id.to_owned(),
            boottime,
        });
        self.begin(
            now,
            resume.filter(|_| self.members.iter().all(all)).as_ref(),
        );
    }

    /// The addresses that are on this node because of this router, and will be, each with its
    /// interface.
    pub fn held(&self) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
        let is_active = self.machine.state() == VrrpState::Active;
        let all = self.members.iter().filter(move |_| is_active);
        all.flat_map(|member| {
            let home = member.wire.home();
            member.addresses().map(move |ip| (home, ip))
        })
    }

    /// Leaves those of its addresses that are among `held` to the routers of this node that hold
    /// them: it renews and removes them no more.
    pub fn leave_to(&mut self, held: &[(u32, IpAddr)]) {
        for member in &mut self.members {
            let home = member.wire.home();
            let is_left = |ip: IpAddr| held.contains(&(home, ip));
            member.wire.forgo(is_left);
            let addresses = &mut member.local.vip.addresses;
            addresses.retain(|address| !is_left(address.ip));
        }
    }

    /// The name of a member that is the same virtual router as one of `others`, or has an address of
    /// it.
    #[must_use]
    pub fn meets(&self, others: &[LocalVip]) -> Option<&str> {
        let shares = |own: &Member, other: &LocalVip| {
            let mut theirs = other.vip.addresses.iter();
            theirs.any(|theirs| own.addresses().any(|ip| ip == theirs.ip))
        };
        let meets = |own: &&Member| {
            let mut others = others.iter();
            others.any(|other| own.local.is_same_router(other) || shares(own, other))
        };
        let found = self.members.iter().find(meets)?;
        Some(&found.local.vip.name)
    }

    /// Whether one of `present`, the routers of this node from here on, is Active as the same virtual
    /// router: to be left for is nothing then, and to leave loudly would end the other. What any of
    /// them has the use of, the device of `virtual-mac`, is no longer this one's to remove.
    pub fn is_followed<'a>(&mut self, present: impl Iterator<Item = &'a Self>) -> bool {
        let mut followed = false;
        for other in present {
            let is_active = other.machine.state() == VrrpState::Active;
            for member in &mut self.members {
                let mut theirs = other.members.iter();
                if theirs.any(|theirs| theirs.local.is_same_router(&member.local)) {
                    member.wire.leave_device();
                    followed |= is_active;
                }
            }
        }
        followed
    }

    /// Whether any address is left to it.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        let mut all = self.members.iter();
        all.any(|member| member.addresses().next().is_some())
    }

    /// Leaves for good in silence, with what addresses it has left: nobody is to take over.
    pub fn leave_silently(&mut self, now: Instant) {
        self.machine
            .set_cut_off("another router of this node has its place");
        self.run(now, Input::Down);
        self.run(now, Input::Resign);
    }

    /// What was heard and counted so far stays known.
    fn inherit(&mut self, before: &Self) {
        if self.machine.state() == before.machine.state() {
            let is_news = |event: &RouterEvent| !matches!(event, RouterEvent::Changed { .. });
            self.events.retain(is_news);
            self.since = before.since;
        }
        for member in &mut self.members {
            let own = &member.local;
            let all = || before.members.iter();
            let same = all().find(|old| old.local.is_same_router(own));
            let Some(old) = same.or_else(|| all().find(|old| old.local.vip.name == own.vip.name))
            else {
                continue;
            };
            let renewed = member.counters.shown.clone();
            member.counters = old.counters.clone();
            member.counters.shown.adverts_sent += renewed.adverts_sent;
            member.counters.shown.garps_sent += renewed.garps_sent;
            member.counters.shown.errors += renewed.errors;
            for (peer, heard) in member.rules.peers.iter().zip(&mut member.peers) {
                let mut known = old.rules.peers.iter().zip(&old.peers);
                if let Some((_, known)) = known.find(|(one, _)| one.address == peer.address) {
                    *heard = known.clone();
                }
            }
        }
    }

    /// Removes the addresses that `before` had and nobody who took over from it has.
    pub fn leave_unwanted(&mut self, now: Instant, before: &mut Self, wanted: &[IpAddr]) {
        let held = before.holds();
        let mut left = Vec::new();
        for member in &mut before.members {
            let is_unwanted = |ip: &IpAddr| !wanted.contains(ip);
            let unwanted: Vec<IpAddr> = member.addresses().filter(is_unwanted).collect();
            if unwanted.is_empty() || !held {
                continue;
            }
            if let Err(error) = member.wire.release_some(&unwanted) {
                member.kernel_error(now, "remove the address", &error);
            }
            left.extend(unwanted);
        }
        if !left.is_empty() {
            self.tell(RouterEvent::Releasing(left));
        }
    }
}

fn base(local: &LocalVip) -> Option<Priority> {
    let node = local.vip.nodes.get(local.me);
    node.map(|node| node.priority)
}

/// The same without what can be changed in place.
fn fixed(local: &LocalVip) -> LocalVip {
    let mut local = local.clone();
    let vip = &mut local.vip;
    vip.name.clear();
    vip.track.clear();
    vip.notify = None;
    vip.per_server_weight = 0;
    vip.preempt = crate::config::model::Preempt::Never;
    vip.garp = crate::config::model::Garp {
        repeat: 1,
        delay: std::time::Duration::ZERO,
        refresh: std::time::Duration::ZERO,
        interval: std::time::Duration::ZERO,
    };
    for node in &mut vip.nodes {
        node.priority = Priority::LOWEST;
        node.name = None;
    }
    local
}
