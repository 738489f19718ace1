//! A virtual router's state as values: for users, and for the keeper that comes next.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::VirtualRouter;
use super::member::Member;
use crate::ipc::message::{HeldBack, PeerStatus, VipStatus, VrrpState};
use crate::vrrp::counters::told;
use crate::vrrp::fsm::StandDown;
use crate::vrrp::stamp::{HoldMark, Stamp};

impl VirtualRouter {
    /// What the keeper writes down for its successor: the last advert sent on any wire, while
    /// Active. `boottime` is `CLOCK_BOOTTIME` at `now`.
    #[must_use]
    pub fn stamp(&self, now: Instant, boottime: Duration, boot_id: &str) -> Option<Stamp> {
        if self.machine.state() != VrrpState::Active {
            return None;
        }
        let first = self.members.first()?;
        let last = self.members.iter().filter_map(|member| member.last_advert);
        let age = now.saturating_duration_since(last.max()?);
        Some(Stamp {
            name: first.local.vip.name.clone(),
            vrid: first.local.vip.vrid.get(),
            boot_id: boot_id.to_owned(),
            advertised_at: boottime.checked_sub(age)?,
        })
    }

    /// What the keeper writes down of a time to preempt nobody.
    #[must_use]
    pub fn hold_mark(&self, now: Instant, boottime: Duration) -> Option<HoldMark> {
        let until = match self.machine.hold_until()? {
            StandDown::UntilReleased => None,
            StandDown::Until(until) => Some(boottime + until.saturating_duration_since(now)),
        };
        let vip = &self.members.first()?.local.vip;
        Some(HoldMark {
            name: vip.name.clone(),
            vrid: vip.vrid.get(),
            until,
        })
    }

    fn held_back(&self, now: Instant) -> Option<HeldBack> {
        Some(match self.machine.hold_until()? {
            StandDown::UntilReleased => HeldBack { left_ms: None },
            StandDown::Until(until) => {
                let left = until.saturating_duration_since(now).as_millis();
                HeldBack {
                    left_ms: Some(u64::try_from(left).unwrap_or(u64::MAX)),
                }
            }
        })
    }

    /// How long ago each other node was last heard, with the vrid of the wire it was heard on;
    /// `None`: never.
    pub fn peers_heard(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (IpAddr, u8, Option<Duration>)> + '_ {
        self.members.iter().flat_map(move |member| {
            let vrid = member.rules.vrid.get();
            let heard = member.others().zip(&member.peers);
            heard.map(move |(node, peer)| {
                let age = peer.last.map(|last| now.saturating_duration_since(last));
                (node.address, vrid, age)
            })
        })
    }

    /// The priority in force.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.machine.effective_priority().get()
    }

    /// Our own advert interval.
    #[must_use]
    pub fn own_interval(&self) -> Duration {
        self.machine.settings().interval.duration()
    }

    /// Everything users see of it, one for each member. The keeper adds the tracks.
    pub fn status(&self, now: Instant) -> impl Iterator<Item = VipStatus> + '_ {
        self.members
            .iter()
            .map(move |member| self.member_status(member, now))
    }

    fn member_status(&self, member: &Member, now: Instant) -> VipStatus {
        let vip = &member.local.vip;
        VipStatus {
            name: vip.name.clone(),
            sync_group: vip.sync_group.clone(),
            vrid: vip.vrid.get(),
            version: vip.version.get(),
            interface: member.local.interface.clone(),
            addresses: vip.addresses.iter().map(ToString::to_string).collect(),
            state: self.machine.state(),
            reason: self.machine.reason().to_owned(),
            since_ms: ms(now.saturating_duration_since(self.since)),
            holds: self.holds(),
            base_priority: self.machine.settings().base.get(),
            effective_priority: self.machine.effective_priority().get(),
            advert_interval_ms: u32::from(self.machine.interval().centiseconds()) * 10,
            held_back: self.held_back(now),
            active: self.machine.active().map(|node| self.on_wire(member, node)),
            silent: member.silent,
            conflict: member.conflict_text(),
            peers: peers(member, now),
            tracks: Vec::new(),
            counters: member.counters.snapshot(),
        }
    }

    /// The address that a node of the first wire has on another one.
    fn on_wire(&self, member: &Member, node: IpAddr) -> IpAddr {
        if node == self.machine.settings().me {
            return member.local.source;
        }
        let place = self.others.iter().position(|other| *other == node);
        place
            .and_then(|place| member.others().nth(place))
            .map_or(node, |other| other.address)
    }
}

fn peers(member: &Member, now: Instant) -> Vec<PeerStatus> {
    let all = member.rules.peers.iter().zip(&member.peers).enumerate();
    all.map(|(place, (peer, heard))| PeerStatus {
        name: member
            .others()
            .nth(place)
            .and_then(|node| node.name.clone()),
        address: peer.address,
        last_advert_age_ms: heard
            .last
            .map(|last| ms(now.saturating_duration_since(last))),
        priority: heard.priority,
        adverts: heard.adverts,
        jitter_p50_us: heard.jitter.quantile(50).map(us),
        jitter_p99_us: heard.jitter.quantile(99).map(us),
        deviations: told(heard.jitter.all()),
        alive_unheard: member.alive == Some(place),
        rejected: heard
            .refused
            .counts()
            .map(|(reason, count)| (reason.word().to_owned(), count))
            .collect(),
    })
    .collect()
}

fn us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
