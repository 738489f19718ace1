//! The servers in force as rebalancing wants to see them.

use super::Dispatch;
use super::slots::Slots;

/// A server in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Its place.
    pub place: usize,
    /// The share of the connections that it should have, as a weight.
    pub weight: u32,
    /// Connections it has.
    pub used: u32,
    /// Further ones that it may have.
    pub room: u32,
    /// Its share grows still.
    pub warming: bool,
}

impl Dispatch {
    /// The servers in force; `None` while no connection may be moved: somebody waits, servers that
    /// were held back are used for want of others, or one's connections are being closed.
    #[must_use]
    pub fn seats(&self) -> Option<Vec<Seat>> {
        let closing = self.members().any(|(_, server)| server.closing());
        if !self.queue.is_empty() || self.panics() || closing {
            return None;
        }
        let seats = self.members().filter_map(|(place, server)| {
            let weight = self.weights.get(place).copied().filter(|w| *w > 0)?;
            let used = self.board.slots(place).map_or(0, Slots::used);
            Some(Seat {
                place,
                weight,
                used,
                room: server.limit(!self.cold).saturating_sub(used),
                warming: server.ramping(),
            })
        });
        Some(seats.collect())
    }
}
