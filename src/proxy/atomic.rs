//! What the workers' shared state is made of: the processor's atomics, and a pointer that is
//! replaced as a whole. The test of interleavings (tests/interleavings) puts loom's in their place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A value that many read and few replace. Reading neither waits nor writes to a line that another
/// core reads.
pub(super) type Swap<T> = arc_swap::ArcSwap<T>;
