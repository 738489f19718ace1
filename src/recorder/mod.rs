//! The flight recorder: what the state machines were told, in the words of the machines, so that
//! the very same code can be told it again.
//!
//! Each machine has a `tape`: a bounded ring of text in memory, taken once at the start. Each of
//! its parts begins with the whole machine, then come the steps with their time and with what the
//! machine answered. `blackbox` is memory in which
//! tapes outlast the process that writes them. `taped` holds machine and tape together. `file` is the form in which tapes are written, `store` the directory they are
//! kept in, `replay` feeds a machine again and compares. `time` and `words` say how instants and
//! constant words look on a tape. What a machine's steps are stands beside the machine.
//!
//! Nothing here reads a clock. A tape holds what decides and nothing else: no key, no password, no
//! packet; machines are handed none of them.

pub mod blackbox;
pub mod file;
pub mod replay;
pub mod store;
pub mod tape;
pub mod taped;
pub mod time;
pub mod words;

#[cfg(test)]
mod tests;
