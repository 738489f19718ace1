//! Waiting for a seqpacket socket in a tokio runtime.
#![expect(
    unsafe_code,
    reason = "the runtime asks for a promise that the descriptor stays the same"
)]

use std::io;

use tokio::io::unix::AsyncFd;

use super::seqpacket::Connection;

/// Watches `connection` for reading and writing. To be called inside a runtime.
///
/// # Errors
/// The kernel's.
pub fn watch(connection: Connection) -> io::Result<AsyncFd<Connection>> {
    // SAFETY: a connection owns its descriptor and has no way to close or replace it before it is
    // dropped, and the AsyncFd drops it after it has stopped watching.
    let watched = unsafe { AsyncFd::register(connection) };
    watched.map_err(Into::into)
}
