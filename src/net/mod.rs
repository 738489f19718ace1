//! All system calls: sockets, netlink, AF_PACKET, the clock, splice, privileges, namespaces.
//! Mechanism, no policy: a file here does what it is told and reports what the kernel said. The
//! only component that may hold `unsafe`, in as few files as possible, one operation per block.

pub mod address;
pub mod arp;
pub mod arp_watch;
mod capset;
pub mod clock;
mod closing;
pub mod cpus;
pub mod epoll;
pub mod eventfd;
pub mod file_watch;
pub mod link;
pub mod local_route;
pub mod localtime;
pub mod memfd;
pub mod nd;
pub mod nd_watch;
pub mod netlink;
pub mod netns;
pub mod notify;
pub mod ntp;
pub mod passed;
pub mod peer_socket;
pub mod privileges;
pub mod process;
pub mod program;
pub mod readiness;
pub mod realtime;
pub mod seqpacket;
pub mod shm;
pub mod signal;
pub mod source;
pub mod splice;
pub mod tcp;
pub mod tickle;
pub mod virtual_mac;
pub mod vrrp_ear;
pub mod vrrp_filter;
pub mod vrrp_socket;
