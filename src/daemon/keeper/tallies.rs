//! What processes that were succeeded counted goes on to the one that serves. Nothing is kept here but
//! what that one doesn't read yet, or what comes while there is none.

use std::collections::VecDeque;
use std::time::Instant;

use super::Keeper;
use crate::ipc::message::ToProxy;
use crate::ipc::tally::Page;

/// Pages that wait; the oldest go: what they say is said again.
const WAITING_MAX: usize = 256;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    waiting: VecDeque<Page>,
    /// The process that was succeeded last has not told all yet.
    expected: bool,
}

impl Tallies {
    /// A process was succeeded.
    pub(super) fn expect(&mut self) {
        self.expected = true;
    }

    /// Whether all was told that is to be told at once.
    pub(super) fn is_settled(&self) -> bool {
        !self.expected && self.waiting.is_empty()
    }

    fn add(&mut self, page: Page) {
        if page == Page::Done {
            self.expected = false;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(page);
    }
}

impl Keeper {
    /// A process that was succeeded told this.
    pub(super) fn pass_on(&mut self, now: Instant, page: Page) {
        self.proxies.tallies.add(page);
        self.flush_tallies(now);
    }

    /// Sends what waits as far as the present proxy reads.
    pub(super) fn flush_tallies(&mut self, now: Instant) {
        while self.proxy_reads()
            && let Some(page) = self.proxies.tallies.waiting.pop_front()
        {
            self.tell_proxy(now, &ToProxy::Tally(page));
        }
    }
}
