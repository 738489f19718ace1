//! The service manager's notification socket (sd_notify(3)). Sending never waits: a manager that
//! doesn't read must not stop the keeper.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use super::seqpacket::FDS_MAX;

/// The service manager, if one started us.
#[derive(Debug)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// # Errors
    /// When the socket named there can't be reached.
    pub fn from_env() -> io::Result<Self> {
        let socket = match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) => Some(connected(&name)?),
            None => None,
        };
        let ours = match std::env::var("WATCHDOG_PID") {
            Ok(pid) => pid == std::process::id().to_string(),
            Err(_) => true,
        };
        let usec = std::env::var("WATCHDOG_USEC").ok();
        let usec = usec.and_then(|text| text.parse().ok()).filter(|_| ours);
        Ok(Self {
            watchdog: usec.filter(|_| socket.is_some()).map(Duration::from_micros),
            socket,
        })
    }

    /// Nobody to notify.
    #[must_use]
    pub fn none() -> Self {
        Self {
            socket: None,
            watchdog: None,
        }
    }

    /// How often the watchdog wants to be fed: a third of its patience.
    #[must_use]
    pub fn feed_interval(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 3)
    }

    /// Has the service manager keep these descriptors under this name, and no others, until the service
    /// is started again: sd_pid_notify_with_fds(3), `FDSTORE=1`. One that keeps none takes no notice.
    ///
    /// # Errors
    /// The kernel's: what the manager does not take it has not.
    pub fn keep(&self, name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        socket.send(format!("FDSTOREREMOVE=1\nFDNAME={name}").as_bytes())?;
        let text = format!("FDSTORE=1\nFDNAME={name}");
        for some in fds.chunks(FDS_MAX) {
            let raw: Vec<RawFd> = some.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let text = [IoSlice::new(text.as_bytes())];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            sendmsg::<UnixAddr>(socket.as_raw_fd(), &text, &rights, flags, None)?;
        }
        Ok(())
    }

    /// A reload begins: `READY=1` says that it is over.
    pub fn reloading(&self) {
        let Ok(at) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else {
            return;
        };
        let at = Duration::from(at).as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={at}"));
    }

    /// Sends assignments such as `READY=1`, one a line.
    pub fn send(&self, text: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send(text.as_bytes()) {
            tracing::debug!(%error, "service manager not notified");
        }
    }
}

fn connected(name: &OsString) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_arrive_at_an_abstract_socket() {
        let name = format!("lbd-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connected(&OsString::from(format!("@{name}"))).unwrap();
        let notify = Notify {
            socket: Some(socket),
            watchdog: Some(Duration::from_secs(3)),
        };
        notify.send("READY=1");
        let mut buffer = [0; 32];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        assert_eq!(notify.feed_interval(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        Notify::none().send("READY=1");
        assert_eq!(Notify::none().feed_interval(), None);
    }
}
