//! The events this process was told of, for those who ask: the last ones, and each further one for
//! those who follow. A follower that reads too slowly misses the oldest, and holds up nobody.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::ipc::event::{Event, Ring, Wanted};

/// Events kept, also from keepers before the present one.
const EVENTS_MAX: usize = 1024;

/// The kept events.
#[derive(Debug)]
pub struct Feed {
    kept: Mutex<Ring>,
    /// How many there were altogether.
    grown: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            kept: Mutex::new(Ring::new(EVENTS_MAX)),
            grown: watch::Sender::new(0),
        }
    }
}

/// A place in the feed: how many events came before it.
pub type Place = u64;

impl Feed {
    /// Adds events; those that are here already are passed over. Answers the new ones.
    pub fn push(&self, events: Vec<Event>) -> Vec<Event> {
        let (new, end) = {
            let mut kept = self.kept();
            let mut new = Vec::with_capacity(events.len());
            for event in events {
                if !kept.has(&event) {
                    kept.push(event.clone());
                    new.push(event);
                }
            }
            (new, kept.end())
        };
        self.grown.send_replace(end);
        new
    }

    /// The last `count` events of those that are asked for, oldest first, and the place behind all.
    #[must_use]
    pub fn last(&self, count: usize, wanted: &Wanted) -> (Vec<Event>, Place) {
        let kept = self.kept();
        (kept.last(count, wanted), kept.end())
    }

    /// Waits for events behind `place`.
    pub async fn after(&self, place: Place) -> (Vec<Event>, Place) {
        let mut grown = self.grown.subscribe();
        // The sender lives as long as we.
        if grown.wait_for(|end| *end > place).await.is_err() {
            return (Vec::new(), place);
        }
        let kept = self.kept();
        let events = kept.from(place).map(|(_, event)| event.clone());
        (events.collect(), kept.end())
    }

    fn kept(&self) -> MutexGuard<'_, Ring> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
            cause: None,
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
        let (last, place) = feed.last(2, &Wanted::default());
        assert_eq!(numbers(&last), [3, 4]);
        feed.push(events(5..7));
        let (more, place) = feed.after(place).await;
        assert_eq!(numbers(&more), [5, 6]);
        let (feed, waiting) = (&feed, feed.after(place));
        let later = async { feed.push(events(7..8)) };
        let ((more, _), _) = tokio::join!(waiting, later);
        assert_eq!(numbers(&more), [7]);
    }

    #[test]
    fn what_a_new_keeper_tells_again_is_kept_once() {
        let feed = Feed::default();
        assert_eq!(numbers(&feed.push(events(0..3))), [0, 1, 2]);
        assert_eq!(numbers(&feed.push(events(1..5))), [3, 4]);
        let (all, place) = feed.last(10, &Wanted::default());
        assert_eq!((numbers(&all), place), (vec![0, 1, 2, 3, 4], 5));
    }

    #[tokio::test]
    async fn who_reads_too_slowly_misses_the_oldest() {
        let feed = Feed::default();
        feed.push(events(0..10));
        let (_, place) = feed.last(0, &Wanted::default());
        feed.push(events(10..1_100));
        let (more, _) = feed.after(place).await;
        assert_eq!((more.len(), more[0].seq), (1_024, 76));
        assert_eq!(feed.last(5_000, &Wanted::default()).0.len(), 1_024);
    }
}
