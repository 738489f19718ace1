//! In place of `src/proxy/mod.rs`: what is under test as files of its own, the rest as it is.

pub use lbd::proxy::{balance, evidence, outlook, pace, queue, server, unanswered};

#[path = "atomic.rs"]
pub mod atomic;
#[path = "../../src/proxy/dispatch/mod.rs"]
#[expect(dead_code, reason = "used by the product or by unit tests")]
pub mod dispatch;
#[path = "../../src/proxy/gate.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "used by the product or by unit tests"
)]
pub mod gate;
