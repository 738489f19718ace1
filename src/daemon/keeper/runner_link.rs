//! The keeper's end of the runner.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::link::Link;
use crate::ipc::runner::{FromRunner, ToRunner};
use crate::net::epoll::Epoll;
use crate::net::process::{self, Launch, Process};
use crate::net::seqpacket::Connection;

/// A running runner.
#[derive(Debug)]
pub(super) struct RunnerLink {
    pub(super) link: Link,
    pub(super) process: Process,
}

impl RunnerLink {
    /// Starts one; its socket is watched under `token`. With `client_source` it gets what its proxy
    /// needs to connect from clients' addresses.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn start(epoll: &Epoll, token: u64, client_source: bool) -> io::Result<Self> {
        let (ours, theirs) = Connection::pair()?;
        let args: &[&OsStr] = if client_source {
            &[OsStr::new("runner"), OsStr::new("--client-source")]
        } else {
            &[OsStr::new("runner")]
        };
        let process = process::launch(&Launch {
            program: Path::new(process::OWN_PROGRAM),
            name: Some("lbd"),
            args,
            env: None,
            fd3: Some(theirs.as_fd()),
            quiet: false,
            net_raw: client_source,
            on_parent_death: None,
        })?;
        let link = Link::new(epoll, ours, token)?;
        Ok(Self { link, process })
    }

    /// Sends an order.
    ///
    /// # Errors
    /// When the runner is gone or doesn't read.
    pub(super) fn tell(&mut self, epoll: &Epoll, order: &ToRunner) -> io::Result<()> {
        let bytes = order.encode().map_err(io::Error::other)?;
        self.link.send(epoll, bytes, &[])
    }

    /// The next report; `None` when there is none.
    ///
    /// # Errors
    /// When the runner is gone or speaks nonsense.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<FromRunner>> {
        let Some(received) = self.link.receive(buffer)? else {
            return Ok(None);
        };
        let bytes = buffer.get(..received.len).unwrap_or_default();
        FromRunner::decode(bytes)
            .map(Some)
            .map_err(io::Error::other)
    }
}
