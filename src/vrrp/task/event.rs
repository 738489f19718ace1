//! What a virtual router tells the keeper: why it could not start, and what happened to it.

use std::io;
use std::net::IpAddr;

use crate::ipc::message::VrrpState;
use crate::vrrp::validate::MixedFamilies;

/// A virtual router that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its addresses are of both families.
    #[error("vip {vip}")]
    Family {
        /// The table's name.
        vip: String,
        /// Why.
        #[source]
        source: MixedFamilies,
    },
    /// No `[vip.NAME]` at all.
    #[error("a virtual router without addresses")]
    Empty,
    /// The members of a sync-group list other nodes, or in another order.
    #[error("vip {vip}: its nodes are not those of vip {first}, with which it moves")]
    Group {
        /// The table's name.
        vip: String,
        /// The group's first one.
        first: String,
    },
    /// Its interface can't be used.
    #[error("vip {vip}: cannot {operation} on interface {interface}")]
    Interface {
        /// The table's name.
        vip: String,
        /// The interface.
        interface: String,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What the keeper should know of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterEvent {
    /// The state changed.
    Changed {
        /// Before.
        from: VrrpState,
        /// After.
        to: VrrpState,
        /// Why, in a few constant words.
        reason: &'static str,
    },
    /// These addresses leave this node in some milliseconds: reset the connections to them.
    Releasing(Vec<IpAddr>),
    /// They are gone.
    Released,
    /// An interface was made anew, and so were its sockets: wait for the new descriptor at this
    /// position.
    Reopened(usize),
    /// Another host answers for an address that this node holds.
    Conflict {
        /// The address.
        address: IpAddr,
        /// That host's hardware address.
        mac: [u8; 6],
    },
    /// Whether this node takes over depends on a fresh probe: make one.
    Probe,
    /// What became of [`VirtualRouter::failover`](super::VirtualRouter::failover).
    FailedOver {
        /// Whether another node took over; otherwise this one goes on as before.
        taken: bool,
    },
}
