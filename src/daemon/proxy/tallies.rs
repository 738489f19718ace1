//! What this process counted goes to its successor: once when that has taken over, and again as long as
//! connections go on here. And it takes in what those before it tell.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::control::Control;
use super::link::{Link, Tie};
use super::report::Shared;
use crate::admin::tally::Told;
use crate::ipc::message::ToKeeper;
use crate::ipc::tally::Page;
use crate::net::clock;

/// Between two looks at what is counted while connections end.
const EVERY: Duration = Duration::from_millis(250);
/// What was told is told again after so long, changed or not: the keeper may have been another one.
const AGAIN: Duration = Duration::from_secs(1);
/// A process whose last connection has ended waits so long for a keeper to tell.
const KEEPER_BACK_WITHIN: Duration = Duration::from_secs(1);

/// What is told, and when it was.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    told: Option<Told>,
    at: Option<Instant>,
    again: Option<Instant>,
    /// For a keeper that reads.
    pages: VecDeque<Page>,
}

impl Tallies {
    /// A successor serves: it hears all there is. What this process shows stays as it is from here on.
    pub(super) fn hand_over(&mut self, shared: &Shared, now: Instant) {
        let (pages, told) = shared.hand_over(now);
        self.pages.extend(pages);
        self.told = Some(told);
        self.at = Some(now);
        self.again = Some(now);
    }

    /// Another keeper may have heard nothing.
    pub(super) fn start_over(&mut self, shared: &Shared) {
        if let Some(told) = &self.told {
            self.pages = shared.known(told).into();
        }
    }

    /// Whether there is more to be told at the end.
    pub(super) fn is_telling(&self) -> bool {
        self.told.is_some()
    }

    /// What was counted since, if it is time to look.
    pub(super) fn tick(&mut self, shared: &Shared, now: Instant) {
        if !self.pages.is_empty() {
            // First what is there is told: nothing piles up for a keeper that doesn't read.
            return;
        }
        let passed = |at: Option<Instant>, pause| {
            at.is_some_and(|at| now.saturating_duration_since(at) >= pause)
        };
        let Some(told) = self.told.as_mut().filter(|_| passed(self.at, EVERY)) else {
            return;
        };
        self.at = Some(now);
        let mut pages = shared.tell_again(told, false, now);
        if passed(self.again, AGAIN) {
            self.again = Some(now);
            if pages.is_empty() {
                pages = shared.repeat(told);
            }
        }
        self.pages.extend(pages);
    }

    /// Sends what the keeper takes now.
    pub(super) fn flush(&mut self, link: &Link) -> io::Result<()> {
        while let Some(page) = self.pages.front() {
            match link.send_now(&ToKeeper::Tally(page.clone())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                sent => sent?,
            }
            self.pages.pop_front();
        }
        Ok(())
    }

    /// The last connection has ended.
    pub(super) async fn finish(&mut self, shared: &Shared, link: &Link, now: Instant) {
        let Some(told) = &mut self.told else { return };
        self.pages.extend(shared.tell_again(told, true, now));
        for page in self.pages.drain(..) {
            if let Err(error) = link.send(&ToKeeper::Tally(page), &[]).await {
                tracing::debug!(%error, "keeper is not told of the last counts");
                return;
            }
        }
    }
}

impl Control {
    /// Another process told what it counted.
    pub(super) fn on_tally(&mut self, page: Page) {
        if page == Page::Done {
            self.doors.release();
        }
        self.shared.take_in(page, clock::now());
    }

    /// A successor serves.
    pub(super) fn hand_over_counts(&mut self, now: Instant) {
        let tallies = &mut self.news.tallies;
        tallies.hand_over(&self.shared, now);
        if let Tie::Connected(link) = &self.keeper
            && let Err(error) = tallies.flush(link)
        {
            tracing::debug!(%error, "keeper cannot be told");
        }
    }

    /// The last counts of a process that was succeeded; a keeper that replaces itself is waited for.
    pub(super) async fn say_last(&mut self) {
        if !self.news.tallies.is_telling() {
            return;
        }
        if matches!(self.keeper, Tie::Lost) {
            let next = self.keeper.next(&self.keeper_socket);
            let found = tokio::time::timeout(KEEPER_BACK_WITHIN, next).await;
            let again = match found {
                Ok(event) => self.on_keeper(event).await,
                Err(_elapsed) => return,
            };
            if let Err(error) = again {
                tracing::debug!(%error, "keeper is not told of the last counts");
            }
        }
        if let Tie::Connected(link) = &self.keeper {
            self.news
                .tallies
                .finish(&self.shared, link, clock::now())
                .await;
        }
    }
}
