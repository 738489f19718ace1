//! Whether this node's adverts are lost on their way, as the others say.

use std::time::Instant;

use super::Channel;
use super::view::{Loss, View};
use crate::peer::oneway::{Look, Word};

impl Channel {
    /// What was made of the others' word on each router, of late.
    pub fn tapes(&self, now: Instant) -> impl Iterator<Item = (&str, Vec<u8>)> {
        let all = self.routers.iter();
        all.map(move |router| (router.name.as_str(), router.loss.tape(now)))
    }

    /// Which routers' adverts are lost, as far as that has changed.
    pub fn losses(&mut self, now: Instant, view: &View) -> Option<Loss> {
        let Self { routers, peers, .. } = self;
        for (place, (router, look)) in routers.iter_mut().zip(&view.routers).enumerate() {
            let since = look.active_since;
            let reports = || {
                peers.iter().filter_map(|peer| {
                    let reported = peer.fresh(place, now)?;
                    Some((reported.silence_of(since), reported.heard_at(), peer))
                })
            };
            let worst = reports().max_by_key(|(silence, _, _)| *silence);
            let word = worst.map(|(silence, _, _)| Word {
                silence,
                heard: reports().map(|(_, heard, _)| heard).min().flatten(),
            });
            let look = Look {
                active: since.is_some(),
                interval: look.interval,
                word,
            };
            let word = router.loss.judge(now, &look);
            let Some(unheard) = word else { continue };
            let vip = router.name.as_str();
            let vrid = router.vrid;
            if let (true, Some((silence, _, peer))) = (unheard, worst) {
                let elapsed_ms = silence.as_millis();
                tracing::warn!(vip, vrid, peer = %peer.node.name, elapsed_ms, "adverts to peer are lost: one-way");
            } else {
                tracing::info!(vip, vrid, "adverts count as heard again");
            }
            return Some(Loss {
                router: place,
                unheard,
                peer: worst.map(|(_, _, peer)| peer.node.name.clone()),
            });
        }
        None
    }
}
