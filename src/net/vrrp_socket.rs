//! Raw sockets for IP protocol 112.
