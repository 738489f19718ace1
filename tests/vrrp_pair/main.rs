//! Virtual routers on real sockets: two of lbd's, and one of lbd's beside keepalived, each in a
//! network namespace of its own joined by a veth pair. Needs root; says so when it skips.
#![cfg(test)]
#![expect(unreachable_pub, reason = "a test program")]

mod beside_keepalived;
mod election;
#[path = "../lab/forged.rs"]
mod forged;
#[path = "../lab/keepalived.rs"]
mod keepalived;
mod links;
mod pair;
mod restart;
#[path = "../lab/routers.rs"]
mod routers;
mod trust;
