//! From received bytes to an accepted advert or the reason why not: the whole judgement stands
//! here, before any effect. Pure.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use super::hmac::{self, Clock, Seal};
use super::packet::{Advertisement, GROUP, Reject, WireAuth, split_ipv4};
use super::timing;
use crate::config::local::LocalVip;
use crate::config::model::{Auth, Mode};
use crate::units::{AdvertInterval, Version, Vrid};

/// Another node of the virtual router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The source address of its adverts.
    pub address: Ipv4Addr,
    /// The lowest TTL accepted from it by unicast.
    pub min_ttl: u8,
}

/// What the configuration demands of a received advert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The one version spoken.
    pub version: Version,
    /// The virtual router.
    pub vrid: Vrid,
    /// Our own interval.
    pub interval: AdvertInterval,
    /// Our password, or that [`accept_signed`](Rules::accept_signed) is to be asked.
    pub auth: Auth,
    /// How adverts travel.
    pub mode: Mode,
    /// The source of our own adverts.
    pub me: Ipv4Addr,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// Our virtual addresses, in the order they are advertised.
    pub addresses: Vec<[u8; 4]>,
}

/// A virtual router this release cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("IPv6 virtual routers are not supported yet")]
pub struct Ipv6Unsupported;

/// An advert that may be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Who sent it: one of the configured nodes, never ourselves.
    pub sender: IpAddr,
    /// Its position in [`Rules::peers`].
    pub peer: usize,
    /// 0 resigns.
    pub priority: u8,
    /// The sender's interval, [bounded](timing::bounded_interval).
    pub interval: AdvertInterval,
    /// Whether the interval is the one it advertised.
    pub interval_as_sent: bool,
    /// Whether it lists the same addresses as we do, in any order.
    pub same_addresses: bool,
}

impl Rules {
    /// The rules of a virtual router as this node takes part in it.
    ///
    /// # Errors
    /// [`Ipv6Unsupported`] when one of its addresses is no IPv4 address.
    pub fn new(local: &LocalVip) -> Result<Self, Ipv6Unsupported> {
        let v4 = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => Ok(ip),
            IpAddr::V6(_) => Err(Ipv6Unsupported),
        };
        let vip = &local.vip;
        let mut peers = Vec::with_capacity(vip.nodes.len());
        for (place, node) in vip.nodes.iter().enumerate() {
            if place != local.me {
                peers.push(Peer {
                    address: v4(node.address)?,
                    min_ttl: node.min_ttl,
                });
            }
        }
        let addresses = vip
            .addresses
            .iter()
            .map(|address| v4(address.ip).map(|ip| ip.octets()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            version: vip.version,
            vrid: vip.vrid,
            interval: vip.advert_interval,
            auth: vip.auth.clone(),
            mode: vip.mode,
            me: v4(local.source)?,
            peers,
            addresses,
        })
    }

    /// Judges one IPv4 packet as a raw socket delivers it, header first.
    ///
    /// The sender must be a configured node in both modes. TTL: 255 by multicast, at least the
    /// node's `min-ttl` by unicast. Length: exactly what the IPv4 header and the address count
    /// say; bytes beyond the IPv4 total length are Ethernet padding. A differing list of addresses
    /// is told, not refused (RFC 9568 §7.1 leaves it open).
    ///
    /// # Errors
    /// The first [`Reject`] that applies; [`Reject::HmacMissing`] where HMAC is configured.
    pub fn accept(&self, packet: &[u8]) -> Result<Accepted, Reject> {
        self.judge(packet, None)
    }

    /// The same where HMAC is configured: `seal` judges and remembers the trailer.
    ///
    /// # Errors
    /// The first [`Reject`] that applies.
    pub fn accept_signed(
        &self,
        packet: &[u8],
        seal: &mut Seal,
        clock: Clock,
    ) -> Result<Accepted, Reject> {
        self.judge(packet, Some((seal, clock)))
    }

    fn judge(&self, packet: &[u8], seal: Option<(&mut Seal, Clock)>) -> Result<Accepted, Reject> {
        let (header, payload) = split_ipv4(packet)?;
        if header.source == self.me {
            return Err(Reject::OwnAddress);
        }
        let (place, peer) = self
            .peers
            .iter()
            .enumerate()
            .find(|(_, peer)| peer.address == header.source)
            .ok_or(Reject::UnknownSender)?;
        let (destination, min_ttl) = match self.mode {
            Mode::Unicast => (self.me, peer.min_ttl),
            Mode::Multicast => (GROUP, 255),
        };
        if header.destination != destination {
            return Err(Reject::Destination);
        }
        if header.ttl < min_ttl {
            return Err(Reject::Ttl);
        }
        let (message, trailer) = hmac::split(payload, header.source.into());
        if trailer.is_some() && !matches!(self.auth, Auth::Hmac(_)) {
            return Err(Reject::AuthType);
        }
        let advert = Advertisement::decode(message, header.source, header.destination)?;
        if advert.version != self.version {
            return Err(Reject::Version);
        }
        if advert.vrid != self.vrid {
            return Err(Reject::Vrid);
        }
        // TODO-correctness(RFC 9568 §7.1): an owner should log that it hears another node advertise.
        self.authenticate(advert.auth)?;
        match (&self.auth, seal) {
            (Auth::Hmac(_), Some((seal, clock))) => {
                seal.verify(place, (message, trailer), header.source.into(), clock)?;
            }
            (Auth::Hmac(_), None) => return Err(Reject::HmacMissing),
            (Auth::None | Auth::Pass(_), _) => {}
        }
        let interval = match self.version {
            Version::V2 if advert.interval != self.interval => return Err(Reject::Interval),
            Version::V2 => advert.interval,
            Version::V3 => timing::bounded_interval(self.interval, advert.interval),
        };
        Ok(Accepted {
            sender: header.source.into(),
            peer: place,
            priority: advert.priority,
            interval,
            interval_as_sent: interval == advert.interval,
            same_addresses: same_set(advert.addresses, &self.addresses),
        })
    }

    fn authenticate(&self, received: WireAuth) -> Result<(), Reject> {
        match (&self.auth, received) {
            (Auth::None | Auth::Hmac(_), WireAuth::None) => Ok(()),
            (Auth::Pass(password), WireAuth::Pass(data)) => {
                let differing = password
                    .0
                    .iter()
                    .zip(data)
                    .fold(0, |all, (ours, theirs)| black_box(all | (ours ^ theirs)));
                if differing == 0 {
                    Ok(())
                } else {
                    Err(Reject::AuthData)
                }
            }
            (Auth::None | Auth::Hmac(_), WireAuth::Pass(_)) | (Auth::Pass(_), WireAuth::None) => {
                Err(Reject::AuthType)
            }
        }
    }
}

fn same_set(theirs: &[[u8; 4]], ours: &[[u8; 4]]) -> bool {
    theirs.len() == ours.len() && theirs.iter().all(|address| ours.contains(address))
}

#[cfg(test)]
mod tests;
