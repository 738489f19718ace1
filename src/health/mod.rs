//! Is this server alive? A pure rise/fall machine, one probe, one task per server.
//!
//! `fsm` decides (pure): results in, verdict and next deadline out. `probe` asks a server once, over
//! TCP, TLS (`tls`, with the `setup` made of its `files` and the `session` left by the last handshake), HTTP or
//! HTTPS (`http`), and says what it found (with `patience` for wants of this host). `task` drives the
//! two for one server: wait for the deadline, as `spread` (pure) moves it, probe, decide, hand a
//! [`task::Finding`] on. `board` (pure) keeps what is known of all servers, for status, metrics and
//! the snapshot a next process begins with. `late` (pure) tells a server that does not answer from a
//! process that gets no CPU to hear it. `recorded` (pure) is the machine with its tape.

pub mod board;
pub mod files;
pub mod fsm;
mod http;
mod late;
pub mod probe;
pub mod recorded;
mod session;
mod setup;
mod spread;
pub mod task;
pub mod tls;

mod patience;
