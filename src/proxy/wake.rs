//! When a paced server may be connected to again, whoever waits for it is served at that moment:
//! the worker that made somebody wait looks at the time before it sleeps, and all do when they
//! come round. Where nobody waits for a pace, this is one glance a round at a number that rests.

use std::time::Duration;

use super::settings::micros;
use super::worker::Worker;

impl Worker {
    /// When the next one is to be served, microseconds since the engine's start.
    pub(super) fn next_paced(&self) -> u64 {
        let mut next = u64::MAX;
        for settings in self.proxies.iter().filter(|s| s.farm.makes_wait()) {
            let now = self.shared.started + Duration::from_micros(self.now);
            if let Some(wait) = settings.farm.wakes_in(now) {
                next = next.min(self.now.saturating_add(micros(wait)));
            }
        }
        next
    }

    /// Serves those whose time has come.
    pub(super) fn serve_paced(&self) {
        for settings in self.proxies.iter().filter(|s| s.farm.makes_wait()) {
            let now = self.shared.started + Duration::from_micros(self.now);
            if settings.farm.wakes_in(now) == Some(Duration::ZERO) {
                settings.farm.wake();
            }
        }
    }
}
