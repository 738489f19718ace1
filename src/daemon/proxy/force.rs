//! The configuration in force: which farm stands for which proxy of the file. A farm keeps its
//! slot, the number by which everything but the file knows it, for the life of the process; a
//! reload replaces the whole of this at once.

use std::sync::Arc;
use std::time::Instant;

use super::limits::Limits;
use crate::config::model::{Config, Proxy};
use crate::proxy::farm::Farm;

/// The file, and its farms.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub(super) config: Arc<Config>,
    /// By slot: every farm there ever was.
    pub(super) farms: Vec<Arc<Farm>>,
    /// The slot of each proxy of the file.
    pub(super) slots: Vec<usize>,
    /// Farms of proxies that the file had once, and that have connections still.
    pub(super) leaving: Vec<Leaving>,
    pub(super) limits: Limits,
}

/// A proxy that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) slot: usize,
    /// What it has left then is reset.
    pub(super) until: Instant,
}

/// A proxy of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) slot: usize,
    pub(super) config: &'a Proxy,
    pub(super) farm: &'a Arc<Farm>,
}

impl InForce {
    /// As a process begins: slots are positions in the file.
    pub(super) fn new(config: Arc<Config>, farms: Vec<Arc<Farm>>, limits: Limits) -> Self {
        Self {
            config,
            slots: (0..farms.len()).collect(),
            farms,
            leaving: Vec::new(),
            limits,
        }
    }

    /// The proxies of the file, in file order.
    pub(super) fn proxies(&self) -> impl Iterator<Item = Placed<'_>> {
        let proxies = self.config.proxies.iter().zip(&self.slots);
        proxies.filter_map(|(config, slot)| {
            let farm = self.farms.get(*slot)?;
            Some(Placed {
                slot: *slot,
                config,
                farm,
            })
        })
    }

    /// The proxy of the file in this slot.
    pub(super) fn proxy(&self, slot: usize) -> Option<Placed<'_>> {
        self.proxies().find(|placed| placed.slot == slot)
    }

    /// The farms of the file's proxies, in file order.
    pub(super) fn present(&self) -> Vec<Arc<Farm>> {
        self.proxies()
            .map(|placed| Arc::clone(placed.farm))
            .collect()
    }

    /// The slot of the farm with this name, one that is leaving or has left included.
    pub(super) fn slot_of(&self, name: &str) -> Option<usize> {
        self.farms.iter().position(|farm| farm.name() == name)
    }

    /// Those that are checked: the file's, and those that are leaving.
    pub(super) fn watched(&self) -> Vec<(usize, Arc<Farm>)> {
        let leaving = self.leaving.iter().map(|leaving| leaving.slot);
        let slots = self.slots.iter().copied().chain(leaving);
        let farm = |slot: usize| Some((slot, Arc::clone(self.farms.get(slot)?)));
        slots.filter_map(farm).collect()
    }
}
