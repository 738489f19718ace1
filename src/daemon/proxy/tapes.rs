//! What the machines of this process were told, for the recordings that the keeper writes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::control::Control;
use super::link::Tie;
use crate::ipc::message::ToKeeper;
use crate::ipc::record::{Record, Tapes};
use crate::net::{clock, memfd};
use crate::recorder::{file, time};

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
