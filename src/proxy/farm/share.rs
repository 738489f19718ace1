//! A proxy's limits while another process serves it, too: the servers' and its own.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Farm;
use crate::proxy::dispatch::share::Pool;
use crate::proxy::mailbox::Message;
use crate::proxy::shares::Shares;

/// What names the proxy's own limit among those of its servers.
const OWN: u64 = 0;
/// Places claimed at once for those whom the proxy's own limit holds up.
const PLACES_AT_ONCE: u32 = 16;

/// The table, and this process's column of it.
#[derive(Debug, Clone)]
pub struct Column {
    /// The table.
    pub shares: Arc<Shares>,
    /// Which column.
    pub column: u8,
}

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
        let shares = &self.of.shares;
        let line = shares.line(self.key(seed));
        !shares.is_closed() && line.is_some_and(|line| line.claim(self.of.column, limit))
    }

    fn declare(&self, seed: u64, count: u32) {
        if let Some(line) = self.of.shares.line(self.key(seed)) {
            line.declare(self.of.column, count);
        }
    }

    fn give(&self, seed: u64, count: u32) {
        if let Some(line) = self.of.shares.line(self.key(seed)) {
            line.give(self.of.column, count);
        }
    }
}

/// Whether a farm shares its limits.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// A glance at this spares everybody the lock.
    on: AtomicBool,
    /// Held while the proxy's own limit changes: claims and what is given back follow each other.
    present: Mutex<Option<Present>>,
}

#[derive(Debug)]
struct Present {
    lines: Arc<Lines>,
    /// Places claimed for the proxy's own limit; `None`: it has none.
    places: Option<u32>,
}

impl Sharing {
    fn present(&self) -> MutexGuard<'_, Option<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Farm {
    /// Another process serves this proxy, too, from here on.
    pub fn share(&self, of: &Column) {
        let mut present = self.sharing.present();
        if present.is_some() {
            return;
        }
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        let lines = Arc::new(Lines {
            of: of.clone(),
            proxy: hasher.finish(),
        });
        let places = self.config().max_connections.map(|_| {
            let places = self.gate.lower(self.gate.inside());
            lines.declare(OWN, places);
            self.gate.set_limit(places);
            places
        });
        *present = Some(Present {
            lines: Arc::clone(&lines),
            places,
        });
        self.sharing.on.store(true, Ordering::Relaxed);
        drop(present);
        self.change(|dispatch| dispatch.share(lines));
    }

    /// One more place in the proxy, taken, if all processes together stay within its limit.
    pub(in crate::proxy) fn claim_place(&self) -> bool {
        if !self.sharing.on.load(Ordering::Relaxed) {
            return false;
        }
        let limit = self.config().max_connections;
        let mut present = self.sharing.present();
        let Some(Present { lines, places }) = present.as_mut() else {
            return false;
        };
        let (Some(places), Some(limit)) = (places, limit) else {
            return false;
        };
        if lines.claim(OWN, limit.get()) {
            *places += 1;
            self.gate.set_limit(*places);
        }
        self.gate.enter()
    }

    /// The proxy has another limit, or none.
    pub(super) fn set_own_limit(&self, limit: Option<NonZeroU32>) {
        let mut present = self.sharing.present();
        let Some(Present { lines, places }) = present.as_mut() else {
            return self.gate.set_limit(limit.map_or(u32::MAX, NonZeroU32::get));
        };
        match (*places, limit) {
            // What is claimed stays; further claims go by the new limit.
            (Some(_), Some(_)) | (None, None) => {}
            (Some(claimed), None) => {
                lines.give(OWN, claimed);
                *places = None;
                self.gate.set_limit(u32::MAX);
            }
            (None, Some(_)) => {
                let inside = self.gate.lower(self.gate.inside());
                lines.declare(OWN, inside);
                self.gate.set_limit(inside);
                *places = Some(inside);
            }
        }
    }

    /// This process is alone.
    pub fn end_sharing(&self) {
        self.sharing.on.store(false, Ordering::Relaxed);
        let before = self.sharing.present().take();
        if let (Some(_), Some(limit)) = (before, self.config().max_connections) {
            self.gate.set_limit(limit.get());
            self.tell_of_room();
        }
        self.change(crate::proxy::dispatch::Dispatch::end_sharing);
    }

    /// Gives back what is not used, and claims what is waited for. `stays`: whether this process goes on
    /// accepting.
    pub fn settle_sharing(&self, stays: bool) {
        let spare = if stays { 2 } else { 0 };
        self.change(|dispatch| dispatch.settle_sharing(spare));
        let limit = self.config().max_connections;
        let mut present = self.sharing.present();
        let Some(Present { lines, places }) = present.as_mut() else {
            return;
        };
        let (Some(places), Some(limit)) = (places, limit) else {
            return;
        };
        let least = self.gate.inside().saturating_add(spare);
        if *places > least {
            let keep = self.gate.lower(least).min(*places);
            lines.give(OWN, *places - keep);
            *places = keep;
            self.gate.set_limit(keep);
        }
        if stays && self.gate.wanted() {
            let more = (0..PLACES_AT_ONCE).take_while(|_| lines.claim(OWN, limit.get()));
            *places += u32::try_from(more.count()).unwrap_or(0);
            self.gate.set_limit(*places);
            if *places > self.gate.inside() {
                self.tell_of_room();
            }
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
