//! The routing netlink socket: requests with acknowledgement, facts about this machine.
