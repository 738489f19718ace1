//! Who holds the address? RFC 9568 and RFC 3768: packets, the election machine, its driver.
//!
//! A received packet goes one way: `validate` turns bytes into an accepted advert or into a reason
//! (`packet` is the codec below it, `hmac` the trailer that proves the sender), `fsm` turns an accepted advert, a timer, a verdict about this
//! node's health or a link event into actions, and `task` carries the actions out: adverts, the
//! address with its kernel lifetime, gratuitous ARP. What is rejected never reaches the machine, so
//! no junk can move a timer. `priority`, `timing` and `garp` are the arithmetic of the machine,
//! `stamp` is what a restarted keeper needs to resume.
//!
//! Everything but `task` and `counters` is pure: instants come in, decisions go out.

pub mod conflict;
pub mod counters;
pub mod fsm;
pub mod garp;
pub mod hmac;
pub mod jitter;
pub mod packet;
pub mod priority;
pub mod recorded;
pub mod rejects;
pub mod stamp;
pub mod task;
pub mod timing;
pub mod validate;
