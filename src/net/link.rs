//! Link and address events from netlink.
