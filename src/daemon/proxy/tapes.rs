//! What the machines of this process were told, for the recordings that the keeper writes: by order,
//! and in memory that the keeper has, too, for the case that this process ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use super::link::Tie;
use crate::ipc::message::ToKeeper;
use crate::ipc::record::{Record, Tapes};
use crate::net::shm::Words;
use crate::net::{clock, memfd};
use crate::recorder::blackbox::{BlackBox, Life, WORDS};
use crate::recorder::{file, time};

/// The memory of tapes that outlast this process.
#[derive(Debug)]
pub(super) struct Lasting {
    words: Arc<Words>,
    black_box: BlackBox,
}

impl Lasting {
    /// In the memory file beside a welcome; `None`: it is none, and tapes end with this process.
    pub(super) fn map(fd: OwnedFd) -> Option<Self> {
        let words = Words::map(fd, WORDS)
            .inspect_err(|error| tracing::warn!(%error, "tapes end with this process"));
        let words = Arc::new(words.ok()?);
        let (now, booted) = clock::both();
        let booted_ns = u64::try_from(booted.as_nanos()).unwrap_or(0);
        let black_box = BlackBox::begin(Arc::clone(&words) as _, time::nanos(now), booted_ns)?;
        Some(Self { words, black_box })
    }

    pub(super) fn black_box(&self) -> BlackBox {
        self.black_box.clone()
    }

    /// [`BlackBox::life`].
    pub(super) fn life(&self) -> Life {
        self.black_box.life()
    }

    /// For the next keeper.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.words.as_fd()
    }
}

impl Control {
    /// Answers the order.
    pub(super) fn on_record(&self, order: Record) {
        let Record { id, t, boottime_ns } = order;
        let (now, booted) = clock::both();
        let passed = booted.saturating_sub(Duration::from_nanos(boottime_ns));
        let passed = i64::try_from(passed.as_nanos()).unwrap_or(0);
        let base = t.saturating_add(passed).saturating_sub(time::nanos(now));
        let unrecorded = u32::try_from(self.watchers.unrecorded()).unwrap_or(u32::MAX);
        let sent = self.tapes(now, base).and_then(|fd| match &self.keeper {
            Tie::Connected(link) => {
                let answer = ToKeeper::Tapes(Tapes { id, unrecorded });
                link.send_beside(&answer, &[fd.as_fd()])
            }
            Tie::Lost => Ok(()),
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "servers' probes are not recorded");
        }
    }

    fn tapes(&self, now: Instant, base: i64) -> io::Result<OwnedFd> {
        let mut all = Vec::new();
        for (name, tape) in self.watchers.tapes(now) {
            file::section(&mut all, "health", name, base)?;
            all.extend_from_slice(&tape);
        }
        memfd::sealed("lbd tapes", &all)
    }
}
