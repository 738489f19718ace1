//! How the keeper leaves: the addresses first (make before break), then the proxy, then itself.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Keeper;
use super::notify::WAIT_AT_STOP;
use crate::ipc::event::EventKind;
use crate::net::clock;
use crate::net::signal::Request;

/// The virtual routers bound their leave themselves; beyond this they are not waited for.
const LEAVE_WITHIN: Duration = Duration::from_secs(60);
/// How long connections may go on once the addresses have gone.
const PROXY_GRACE: Duration = Duration::from_millis(500);
/// A proxy that hasn't ended this long after its grace is killed.
const PROXY_KILL_AFTER: Duration = Duration::from_secs(2);

/// The keeper is leaving.
#[derive(Debug)]
pub(super) enum Stopping {
    /// The routers have resigned and wait for their successors.
    Addresses {
        /// When they are not waited for any longer.
        until: Instant,
    },
    /// The proxy was told to stop.
    Proxy {
        /// When it is killed.
        kill_at: Instant,
    },
    /// The proxy has gone; programs are told how it ended.
    Notify {
        /// When they are not waited for any longer.
        until: Instant,
    },
}

impl Stopping {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::Addresses { until } => *until,
            Self::Proxy { kill_at } => *kill_at,
            Self::Notify { until } => *until,
        }
    }
}

impl Keeper {
    pub(super) fn take_signals(&mut self, now: Instant) {
        loop {
            match self.signals.take() {
                Ok(Some(Request::Stop)) => self.begin_stopping(now),
                Ok(Some(Request::Upgrade)) => {
                    if let Err(reason) = self.begin_upgrade(now) {
                        tracing::warn!(reason, "no upgrade");
                    }
                }
                Ok(Some(Request::Reload)) => self.on_hangup(now),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "signals cannot be read");
                    return;
                }
            }
        }
    }

    /// The second request doesn't wait for a successor.
    fn begin_stopping(&mut self, now: Instant) {
        self.notify.send("STOPPING=1");
        let until = match &self.stopping {
            None => {
                tracing::info!("stopping");
                self.record(EventKind::Keeper, (None, None), None, "stopping");
                self.routers.resign(now);
                self.routes.stop(now);
                now + LEAVE_WITHIN
            }
            Some(Stopping::Addresses { .. }) => now,
            Some(Stopping::Proxy { .. }) => return,
            Some(Stopping::Notify { until }) => {
                self.stopping = Some(Stopping::Notify {
                    until: now.min(*until),
                });
                return;
            }
        };
        self.stopping = Some(Stopping::Addresses { until });
    }

    pub(super) fn tick_stopping(&mut self, now: Instant) {
        match &self.stopping {
            Some(Stopping::Addresses { until }) if self.have_left() || now >= *until => {
                self.stop_proxy(now);
            }
            Some(Stopping::Proxy { kill_at }) if now >= *kill_at => {
                tracing::warn!("proxy did not stop in time");
                self.kill_proxy();
                self.await_notify(now);
            }
            Some(Stopping::Proxy { .. })
                if !self.proxies.is_connected() && !self.proxies.is_orphaned() =>
            {
                self.await_notify(now);
            }
            None
            | Some(Stopping::Addresses { .. } | Stopping::Proxy { .. } | Stopping::Notify { .. }) =>
                {}
        }
    }

    fn have_left(&self) -> bool {
        self.routers.are_released() && self.routes.are_silent()
    }

    fn stop_proxy(&mut self, now: Instant) {
        // What no other node has come for. Then the proxy is told what to reset.
        self.routers.give_up(now);
        self.routes.give_up(now);
        self.publish(now);
        let grace_ms = u32::try_from(PROXY_GRACE.as_millis()).unwrap_or_default();
        self.stop_proxies(now, grace_ms);
        self.proxies.signal_orphan(Signal::SIGTERM);
        self.stopping = Some(Stopping::Proxy {
            kill_at: now + PROXY_GRACE + PROXY_KILL_AFTER,
        });
    }

    fn await_notify(&mut self, now: Instant) {
        let until = now + WAIT_AT_STOP;
        self.stopping = Some(Stopping::Notify { until });
    }

    /// Whether everything has gone, or was waited for long enough.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        match &self.stopping {
            None | Some(Stopping::Addresses { .. } | Stopping::Proxy { .. }) => false,
            Some(Stopping::Notify { until }) => {
                self.notifiers.are_idle() || !self.scripts.has_runner() || now >= *until
            }
        }
    }

    /// The last steps, also after a failure of the loop.
    pub(super) fn close(&mut self) {
        self.routers.give_up(clock::now());
        self.routes.give_up(clock::now());
        if self.stopping.is_some() {
            self.kill_proxy();
            self.proxies.signal_orphan(Signal::SIGKILL);
            if let Err(error) = std::fs::remove_file(self.dir.socket()) {
                tracing::debug!(%error, "keeper.sock not removed");
            }
        }
        self.end_runner();
        tracing::info!("stopped");
    }
}
