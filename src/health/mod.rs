//! Is this server alive? A pure rise/fall machine, one probe, one task per server.
//!
//! `fsm` decides (pure): results in, verdict and next deadline out. `probe` asks a server once, over
//! TCP, TLS (`tls`), HTTP or HTTPS, and says what it found (with `patience` for wants of this host). `task` drives the two for one server:
//! wait for the deadline, probe, decide, hand a [`task::Finding`] on. `board` (pure) keeps what is
//! known of all servers, for status, metrics and the snapshot a next process begins with. `late` (pure)
//! tells a server that does not answer from a process that gets no CPU to hear it.

pub mod board;
pub mod fsm;
mod late;
pub mod probe;
pub mod task;
pub mod tls;

mod patience;
