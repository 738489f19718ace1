//! Servers that lb.toml does not name: from a file, from DNS, from Kubernetes.
//!
//! Each source is a task that says what it found or what went wrong ([`known::Finding`]); `known`
//! (pure) keeps the last good word of each and merges them into one set per proxy, which the
//! control loop hands to the farm. A source that fails, or that has no server at all, changes
//! nothing: what it found last stays. `file` reads a backends file when it was replaced (`format`:
//! its JSON, pure), `dns` asks resolvers (`message`: its bytes, pure; `system`: the host's own
//! settings, pure), `kubernetes` keeps a watch on a service (`slices`: what it says, pure; `client`:
//! one connection; `trust`: its TLS). `pause` spaces attempts that fail (pure).
//!
//! Nothing here decides about health: a server that was found is probed like any other before it
//! gets a client.

mod dns;
mod file;
pub mod known;
mod kubernetes;
mod pause;
pub mod task;
