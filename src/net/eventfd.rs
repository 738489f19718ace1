//! Waking another thread: eventfd(2).
