//! Virtual addresses through netlink: add with a lifetime, renew, delete.
