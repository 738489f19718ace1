//! What the virtual routers want done by others.

use std::net::IpAddr;

use crate::ipc::message::VrrpState;

/// What the routers want done by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// These addresses are about to leave this node: connections to them are to be reset.
    Reset(Vec<IpAddr>),
    /// Whether this node takes over depends on a probe.
    Probe,
    /// Another host answers for an address of the router at this position.
    Conflict(usize, IpAddr, [u8; 6]),
    /// A router has changed its state: its position, from where, to where, why.
    Changed(usize, VrrpState, VrrpState, &'static str),
    /// A failover by command has ended.
    FailedOver {
        /// The router's position.
        index: usize,
        /// Whether another node took over.
        taken: bool,
    },
}
