//! What the keeper is told: signs of life, what can be served, and what the next process should
//! know. All of it is said again soon, so a keeper that doesn't read costs nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Link;
use super::memory::Memory;
use super::report::Shared;
use super::tallies::Tallies;
use crate::ipc::event::Happening;
use crate::ipc::message::{Heartbeat, ListenerGroup, ProxyServing, ServerSnapshot, ToKeeper};
use crate::net::seqpacket;
use crate::proxy::farm::FarmStats;

/// Between two snapshots, at least.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(100);
/// Happenings that wait for a keeper that reads.
const HAPPENINGS_MAX: usize = 512;
/// Between two reports of what can be served, at most.
const SERVING_EVERY: Duration = Duration::from_secs(1);

/// What the keeper has been told, and when.
#[derive(Debug, Default)]
pub(super) struct News {
    beats: u64,
    pub(super) snapshot_due: bool,
    /// For the keeper's record.
    events: Vec<Happening>,
    /// For the process that takes over from this one.
    pub(super) tallies: Tallies,
    snapshot_sent: Option<Instant>,
    serving: Option<(Instant, Vec<ProxyServing>)>,
}

impl News {
    /// The proxies are others than before: what was said of them by position is said anew.
    pub(super) fn reloaded(&mut self) {
        self.serving = None;
        self.snapshot_due = true;
    }

    /// A new keeper has heard nothing yet.
    pub(super) fn start_over(&mut self) {
        *self = Self {
            beats: self.beats,
            events: std::mem::take(&mut self.events),
            tallies: std::mem::take(&mut self.tallies),
            snapshot_due: true,
            ..Self::default()
        };
    }

    /// Something happened: for the keeper's record. While there is no keeper the oldest go.
    pub(super) fn note(&mut self, more: Vec<Happening>) {
        self.events.extend(more);
        let surplus = self.events.len().saturating_sub(HAPPENINGS_MAX);
        self.events.drain(..surplus);
    }

    pub(super) fn tell(
        &mut self,
        link: &Link,
        shared: &Shared,
        memory: &mut Memory,
        now: Instant,
    ) -> io::Result<()> {
        self.beats += 1;
        let engine = shared.engine.get();
        link.offer(&ToKeeper::Heartbeat(Heartbeat {
            seq: self.beats,
            workers: engine.map_or_else(Vec::new, |engine| engine.ticks(now)),
        }))?;
        let passed = |sent: Option<Instant>, pause| {
            sent.is_none_or(|sent| now.saturating_duration_since(sent) >= pause)
        };
        self.tell_of_operators(link, memory)?;
        self.tallies.tick(shared, now);
        self.tallies.flush(link)?;
        if self.snapshot_due && passed(self.snapshot_sent, SNAPSHOT_EVERY) {
            link.offer(&ToKeeper::Snapshot(snapshot(shared, now)))?;
            self.snapshot_due = false;
            self.snapshot_sent = Some(now);
        }
        if !shared.changing().serving {
            return Ok(());
        }
        let present = serving(shared);
        let told = self.serving.as_ref();
        let changed = told.is_none_or(|(_, before)| *before != present);
        if changed || passed(told.map(|(sent, _)| *sent), SERVING_EVERY) {
            link.offer(&ToKeeper::Serving(present.clone()))?;
            self.serving = Some((now, present));
        }
        Ok(())
    }

    /// What operators changed. It must arrive: what the keeper doesn't read now it gets another time.
    fn tell_of_operators(&mut self, link: &Link, memory: &mut Memory) -> io::Result<()> {
        if memory.untold && arrived(link.send_now(&ToKeeper::Notes(memory.all())))? {
            memory.untold = false;
        }
        while let Some(event) = self.events.first() {
            if !arrived(link.send_now(&ToKeeper::Note(event.clone())))? {
                break;
            }
            self.events.remove(0);
        }
        Ok(())
    }
}

/// Whether the keeper took a message.
fn arrived(sent: io::Result<()>) -> io::Result<bool> {
    match sent {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn serving(shared: &Shared) -> Vec<ProxyServing> {
    let in_force = shared.in_force();
    let changing = shared.changing();
    in_force
        .proxies()
        .map(|placed| ProxyServing {
            probed: changing.board.is_probed(placed.slot),
            // Not what traffic says: that is this moment's, and the address does not move for it.
            usable: u16::try_from(placed.farm.able()).unwrap_or(u16::MAX),
            probe_epoch: changing.board.probe_epoch(placed.slot),
        })
        .collect()
}

fn snapshot(shared: &Shared, now: Instant) -> Vec<ServerSnapshot> {
    let in_force = shared.in_force();
    let farms = in_force.farms.iter();
    let stats: Vec<FarmStats> = farms.map(|farm| farm.stats(now)).collect();
    shared.changing().board.snapshot(now, |proxy, server| {
        let mut servers = stats.get(proxy)?.servers.iter();
        let server = servers.find(|stats| stats.place == server)?;
        server.ramp_ms.map(Duration::from_millis)
    })
}

/// Messages that carry every listening socket.
pub(super) fn groups(listeners: &[Vec<Vec<Arc<OwnedFd>>>]) -> Vec<(ToKeeper, Vec<BorrowedFd<'_>>)> {
    let mut messages = Vec::new();
    for (proxy, of_proxy) in listeners.iter().enumerate() {
        for (listen, sockets) in of_proxy.iter().enumerate() {
            for chunk in sockets.chunks(seqpacket::FDS_MAX) {
                let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
                let group = ListenerGroup {
                    proxy: small(proxy),
                    listen: small(listen),
                    count: small(chunk.len()),
                };
                let fds = chunk.iter().map(AsFd::as_fd).collect();
                messages.push((ToKeeper::Listeners(group), fds));
            }
        }
    }
    messages
}
