//! Gratuitous ARP frames through AF_PACKET.
