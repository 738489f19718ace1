//! Where does this connection go, and how do the bytes get there?
//!
//! Decisions are pure: [`balance`] (rotation), [`slowstart`], [`queue`], [`server`] and what traffic
//! tells of it ([`evidence`], [`damping`]) are put
//! together by [`dispatch`], which says who gets which server and who waits. [`timer`] is the wheel
//! of deadlines, [`termination`] says how a connection ended. [`outlook`] judges whether waiting is in vain,
//! [`pace`] spaces connects, [`acl`] and [`sources`] say who may connect and how much of it.
//!
//! [`roster`] says which servers there are, each at its place: they may come and go.
//! [`farm`] is one proxy as all threads share it; [`engine`] starts and stops the worker threads.
//! A worker (`worker`) is a thread with its own epoll loop and its own connections: `accept` takes
//! them off the listeners (`line` says who watches which), `connect` finds each a server, `hedge` a second one
//! where the first does not answer ([`doubts`] says which do), `transfer` and `relay` move the bytes,
//! `stall` tells peers that rest from peers that are gone, `ending` leaves their sockets as they
//! ended, [`reshape`] gives running workers other settings, listeners and proxies, `closing` gives the connections of a dead server back to their clients, `retire` those that are
//! old or too many ([`rebalance`]), `origin` reads and writes the headers ([`pp`]) that say who the client is, and chooses the
//! address servers see, `conn` is what is known of one, [`census`] counts them, [`lookup`] finds one by an address, [`shortage`] is what
//! they can run out of. Workers share nothing on the path of the bytes; they meet
//! in the farm when a connection begins and ends, and through [`mailbox`]es.

pub mod acl;
pub mod balance;
pub mod census;
pub mod counters;
pub mod damping;
pub mod dispatch;
pub mod doubts;
pub mod engine;
pub mod evidence;
pub mod farm;
pub mod gate;
pub mod joint;
pub mod lookup;
pub mod mailbox;
pub mod outlook;
pub mod pace;
pub mod pp;
pub mod queue;
pub mod rebalance;
pub mod recurrence;
pub mod reshape;
pub mod roster;
pub mod server;
pub mod shares;
pub mod shortage;
pub mod slowstart;
pub mod sources;
pub mod termination;
pub mod timer;
pub mod unanswered;

mod accept;
mod atomic;
mod closing;
mod conn;
mod connect;
mod ending;
mod guard;
mod hedge;
mod line;
mod origin;
mod parting;
mod relay;
mod retire;
mod settings;
mod sockets;
mod stall;
mod token;
mod transfer;
mod wake;
mod worker;
