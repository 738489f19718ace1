//! The channel as users see it.

use std::time::{Duration, Instant};

use super::Channel;
use super::view::{Peer, View};
use crate::ipc::message::{ChannelStatus, NodeView, RouterView};
use crate::peer::oneway::is_lost;

impl Channel {
    /// Everything users see of it.
    #[must_use]
    pub fn status(&self, now: Instant, view: &View) -> ChannelStatus {
        let doors = self.doors.iter();
        let closed =
            doors.filter_map(|door| Some(format!("{}: {}", door.own, door.fault.as_ref()?)));
        let fault = self.key.fault.clone().into_iter().chain(closed).next();
        let rejected = self.counts.rejected();
        ChannelStatus {
            fault,
            keys: self
                .key
                .keys
                .as_ref()
                .map_or(0, crate::peer::key::Keys::count),
            sent: self.counts.sent,
            failed: self.counts.failed,
            received: self.counts.received,
            rejected: rejected.map(|(reason, n)| (reason.to_owned(), n)).to_vec(),
            clients: wide(self.clients.len()),
            tickles: self.counts.tickles,
            nodes: self
                .peers
                .iter()
                .map(|peer| self.node(peer, now, view))
                .collect(),
        }
    }

    fn node(&self, peer: &Peer, now: Instant, view: &View) -> NodeView {
        let routers = self.routers.iter().zip(&view.routers).enumerate();
        let routers = routers.filter_map(|(place, (router, look))| {
            let reported = peer.routers.get(place)?.as_ref()?;
            let silence = reported.silence_of(look.active_since);
            let lost = look.active_since.is_some() && is_lost(look.interval, silence);
            let fresh = peer.fresh(place, now).is_some();
            Some(RouterView {
                vip: router.name.clone(),
                state: reported.state,
                priority: reported.priority,
                silence_ms: ms(reported.silence),
                unheard: fresh && lost,
            })
        });
        NodeView {
            name: peer.node.name.clone(),
            address: peer.node.address.to_string(),
            reachable: peer.is_reachable(now),
            heard_ms: peer.heard.map(|at| ms(now.saturating_duration_since(at))),
            version: peer.version.clone(),
            can_serve: peer.can_serve,
            clients: wide(peer.roster.flows(now).count()),
            routers: routers.collect(),
        }
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
