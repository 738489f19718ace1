//! The channel between the nodes of a file: one UDP port, signed messages, no connection. Each node
//! tells each other one how it sees every virtual router, how long it has not heard the other's
//! adverts, and which clients it serves. Nothing of VRRP depends on it: without it, or with it
//! blocked, the RFC's rules are what is left.
//!
//! [`message`] is the codec, [`key`] the signatures, [`session`] what is believed, [`oneway`] when
//! this node's adverts are lost ([`recorded`]: with its tape), [`tickle`] the list of connections to wake; all of these are pure.
//! [`task`] drives them over the sockets.
//!
//! What an attacker may do. He reads, drops, delays, repeats, reflects and invents packets, and
//! sends from any address, but does not have the key:
//!
//! - *Invented or changed*: the signature (HMAC-SHA256) fails; counted as `forged`.
//! - *Reflected, or passed on to a third node*: the signature covers both ends' addresses; `forged`.
//! - *Repeated*: the counter is not higher than the last one; counted as `replayed`.
//! - *Recorded before this node, or the other one, was restarted, or held back*: a message has an
//!   effect only if it repeats (echoes) this run's random nonce and the counter of a message that
//!   this node sent within the last second; else it is counted as `unproven` and answered with this
//!   node's view, a bounded number of times, which is how two nodes get to know each other's run. A
//!   run that was replaced by another can't come back: what the next one echoes must be newer than
//!   all its predecessor has echoed.
//! - *Dropped or drowned*: the channel falls silent; what the other node reported last counts for
//!   nothing after three intervals. Reading is bounded, so a flood costs the keeper little.
//!
//! What is said is not secret: names, versions, states, and addresses and ports of clients can be
//! read on the wire. A node that has the key can lie; it could send adverts as well.

pub mod key;
pub mod message;
pub mod oneway;
pub mod recorded;
pub mod session;
pub mod task;
pub mod tickle;
