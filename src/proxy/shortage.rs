//! What the data path can run out of: recognised by the kernel's error, counted, and said at most
//! once in a while with what helps against it. Also how many descriptors are left to control.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log::spacing;

/// Between two log lines about the same shortage.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Something that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Descriptors of this process (EMFILE), or those that are not kept back for control.
    Files,
    /// Descriptors of the whole machine (ENFILE).
    SystemFiles,
    /// The kernel's memory for sockets (ENOBUFS, ENOMEM).
    Memory,
    /// Local ports towards one server's address (EADDRNOTAVAIL).
    Ports,
}

impl Shortage {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// Each of them.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Files, Self::SystemFiles, Self::Memory, Self::Ports];

    /// The shortage that an error of the kernel tells of.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EMFILE => Some(Self::Files),
            libc::ENFILE => Some(Self::SystemFiles),
            libc::ENOBUFS | libc::ENOMEM => Some(Self::Memory),
            libc::EADDRNOTAVAIL => Some(Self::Ports),
            _ => None,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::SystemFiles => "system-files",
            Self::Memory => "memory",
            Self::Ports => "ports",
        }
    }

    /// Whether another server may be had in spite of it: ports are counted for each address.
    #[must_use]
    pub const fn is_of_one_server(self) -> bool {
        match self {
            Self::Ports => true,
            Self::Files | Self::SystemFiles | Self::Memory => false,
        }
    }

    fn say(self, proxy: &str, server: Option<&str>) {
        match self {
            Self::Files => tracing::warn!(
                proxy,
                reason =
                    "raise LimitNOFILE= of the unit (ulimit -n), or lower limits.max-connections",
                "open files of this process are used up"
            ),
            Self::SystemFiles => tracing::warn!(
                proxy,
                reason = "raise fs.file-max",
                "open files of the machine are used up"
            ),
            Self::Memory => tracing::warn!(
                proxy,
                reason = "free memory, or raise net.ipv4.tcp_mem or MemoryMax= of the unit",
                "the kernel has no memory for another connection"
            ),
            Self::Ports => tracing::warn!(
                proxy,
                server,
                reason = "widen net.ipv4.ip_local_port_range, set net.ipv4.tcp_tw_reuse=1, or add servers",
                "local ports towards a server are used up"
            ),
        }
    }
}

/// How often each shortage was met, over all workers.
#[derive(Debug, Default)]
pub(super) struct Shortages {
    met: [AtomicU64; Shortage::COUNT],
    said: Mutex<[Option<Instant>; Shortage::COUNT]>,
}

impl Shortages {
    /// Counts one, and says it when that is due.
    pub(super) fn note(&self, what: Shortage, proxy: &str, server: Option<&str>, now: Instant) {
        if self.count(what, now) {
            what.say(proxy, server);
        }
    }

    /// Counts one; answers whether to say so.
    fn count(&self, what: Shortage, now: Instant) -> bool {
        if let Some(met) = self.met.get(what as usize) {
            met.fetch_add(1, Ordering::Relaxed);
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get_mut(what as usize)
            .is_some_and(|said| spacing::is_due(said, SAY_EVERY, now))
    }

    /// How often each was met, in the order of [`Shortage::ALL`].
    pub(super) fn met(&self) -> [u64; Shortage::COUNT] {
        std::array::from_fn(|at| {
            self.met
                .get(at)
                .map_or(0, |met| met.load(Ordering::Relaxed))
        })
    }
}

/// Descriptors that the data path may use. The kernel gives the lowest free number, so one above
/// a bound says that all below are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// No further client is accepted, and no pipe kept, with a number from here.
    pub accept_below: RawFd,
    /// No connection to a server is begun with a number from here. A little more than the other:
    /// those that were accepted just before still find their server.
    pub connect_below: RawFd,
}

impl Default for Descriptors {
    /// As many as the kernel gives.
    fn default() -> Self {
        Self {
            accept_below: RawFd::MAX,
            connect_below: RawFd::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    #[test]
    fn the_kernels_errors_are_told_apart() {
        let of = |errno| Shortage::of(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EMFILE), Some(Shortage::Files));
        assert_eq!(of(libc::ENFILE), Some(Shortage::SystemFiles));
        assert_eq!(of(libc::ENOBUFS), Some(Shortage::Memory));
        assert_eq!(of(libc::ENOMEM), Some(Shortage::Memory));
        assert_eq!(of(libc::EADDRNOTAVAIL), Some(Shortage::Ports));
        assert_eq!(of(libc::ECONNREFUSED), None);
        assert_eq!(Shortage::of(&io::ErrorKind::TimedOut.into()), None);
    }

    #[test]
    fn each_shortage_is_counted_always_and_said_once_a_minute() {
        let shortages = Shortages::default();
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(shortages.count(Shortage::Files, at(0)));
        assert!(!shortages.count(Shortage::Files, at(59)));
        assert!(shortages.count(Shortage::Ports, at(59)));
        assert!(shortages.count(Shortage::Files, at(60)));
        assert_eq!(shortages.met(), [3, 0, 0, 1]);
    }
}
