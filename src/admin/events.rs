//! The events this process was told of, for those who ask: the last ones, and each further one for
//! those who follow. A follower that reads too slowly misses the oldest, and holds up nobody.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::ipc::event::Event;

/// Events kept, also from keepers before the present one; the oldest go first.
const EVENTS_MAX: usize = 1024;

/// The kept events.
#[derive(Debug)]
pub struct Feed {
    kept: Mutex<Kept>,
    /// How many there were altogether.
    grown: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    ring: VecDeque<Event>,
    /// How many there were before the oldest.
    gone: u64,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            grown: watch::Sender::new(0),
        }
    }
}

/// A place in the feed: how many events came before it.
pub type Place = u64;

impl Feed {
    /// Adds events.
    pub fn push(&self, events: Vec<Event>) {
        let end = {
            let mut kept = self.kept();
            for event in events {
                if kept.ring.len() >= EVENTS_MAX {
                    kept.ring.pop_front();
                    kept.gone += 1;
                }
                kept.ring.push_back(event);
            }
            kept.end()
        };
        self.grown.send_replace(end);
    }

    /// The last `count` events, oldest first, and the place behind them.
    #[must_use]
    pub fn last(&self, count: usize) -> (Vec<Event>, Place) {
        let kept = self.kept();
        let skipped = kept.ring.len().saturating_sub(count);
        (kept.ring.range(skipped..).cloned().collect(), kept.end())
    }

    /// Waits for events behind `place`.
    pub async fn after(&self, place: Place) -> (Vec<Event>, Place) {
        let mut grown = self.grown.subscribe();
        // The sender lives as long as we.
        if grown.wait_for(|end| *end > place).await.is_err() {
            return (Vec::new(), place);
        }
        let kept = self.kept();
        let skipped = usize::try_from(place.saturating_sub(kept.gone)).unwrap_or(usize::MAX);
        let skipped = skipped.min(kept.ring.len());
        (kept.ring.range(skipped..).cloned().collect(), kept.end())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn end(&self) -> Place {
        let kept = u64::try_from(self.ring.len()).unwrap_or(u64::MAX);
        self.gone.saturating_add(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::event::EventKind;

    fn events(numbers: std::ops::Range<u64>) -> Vec<Event> {
        let event = |seq| Event {
            seq,
            at_ms: 0,
            kind: EventKind::State,
            vip: None,
            subject: None,
            from: None,
            to: None,
            reason: String::new(),
        };
        numbers.map(event).collect()
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[tokio::test]
    async fn a_follower_gets_every_event_behind_its_place_once() {
        let feed = Feed::default();
        feed.push(events(0..5));
        let (last, place) = feed.last(2);
        assert_eq!(numbers(&last), [3, 4]);
        feed.push(events(5..7));
        let (more, place) = feed.after(place).await;
        assert_eq!(numbers(&more), [5, 6]);
        let (feed, waiting) = (&feed, feed.after(place));
        let later = async { feed.push(events(7..8)) };
        let ((more, _), ()) = tokio::join!(waiting, later);
        assert_eq!(numbers(&more), [7]);
    }

    #[tokio::test]
    async fn who_reads_too_slowly_misses_the_oldest() {
        let feed = Feed::default();
        feed.push(events(0..10));
        let (_, place) = feed.last(0);
        feed.push(events(10..1_100));
        let (more, _) = feed.after(place).await;
        assert_eq!((more.len(), more[0].seq), (1_024, 76));
        assert_eq!(feed.last(5_000).0.len(), 1_024);
    }
}
