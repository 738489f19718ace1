//! The keeper process: VRRP, addresses, listening sockets, and the watch over the proxy.
