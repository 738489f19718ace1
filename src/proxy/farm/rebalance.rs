//! The control thread's part of rebalancing: the plan's steps, and what is told of them.

use std::time::Instant;

use super::Farm;
use crate::proxy::dispatch::seats::Seat;
use crate::proxy::rebalance::Rebalancing;
use crate::proxy::rebalance::plan::News;

impl Farm {
    /// What the threads share of it; `None`: it is off.
    pub(in crate::proxy) fn rebalancing(&self) -> Option<&Rebalancing> {
        self.rebalancing.get().map(AsRef::as_ref)
    }

    /// Plans the next step.
    pub(super) fn rebalance(&self, now: Instant) {
        let (Some(rebalancing), Some(attached)) = (self.rebalancing.get(), self.attached.get())
        else {
            return;
        };
        let seats = self.dispatch().seats();
        let workers = attached.mailboxes.len();
        if let Some(news) = rebalancing.step(seats.as_deref(), workers, now) {
            self.say_moved(news);
        }
    }

    /// Whether connections may be moved at this moment, and how many the server at this place has.
    pub(in crate::proxy) fn moves_from(&self, place: usize) -> Option<u32> {
        let seats = self.dispatch().seats()?;
        let seat = seats.iter().find(|seat| seat.place == place)?;
        let elsewhere = |seat: &&Seat| seat.place != place && seat.room > 0;
        seats.iter().find(elsewhere)?;
        Some(seat.used)
    }

    fn say_moved(&self, news: News) {
        let proxy = self.name();
        match news {
            News::Began(returned) => {
                let reason = if returned {
                    "a server came back"
                } else {
                    "a server has too many"
                };
                tracing::info!(proxy, reason, "connections are being rebalanced");
            }
            News::Done(elapsed, closed) => {
                let elapsed_ms = elapsed.as_millis();
                tracing::info!(proxy, elapsed_ms, closed, "connections are balanced");
            }
            News::InVain(elapsed, closed) => {
                let (elapsed_ms, reason) = (elapsed.as_millis(), "clients did not come back");
                tracing::warn!(proxy, elapsed_ms, closed, reason, "rebalancing given up");
            }
        }
    }
}
