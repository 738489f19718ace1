//! A virtual router's state as values: for users, and for the keeper that comes next.

use std::time::{Duration, Instant};

use super::VirtualRouter;
use crate::ipc::message::{HeldBack, PeerStatus, VipStatus, VrrpState};
use crate::vrrp::fsm::StandDown;
use crate::vrrp::stamp::Stamp;

impl VirtualRouter {
    /// What the keeper writes down for its successor: the last advert sent, while Active.
    /// `boottime` is `CLOCK_BOOTTIME` at `now`.
    #[must_use]
    pub fn stamp(&self, now: Instant, boottime: Duration, boot_id: &str) -> Option<Stamp> {
        if self.machine.state() != VrrpState::Active {
            return None;
        }
        let age = now.saturating_duration_since(self.last_advert?);
        Some(Stamp {
            name: self.local.vip.name.clone(),
            vrid: self.local.vip.vrid.get(),
            boot_id: boot_id.to_owned(),
            advertised_at: boottime.checked_sub(age)?,
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

    /// Everything users see of it. The keeper adds the tracks.
    #[must_use]
    pub fn status(&self, now: Instant) -> VipStatus {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let vip = &self.local.vip;
        let others = vip
            .nodes
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != self.local.me)
            .map(|(_, node)| node);
        let peers = others
            .zip(&self.peers)
            .map(|(node, heard)| PeerStatus {
                name: node.name.clone(),
                address: node.address,
                last_advert_age_ms: heard
                    .last
                    .map(|last| ms(now.saturating_duration_since(last))),
                priority: heard.priority,
                adverts: heard.adverts,
            })
            .collect();
        VipStatus {
            name: vip.name.clone(),
            vrid: vip.vrid.get(),
            version: vip.version.get(),
            interface: self.local.interface.clone(),
            addresses: vip.addresses.iter().map(ToString::to_string).collect(),
            state: self.machine.state(),
            reason: self.machine.reason().to_owned(),
            since_ms: ms(now.saturating_duration_since(self.since)),
            holds: self.holds(),
            base_priority: self.machine.settings().base.get(),
            effective_priority: self.machine.effective_priority().get(),
            advert_interval_ms: u32::from(self.machine.interval().centiseconds()) * 10,
            active: self.machine.active(),
            held_back: self.held_back(now),
            peers,
            tracks: Vec::new(),
            counters: self.counters.snapshot(),
        }
    }
}
