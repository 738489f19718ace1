//! A page that takes long to write: written on a thread of its own, once for all who ask meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hyper::body::Bytes;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};

/// One page.
#[derive(Debug, Default)]
pub(super) struct Press {
    /// Editions begun.
    begun: AtomicU64,
    /// Who waits, whoever writes included.
    waiting: Arc<AtomicUsize>,
    /// The last edition, as long as somebody waits.
    last: Arc<Mutex<Option<(u64, Bytes)>>>,
}

impl Press {
    /// An edition begun after this call; `write` writes it, unless somebody else has it written.
    ///
    /// # Errors
    /// When `write` panics.
    pub(super) async fn page<F>(&self, write: F) -> Result<Bytes, JoinError>
    where
        F: FnOnce() -> Bytes + Send + 'static,
    {
        let asked = self.begun.load(Ordering::Relaxed);
        let _waits = Waits::begin(&self.waiting);
        let mut last = Arc::clone(&self.last).lock_owned().await;
        let fresh = last.as_ref().filter(|(number, _)| *number > asked);
        let page = match fresh {
            Some((_, page)) => page.clone(),
            None => {
                let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
                // The lock goes with the work: when whoever asked is sent away, the next one waits
                // until that is done, and does not give more.
                let waiting = Arc::clone(&self.waiting);
                let work = move || {
                    let page = write();
                    let kept = waiting.load(Ordering::Relaxed) > 0;
                    *last = kept.then(|| (number, page.clone()));
                    (last, page)
                };
                let page;
                (last, page) = spawn_blocking(work).await?;
                page
            }
        };
        if self.waiting.load(Ordering::Relaxed) == 1 {
            *last = None;
        }
        Ok(page)
    }
}

/// Also one who is sent away stops to wait.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_asks_while_a_page_is_written_shares_the_next_one() {
        let press = Arc::new(Press::default());
        let (go, gate) = mpsc::sync_channel::<()>(1);
        let write = |text: &'static str| move || Bytes::from(text);
        let first = tokio::spawn({
            let press = Arc::clone(&press);
            async move {
                let slow = move || {
                    gate.recv().unwrap();
                    Bytes::from("first")
                };
                press.page(slow).await.unwrap()
            }
        });
        while press.begun.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let second = press.page(write("second"));
        let third = press.page(write("third"));
        let later = async {
            tokio::task::yield_now().await;
            go.send(()).unwrap();
        };
        let (second, third, ()) = tokio::join!(second, third, later);
        assert_eq!(first.await.unwrap(), "first");
        // What they get was begun after they asked.
        assert_eq!(
            (second.unwrap(), third.unwrap()),
            ("second".into(), "second".into())
        );
        assert_eq!(press.page(write("fourth")).await.unwrap(), "fourth");
        assert!(press.last.lock().await.is_none(), "kept for nobody");
    }

    #[tokio::test]
    async fn who_is_sent_away_leaves_no_second_page_beside_the_one_that_is_written() {
        let press = Press::default();
        let (go, gate) = mpsc::sync_channel::<()>(1);
        let slow = move || {
            gate.recv().unwrap();
            Bytes::from("first")
        };
        let mut first = Box::pin(press.page(slow));
        assert!(is_pending(&mut first).await);
        drop(first);
        let mut second = Box::pin(press.page(|| Bytes::from("second")));
        assert!(is_pending(&mut second).await);
        assert_eq!(press.begun.load(Ordering::Relaxed), 1, "it waits");
        go.send(()).unwrap();
        assert_eq!(second.await.unwrap(), "second");
        assert!(press.last.lock().await.is_none(), "kept for nobody");
    }

    /// Goes on with it once; whether it is pending.
    async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            let poll = std::pin::Pin::new(&mut *future).poll(context);
            std::task::Poll::Ready(poll.is_pending())
        })
        .await
    }
}
