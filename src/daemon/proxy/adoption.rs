//! A process that outlived its keeper gives itself to the next one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::control::Control;
use super::link::Link;
use super::news::groups;
use super::start::{hello, read_text};
use super::tapes::Lasting;
use crate::config;
use crate::ipc::message::{ToKeeper, Welcome};

/// A new keeper serves another configuration.
const GRACE_ON_OTHER_CONFIG: Duration = Duration::from_secs(10);

impl Control {
    /// A new keeper has taken this process over; one with another file wants another process.
    pub(super) fn on_adopted(&mut self, welcome: Welcome, fds: Vec<OwnedFd>) {
        match read_text(fds) {
            Ok(text) if config::digest(&text) == self.digest => {
                tracing::info!("taken over by a new keeper");
            }
            Ok(_) => {
                tracing::info!("configuration of the new keeper differs");
                self.stop(GRACE_ON_OTHER_CONFIG, "other configuration");
            }
            Err(error) => tracing::warn!(%error, "configuration of the new keeper is unreadable"),
        }
        let mut changing = self.shared.changing();
        changing.generation = welcome.generation;
        changing.node = welcome.node;
        changing.config_path = welcome.config_path;
    }

    /// Hello, the listening sockets back, and where the tapes lie.
    pub(super) async fn offer_adoption(&self, link: &Link) -> io::Result<()> {
        let serving = self.stopping.is_none();
        let hello = ToKeeper::Hello(hello(self.digest, serving));
        link.send(&hello, &[]).await?;
        let notes = ToKeeper::Notes(self.memory.all());
        link.send(&notes, &[]).await?;
        if let Some(table) = self.limits.table() {
            link.send(&ToKeeper::Shares, &[table]).await?;
        }
        if let Some(engine) = self.shared.engine.get() {
            for (message, fds) in groups(&engine.listeners()) {
                link.send(&message, &fds).await?;
            }
        }
        let lasting: Vec<_> = self.watchers.lasting.iter().map(Lasting::fd).collect();
        link.send(&ToKeeper::ListenersDone, &lasting).await
    }
}
