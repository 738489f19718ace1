//! The table of limits that proxy processes keep together: who gets a column of it, and who is alone.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Keeper;
use super::link::Link;
use crate::ipc::message::ToProxy;
use crate::net::process::Process;
use crate::proxy::shares::Shares;

/// The table; `None`: the kernel gave none, and each process keeps the limits alone.
#[derive(Debug)]
pub(super) struct Sharing(Option<Shares>);

impl Sharing {
    pub(super) fn new() -> Self {
        Self(
            Shares::create()
                .inspect_err(|error| tracing::warn!(%error, "limits hold for each process alone"))
                .ok(),
        )
    }

    /// A proxy that serves already has had a table from an earlier keeper.
    pub(super) fn inherit(&mut self, fds: Vec<OwnedFd>) {
        let used = self
            .0
            .as_ref()
            .is_some_and(|shares| shares.owners().next().is_some());
        let Some(fd) = fds.into_iter().next().filter(|_| !used) else {
            return;
        };
        match Shares::open(fd) {
            Ok(shares) => self.0 = Some(shares),
            Err(error) => tracing::warn!(%error, "limits of the proxy are not known"),
        }
    }

    /// Clears the columns of processes that are no more.
    fn sweep(&self) {
        let Some(shares) = &self.0 else { return };
        for pid in shares.owners() {
            let process = i32::try_from(pid).map(Process::open);
            if !matches!(process, Ok(Ok(_))) {
                shares.forget(pid);
            }
        }
    }

    fn is_alone(&self, pid: i32) -> bool {
        let Some(shares) = &self.0 else { return true };
        shares.owners().all(|owner| i32::try_from(owner) == Ok(pid))
    }
}

impl Keeper {
    /// Gives a process that begins its column, and says whether others are there.
    pub(super) fn give_column(&self, link: &mut Link) -> std::io::Result<()> {
        self.proxies.sharing.sweep();
        let Some(shares) = &self.proxies.sharing.0 else {
            return Ok(());
        };
        let pid = link.connection().peer()?.pid;
        let beside = !self.proxies.sharing.is_alone(pid);
        let column = u32::try_from(pid).ok().and_then(|pid| shares.assign(pid));
        let Some(column) = column else {
            tracing::warn!(
                pid,
                "limits hold for each process alone: too many are draining"
            );
            return Ok(());
        };
        let order = ToProxy::Shares { column };
        let bytes = order.encode().map_err(std::io::Error::other)?;
        link.send(&self.epoll, bytes, &[shares.as_fd()])?;
        if beside {
            let order = ToProxy::Share { shared: true };
            let bytes = order.encode().map_err(std::io::Error::other)?;
            link.send(&self.epoll, bytes, &[])?;
        }
        Ok(())
    }

    /// A process has gone: what it had of the limits is free, and one that is left alone has all.
    pub(super) fn free_column(&mut self, now: Instant, pid: i32) {
        if let (Some(shares), Ok(pid)) = (&self.proxies.sharing.0, u32::try_from(pid)) {
            shares.forget(pid);
        }
        self.proxies.sharing.sweep();
        if let Some(current) = self.proxies.pid()
            && self.proxies.succession.is_none()
            && self.proxies.sharing.is_alone(current)
        {
            self.tell_proxy(now, &ToProxy::Share { shared: false });
        }
    }
}
