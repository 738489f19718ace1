//! Running workers get other settings, other listeners and other proxies. All that can fail is done
//! before (`Engine::attach`, `Engine::group`); what then is put in force cannot. A worker takes it
//! in between two rounds, as one message, so that what it does for a connection meanwhile is by the
//! old settings or by the new ones. Nothing of it is on the path of the bytes.
//!
//! A proxy keeps its *slot*, the number by which connections know it, for the life of the process.
//! One that is removed loses its listeners; its connections go on.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::engine::{AccessSink, Engine, EngineError, Listeners, attach, prepare};
use super::farm::Farm;
use super::line::Listener;
use super::mailbox::Message;
use super::settings::Settings;
use super::worker::Worker;
use crate::config::model::Proxy;

/// The sockets of one `listen` entry.
#[derive(Debug, Clone)]
pub struct Group {
    /// Never used twice.
    pub(super) id: u64,
    /// The slot of the proxy whose connections it takes.
    pub proxy: usize,
    /// The position in that proxy's `listen`.
    pub listen: usize,
    /// The sockets; they stay open as long as anybody has them.
    pub sockets: Vec<Arc<OwnedFd>>,
}

/// What the workers have in common that a reload may change.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) groups: Vec<Group>,
    pub(super) access: Option<AccessSink>,
    next_group: u64,
}

impl Layout {
    /// As the engine begins.
    pub(super) fn new(
        proxies: &[Proxy],
        listeners: Listeners,
        access: Option<AccessSink>,
    ) -> Result<Self, EngineError> {
        let mut layout = Self {
            groups: Vec::new(),
            access,
            next_group: 0,
        };
        for (at, (proxy, groups)) in proxies.iter().zip(listeners).enumerate() {
            for (listen, sockets) in groups.into_iter().enumerate() {
                let group = layout.group((at, listen), proxy, sockets)?;
                layout.groups.push(group);
            }
        }
        Ok(layout)
    }

    fn group(
        &mut self,
        (proxy, listen): (usize, usize),
        config: &Proxy,
        sockets: Vec<OwnedFd>,
    ) -> Result<Group, EngineError> {
        for socket in &sockets {
            prepare(socket, config).map_err(|source| EngineError::Listener {
                proxy: config.name.clone(),
                source,
            })?;
        }
        self.next_group += 1;
        Ok(Group {
            id: self.next_group,
            proxy,
            listen,
            sockets: sockets.into_iter().map(Arc::new).collect(),
        })
    }
}

/// What the workers are to serve from here on.
#[derive(Debug)]
pub struct Shape {
    /// Proxies that are new or have other settings, by slot. A new slot is the next free number.
    pub farms: Vec<(usize, Arc<Farm>)>,
    /// All groups of sockets; what is not among them is given up.
    pub groups: Vec<Group>,
    /// Client connections over all proxies.
    pub max_connections: u32,
    /// Where records of ended connections go.
    pub access: Option<AccessSink>,
}

impl Engine {
    fn layout(&self) -> MutexGuard<'_, Layout> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All groups of listening sockets that connections are taken from.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        self.layout().groups.clone()
    }

    /// The listening sockets, `[proxy][listen][socket]`, by slot; they stay open after a stop.
    #[must_use]
    pub fn listeners(&self) -> Vec<Vec<Vec<Arc<OwnedFd>>>> {
        let groups = self.groups();
        let mut all: Vec<Vec<Vec<Arc<OwnedFd>>>> = Vec::new();
        for group in groups {
            if all.len() <= group.proxy {
                all.resize(group.proxy + 1, Vec::new());
            }
            let Some(of_proxy) = all.get_mut(group.proxy) else {
                continue;
            };
            if of_proxy.len() <= group.listen {
                of_proxy.resize(group.listen + 1, Vec::new());
            }
            if let Some(sockets) = of_proxy.get_mut(group.listen) {
                *sockets = group.sockets;
            }
        }
        all
    }

    /// Has the workers' counters and mailboxes ready for a proxy in a slot that nobody had. Nothing
    /// is served for it before [`Engine::commit`].
    ///
    /// # Errors
    /// [`EngineError::Served`].
    pub fn attach(&self, slot: usize, farm: &Farm) -> Result<(), EngineError> {
        attach(slot, farm, &self.shared.mailboxes)
    }

    /// Makes a group of `sockets` that are listening, for the proxy in `slot`. Nothing is taken from
    /// it before [`Engine::commit`].
    ///
    /// # Errors
    /// [`EngineError::Listener`].
    pub fn group(
        &self,
        (slot, listen): (usize, usize),
        config: &Proxy,
        sockets: Vec<OwnedFd>,
    ) -> Result<Group, EngineError> {
        self.layout().group((slot, listen), config, sockets)
    }

    /// Puts `shape` in force. Returns before the workers have it.
    pub fn commit(&self, mut shape: Shape) {
        shape.farms.sort_by_key(|(slot, _)| *slot);
        for (slot, farm) in &shape.farms {
            let config = farm.config();
            let own = shape.groups.iter().filter(|group| group.proxy == *slot);
            for socket in own.flat_map(|group| &group.sockets) {
                // They have taken such options before: newcomers go by what they have.
                if let Err(error) = prepare(socket, &config) {
                    let proxy = farm.name();
                    tracing::error!(proxy, %error, "listener keeps its options");
                }
            }
        }
        let mut layout = self.layout();
        layout.groups.clone_from(&shape.groups);
        layout.access.clone_from(&shape.access);
        let most = shape.max_connections;
        self.shared.own_limit.store(most, Ordering::Relaxed);
        self.shared.joint.set_own(&self.shared.gate, most);
        self.shared.post(&Message::Reshape(Arc::new(shape)));
    }

    /// Resets every client connection of the proxy in this slot.
    pub fn end_proxy(&self, slot: usize) {
        self.shared.post(&Message::EndProxy(slot));
    }
}

impl Worker {
    /// Takes a new shape in.
    pub(super) fn reshape(&mut self, shape: &Shape) {
        for (slot, farm) in &shape.farms {
            self.resettle(*slot, farm);
        }
        self.access.clone_from(&shape.access);
        if self.stopping.is_none() {
            self.regroup(&shape.groups);
            // There may be more places than before.
            self.resume_listeners();
        }
    }

    /// Serves a proxy by its present settings.
    fn resettle(&mut self, slot: usize, farm: &Arc<Farm>) {
        let Some(counters) = farm.counters(usize::from(self.number)) else {
            return;
        };
        let settings = Settings::new(farm, counters, self.shared.started);
        if slot > self.proxies.len() {
            tracing::error!(proxy = farm.name(), "slot is not the next one");
            return;
        }
        if slot == self.proxies.len() {
            self.proxies.push(settings);
            self.silent.push(VecDeque::new());
            self.socks.grow();
            return;
        }
        if let Some(present) = self.proxies.get_mut(slot) {
            let settings = settings.after(present);
            *present = settings;
        }
        self.socks.renew(u16::try_from(slot).unwrap_or(u16::MAX));
        // Those whose patience ends earlier than they were told.
        for conn in self.slots(|conn| usize::from(conn.proxy) == slot) {
            self.arm(conn);
        }
    }

    /// Watches these groups and no others.
    fn regroup(&mut self, groups: &[Group]) {
        for place in 0..self.listeners.len() {
            let Some(listener) = self.listeners.get_mut(place).filter(|l| !l.is_gone()) else {
                continue;
            };
            match groups.iter().find(|group| group.id == listener.group) {
                Some(group) => listener.proxy = u16::try_from(group.proxy).unwrap_or(u16::MAX),
                None => {
                    self.accept_rest(place);
                    self.close_listener(place);
                }
            }
        }
        let workers = self.shared.mailboxes.len().max(1);
        for group in groups {
            let known = |listener: &Listener| !listener.is_gone() && listener.group == group.id;
            if self.listeners.iter().any(known) {
                continue;
            }
            let number = usize::from(self.number);
            for listener in Listener::all(group, workers, number) {
                self.open_listener(listener);
            }
        }
    }

    /// Resets what a proxy has left.
    pub(super) fn end_proxy(&mut self, proxy: usize) {
        for slot in self.slots(|conn| usize::from(conn.proxy) == proxy) {
            self.end_killed(slot);
        }
    }
}
