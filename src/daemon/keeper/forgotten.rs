//! What an earlier keeper left and the file no longer asks for: addresses and devices, told by their
//! tags.

use crate::config::model::Config;
use crate::net::netlink::Netlink;
use crate::net::{address, virtual_mac};

/// Removes what an earlier keeper held and the file no longer asks for. The routers see to the rest.
pub(super) fn remove_forgotten(netlink: &mut Netlink, config: &Config) {
    let of_routes = || config.routes.iter().flat_map(|route| &route.addresses);
    let of_routers = || config.vips.iter().flat_map(|vip| &vip.addresses);
    let addresses = || of_routers().chain(of_routes());
    let wanted = |ip| addresses().any(|address| address.ip == ip);
    match address::remove_tagged(netlink, wanted) {
        Ok(removed) => {
            for vip in removed {
                tracing::warn!(%vip, "removed an address that an earlier lbd left");
            }
        }
        Err(error) => tracing::error!(%error, "left-over addresses not removed"),
    }
}

/// Removes the devices of virtual hardware addresses that are not `in_use`.
pub(super) fn remove_devices(netlink: &mut Netlink, in_use: impl Fn(&str) -> bool) {
    match virtual_mac::remove_others(netlink, in_use) {
        Ok(removed) => {
            for interface in removed {
                tracing::warn!(%interface, "removed a device that an earlier lbd left");
            }
        }
        Err(error) => tracing::error!(%error, "left-over devices not removed"),
    }
}
