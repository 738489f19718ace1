//! SOCK_SEQPACKET Unix sockets with descriptors and peer credentials.
