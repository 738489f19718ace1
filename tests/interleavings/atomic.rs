//! In place of `src/proxy/atomic.rs`: the same names, under loom's eyes.

use std::sync::Arc;

use loom::sync::RwLock;
pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// `arc_swap::ArcSwap` as far as it is used.
#[derive(Debug)]
pub struct Swap<T>(RwLock<Arc<T>>);

impl<T> Swap<T> {
    pub fn from_pointee(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap())
    }

    pub fn store(&self, value: Arc<T>) {
        *self.0.write().unwrap() = value;
    }
}
