//! All system calls: sockets, netlink, AF_PACKET, the clock, splice, privileges, namespaces. Mechanism, no policy.
