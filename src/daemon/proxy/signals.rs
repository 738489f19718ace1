//! The signals of the proxy process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean something here.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) terminate: Signal,
    _ignored: Vec<Signal>,
}

impl Signals {
    /// SIGTERM stops. SIGINT and SIGHUP of a terminal are for the keeper, which gives its orders.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            _ignored: [SignalKind::interrupt(), SignalKind::hangup()]
                .into_iter()
                .map(signal)
                .collect::<io::Result<_>>()?,
        })
    }
}
