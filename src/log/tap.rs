//! The messages of the proxy process that become events of the record, on their way to the keeper.
//! Whatever the level of the log, they are taken at info and above.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::catalog;
use super::event::Message;
use crate::ipc::event::Happening;

/// Happenings that wait for the control loop, which comes by 20 times a second; of more, the oldest
/// go.
const WAITING_MAX: usize = 256;

static WAITING: Mutex<VecDeque<Happening>> = Mutex::new(VecDeque::new());

/// Takes what happened since the last call, oldest first.
#[must_use]
pub fn happenings() -> Vec<Happening> {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.drain(..).collect()
}

fn put(happening: Happening) {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.len() >= WAITING_MAX {
        waiting.pop_front();
    }
    waiting.push_back(happening);
}

/// tracing's door to the record.
#[derive(Debug)]
pub(super) struct Tap;

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if let Some(happening) = catalog::happening(&Message::of(event)) {
            put(happening);
        }
    }
}
