//! The virtual routers of this node, and their descriptors in the keeper's epoll instance.

use std::net::IpAddr;
use std::time::Instant;

use super::KeeperError;
use crate::config::local::LocalVip;
use crate::ipc::message::{VipStatus, VrrpState};
use crate::net::epoll::Epoll;
use crate::vrrp::fsm::NodeHealth;
use crate::vrrp::stamp::Stamp;

/// What a router wants done by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouterEvent {
    /// These addresses are about to leave this node: connections to them are to be reset.
    Releasing(Vec<IpAddr>),
    /// Whether this node takes over depends on a probe.
    Probe,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Routers {}

impl Routers {
    pub(super) fn open(
        _locals: &[LocalVip],
        _stamps: &[Stamp],
        _epoll: &Epoll,
        _now: Instant,
    ) -> Result<Self, KeeperError> {
        Ok(Self {})
    }
    pub(super) fn on_readable(&mut self, _index: u64, _now: Instant) {}
    pub(super) fn deadline(&self) -> Option<Instant> {
        None
    }
    pub(super) fn on_deadlines(&mut self, _now: Instant) {}
    pub(super) fn set_health(&mut self, _index: usize, _now: Instant, _health: NodeHealth) {}
    pub(super) fn drain_events(&mut self) -> Vec<RouterEvent> {
        Vec::new()
    }
    pub(super) fn states(&self) -> Vec<(VrrpState, bool)> {
        Vec::new()
    }
    pub(super) fn status(&self, _now: Instant) -> Vec<VipStatus> {
        Vec::new()
    }
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        Vec::new()
    }
    pub(super) fn resign(&mut self, _now: Instant) {}
    pub(super) fn are_released(&self) -> bool {
        true
    }
}
