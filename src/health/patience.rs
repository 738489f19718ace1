//! A probe that cannot begin for want of something on this host says nothing about the server: it
//! begins again, until its time is over.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant as Deadline, sleep, timeout_at};

use crate::net::clock;

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(20);

/// The outcome of the first attempt that this host had the means for, or of the last before `end`.
pub(super) async fn patiently<T, F>(
    end: Deadline,
    mut attempt: impl FnMut() -> F,
) -> Result<io::Result<T>, Elapsed>
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        let outcome = timeout_at(end, attempt()).await?;
        let again = Deadline::from_std(clock::now() + AGAIN);
        if again >= end || !outcome.as_ref().is_err_and(is_want_of_means) {
            return Ok(outcome);
        }
        sleep(AGAIN).await;
    }
}

/// No descriptor, no memory, no local port (which is also what a host without an address of the
/// server's family says).
fn is_want_of_means(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tried(within: Duration, outcomes: &[i32]) -> (Option<i32>, usize) {
        let mut tries = 0;
        let end = Deadline::from_std(clock::now() + within);
        let outcome = patiently(end, || {
            let errno = *outcomes.get(tries).unwrap_or(outcomes.last().unwrap());
            tries += 1;
            std::future::ready(match errno {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            })
        });
        let outcome = outcome.await.unwrap();
        (outcome.err().and_then(|error| error.raw_os_error()), tries)
    }

    #[tokio::test]
    async fn a_want_of_this_host_is_waited_out_and_a_fault_of_the_server_told_at_once() {
        let long = Duration::from_secs(60);
        assert_eq!(
            tried(long, &[libc::EADDRNOTAVAIL, libc::EMFILE, 0]).await,
            (None, 3)
        );
        let refused = Some(libc::ECONNREFUSED);
        assert_eq!(tried(long, &[libc::ECONNREFUSED, 0]).await, (refused, 1));
        let (error, tries) = tried(Duration::from_millis(90), &[libc::EADDRNOTAVAIL]).await;
        assert_eq!(error, Some(libc::EADDRNOTAVAIL));
        assert!((2..=5).contains(&tries), "{tries}");
    }
}
