//! A thin wrapper of epoll(7).
