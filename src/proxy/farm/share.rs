//! A proxy's limits while another process serves it, too: the servers', its own, and its sources'.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Farm;
use crate::proxy::dispatch::share::Pool;
use crate::proxy::joint::Joint;
use crate::proxy::mailbox::Message;
pub use crate::proxy::shares::Column;

/// What names the proxy's own limit among those of its servers.
const OWN: u64 = 0;
/// Places that are kept for those who come next.
const SPARE: u32 = 2;

/// The lines of one proxy.
#[derive(Debug)]
struct Lines {
    of: Column,
    proxy: u64,
}

impl Lines {
    /// The same in every process: names alone go in, by a hash without a seed of its own.
    fn key(&self, seed: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.proxy, seed).hash(&mut hasher);
        hasher.finish()
    }
}

impl Pool for Lines {
    fn claim(&self, seed: u64, limit: u32) -> bool {
        self.of.claim(self.key(seed), limit)
    }

    fn declare(&self, seed: u64, count: u32) {
        self.of.declare(self.key(seed), count);
    }

    fn give(&self, seed: u64, count: u32) {
        self.of.give(self.key(seed), count);
    }
}

/// Whether a farm shares its limits.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    on: AtomicBool,
    own: Joint,
}

/// What all processes may have together, and this one.
fn limits(limit: Option<NonZeroU32>) -> (Option<u32>, u32) {
    let limit = limit.map(NonZeroU32::get);
    (limit, limit.unwrap_or(u32::MAX))
}

impl Farm {
    /// Another process serves this proxy, too, from here on.
    pub fn share(&self, of: &Column) {
        if let Some(sources) = self.sources.get() {
            sources.share(of, &self.name);
        }
        if self.sharing.on.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        let lines = Arc::new(Lines {
            of: of.clone(),
            proxy: hasher.finish(),
        });
        let limits = limits(self.config().max_connections);
        let own = &self.sharing.own;
        own.begin(&self.gate, of, lines.key(OWN), limits);
        self.change(|dispatch| dispatch.share(lines));
    }

    /// Takes a place in the proxy; `false` when it is full.
    pub(in crate::proxy) fn enter(&self) -> bool {
        self.sharing.own.enter(&self.gate)
    }

    /// The proxy has another limit, or none.
    pub(super) fn set_own_limit(&self, limit: Option<NonZeroU32>) {
        let (all, own) = limits(limit);
        self.sharing.own.set(&self.gate, all, own);
    }

    /// This process is alone.
    pub fn end_sharing(&self) {
        if let Some(sources) = self.sources.get() {
            sources.end_sharing();
        }
        if !self.sharing.on.swap(false, Ordering::Relaxed) {
            return;
        }
        if self.sharing.own.end(&self.gate) {
            self.tell_of_room();
        }
        self.change(crate::proxy::dispatch::Dispatch::end_sharing);
    }

    /// Gives back what is not used, and claims what is waited for. `stays`: whether this process goes on
    /// accepting.
    pub fn settle_sharing(&self, stays: bool) {
        let spare = if stays { SPARE } else { 0 };
        self.change(|dispatch| dispatch.settle_sharing(spare));
        if self.sharing.own.settle(&self.gate, spare, stays) {
            self.tell_of_room();
        }
    }

    fn tell_of_room(&self) {
        if let Some(attached) = self.attached.get() {
            for mailbox in &attached.mailboxes {
                mailbox.post(Message::Room);
            }
        }
    }
}
