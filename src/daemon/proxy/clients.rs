//! The list of client connections to virtual addresses, for the keeper to share with the other
//! nodes: gathered from the workers twice a second, told when it has changed.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Link;
use crate::config::model::Config;
use crate::ipc::message::{ClientFlow, FLOWS_MAX, FLOWS_PER_MESSAGE, ToKeeper};
use crate::proxy::census::Census;
use crate::proxy::engine::Engine;

/// Between two questions to the workers.
const EVERY: Duration = Duration::from_millis(500);
/// The list is told again after so long, changed or not: a piece may have been dropped.
const AGAIN: Duration = Duration::from_secs(5);

/// The list and who has been told.
#[derive(Debug, Default)]
pub(super) struct Clients {
    vips: Vec<IpAddr>,
    asked: Option<Arc<Census>>,
    ask_at: Option<Instant>,
    told: Option<(Instant, Vec<ClientFlow>)>,
}

impl Clients {
    /// Nothing is gathered unless the nodes share it.
    pub(super) fn new(config: &Config) -> Self {
        let vips = config.vips.iter().filter(|_| config.peer.is_some());
        let addresses = vips.flat_map(|vip| &vip.addresses);
        Self {
            vips: addresses.map(|address| address.ip).collect(),
            ..Self::default()
        }
    }

    /// A new keeper has been told nothing.
    pub(super) fn start_over(&mut self) {
        self.told = None;
    }

    /// Takes the workers' answers, tells the keeper, asks again when it is time to.
    pub(super) fn tick(&mut self, engine: &Engine, link: &Link, now: Instant) -> io::Result<()> {
        if self.vips.is_empty() {
            return Ok(());
        }
        let late = engine.is_draining() && self.ask_at.is_none_or(|at| at <= now);
        let found = self.asked.as_ref().and_then(|census| match census.take() {
            None if late => Some(census.take_some()),
            found => found,
        });
        if let Some(mut flows) = found {
            self.asked = None;
            // Workers answer in any order.
            flows.sort_unstable();
            let told = self.told.as_ref();
            let current = told.is_some_and(|(at, before)| {
                *before == flows && now.saturating_duration_since(*at) < AGAIN
            });
            if !current {
                tell(link, &flows)?;
                self.told = Some((now, flows));
            }
        }
        if self.asked.is_none() && self.ask_at.is_none_or(|at| at <= now) {
            self.ask_at = Some(now + EVERY);
            self.asked = Some(engine.census(&self.vips, FLOWS_MAX));
        }
        Ok(())
    }
}

fn tell(link: &Link, flows: &[ClientFlow]) -> io::Result<()> {
    let mut pieces = flows.chunks(FLOWS_PER_MESSAGE).peekable();
    let mut first = true;
    loop {
        let piece = pieces.next().unwrap_or_default();
        let last = pieces.peek().is_none();
        link.offer(&ToKeeper::Clients {
            first,
            last,
            flows: piece.to_vec(),
        })?;
        first = false;
        if last {
            return Ok(());
        }
    }
}
