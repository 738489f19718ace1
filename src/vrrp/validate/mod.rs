//! From received bytes to an accepted advert or the reason why not: the whole judgement stands
//! here, before any effect. Pure.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::hint::black_box;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::hmac::{self, Clock, Seal};
use super::packet::{
    Addresses, Advertisement, Datagram, GROUP, GROUP_V6, Reject, WireAuth, split_ipv4,
};
use super::timing;
use crate::config::local::LocalVip;
use crate::config::model::{Auth, Mode, VipAddress};
use crate::units::{AdvertInterval, Version, Vrid};

/// Another node of the virtual router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The source address of its adverts.
    pub address: IpAddr,
    /// The lowest TTL or hop limit accepted from it by unicast.
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
    pub me: IpAddr,
    /// The other nodes, then the further routers of our family that may take part.
    pub peers: Vec<Peer>,
    /// Our virtual addresses, in the order they are advertised.
    pub addresses: OwnAddresses,
}

/// Our virtual addresses as they go on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnAddresses {
    /// IPv4.
    V4(Vec<[u8; 4]>),
    /// IPv6.
    V6(Vec<[u8; 16]>),
}

impl OwnAddresses {
    /// The same for an advert.
    #[must_use]
    pub fn as_wire(&self) -> Addresses<'_> {
        match self {
            Self::V4(list) => Addresses::V4(list),
            Self::V6(list) => Addresses::V6(list),
        }
    }

    /// The addresses of a list that are of `like`'s family, all of them, in their order.
    fn of(list: &[VipAddress], like: IpAddr) -> Result<Self, MixedFamilies> {
        match like {
            IpAddr::V4(_) => {
                let octets = |ip| match ip {
                    IpAddr::V4(ip) => Ok(ip.octets()),
                    IpAddr::V6(_) => Err(MixedFamilies),
                };
                let list = list.iter().map(|address| octets(address.ip));
                list.collect::<Result<_, _>>().map(Self::V4)
            }
            IpAddr::V6(_) => {
                let octets = |ip| match ip {
                    IpAddr::V6(ip) => Ok(ip.octets()),
                    IpAddr::V4(_) => Err(MixedFamilies),
                };
                let list = list.iter().map(|address| octets(address.ip));
                list.collect::<Result<_, _>>().map(Self::V6)
            }
        }
    }
}

/// A virtual router that speaks one family and lists addresses of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a virtual router speaks IPv4 or IPv6, not both")]
pub struct MixedFamilies;

/// An advert that may be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// [`MixedFamilies`] when its addresses and its nodes are not all of one family.
    pub fn new(local: &LocalVip) -> Result<Self, MixedFamilies> {
        let vip = &local.vip;
        let others = vip.nodes.iter().enumerate();
        let others = others.filter(|(place, _)| *place != local.me);
        let mut peers: Vec<Peer> = others
            .map(|(_, node)| Peer {
                address: node.address,
                min_ttl: node.min_ttl,
            })
            .collect();
        let like = local.source.is_ipv4();
        if peers.iter().any(|peer| peer.address.is_ipv4() != like) {
            return Err(MixedFamilies);
        }
        let further = vip.allow_from.iter().filter(|ip| ip.is_ipv4() == like);
        peers.extend(further.map(|ip| Peer {
            address: *ip,
            min_ttl: 255,
        }));
        let addresses = OwnAddresses::of(&vip.addresses, local.source)?;
        Ok(Self {
            version: vip.version,
            vrid: vip.vrid,
            interval: vip.advert_interval,
            auth: vip.auth.clone(),
            mode: vip.mode,
            me: local.source,
            peers,
            addresses,
        })
    }

    /// The group that adverts by multicast go to.
    #[must_use]
    pub const fn group(&self) -> IpAddr {
        match self.me {
            IpAddr::V4(_) => IpAddr::V4(GROUP),
            IpAddr::V6(_) => IpAddr::V6(GROUP_V6),
        }
    }

    /// Judges one IPv4 packet as a raw socket delivers it, header first.
    ///
    /// # Errors
    /// The first [`Reject`] that applies; [`Reject::HmacMissing`] where HMAC is configured.
    pub fn accept(&self, packet: &[u8]) -> Result<Accepted, Reject> {
        self.judge(split_ipv4(packet)?, None)
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
        self.judge(split_ipv4(packet)?, Some((seal, clock)))
    }

    /// Judges one packet of either family, with what judges trailers where HMAC is configured.
    ///
    /// The sender must be a configured node in both modes. TTL: 255 by multicast, at least the
    /// node's `min-ttl` by unicast. Length: exactly what the address count says. A differing list of
    /// addresses is told, not refused (RFC 9568 §7.1 leaves it open).
    ///
    /// # Errors
    /// The first [`Reject`] that applies; [`Reject::HmacMissing`] where HMAC is configured and
    /// nothing judges it.
    pub fn judge(
        &self,
        header: Datagram<'_>,
        seal: Option<(&mut Seal, Clock)>,
    ) -> Result<Accepted, Reject> {
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
            Mode::Multicast => (self.group(), 255),
        };
        if header.destination != destination {
            return Err(Reject::Destination);
        }
        if header.ttl < min_ttl {
            return Err(Reject::Ttl);
        }
        let (message, trailer) = hmac::split(header.payload, header.source);
        if trailer.is_some() && !matches!(self.auth, Auth::Hmac(_)) {
            return Err(Reject::AuthType);
        }
        let behind = trailer.map_or([].as_slice(), |trailer| trailer);
        let advert =
            Advertisement::decode_before(message, behind, header.source, header.destination)?;
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
                seal.verify(place, (message, trailer), header.source, clock)?;
            }
            (Auth::Hmac(_), None) => return Err(Reject::HmacMissing),
            (Auth::None | Auth::Pass(_), _) => {}
        }
        let interval = match self.version {
            Version::V2 if advert.interval != self.interval => return Err(Reject::Interval),
            Version::V2 => advert.interval,
            Version::V3 => timing::bounded_interval(self.interval, advert.interval),
        };
        // TODO-correctness(RFC 9568 §5.2.9): IPv6 lists need no link-local address first.
        Ok(Accepted {
            sender: header.source,
            peer: place,
            priority: advert.priority,
            interval,
            interval_as_sent: interval == advert.interval,
            same_addresses: advert.addresses.same_set(self.addresses.as_wire()),
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

#[cfg(test)]
mod tests;
#[cfg(test)]
mod v6_tests;
