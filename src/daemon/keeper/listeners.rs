//! The listening sockets, which outlive every proxy process: opened once, or handed back by a
//! proxy that outlived the last keeper.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::config::model::{Config, Listen};
use crate::ipc::message::ListenerGroup;
use crate::net::seqpacket::FDS_MAX;
use crate::net::tcp::{self, ListenError};

/// Groups of sockets by proxy and `listen` entry.
#[derive(Debug, Default)]
pub(super) struct Listeners(pub(super) Vec<Vec<Vec<OwnedFd>>>);

impl Listeners {
    /// Opens what is not among `inherited` (sockets of an earlier keeper, in any order). Inherited
    /// sockets that no `listen` entry asks for are closed.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(super) fn open(
        config: &Config,
        workers: usize,
        inherited: Vec<OwnedFd>,
    ) -> Result<Self, ListenError> {
        let mut inherited: Vec<(Option<SocketAddr>, OwnedFd)> = inherited
            .into_iter()
            .map(|fd| (tcp::local_addr(&fd).ok(), fd))
            .collect();
        let mut group = |listen: Listen| {
            let wanted = |(addr, _): &mut (Option<SocketAddr>, OwnedFd)| {
                addr.is_some_and(|addr| is_at(listen, addr))
            };
            let held: Vec<OwnedFd> = inherited.extract_if(.., wanted).map(|(_, fd)| fd).collect();
            if held.is_empty() {
                tcp::listener_group(listen, workers)
            } else {
                Ok(held)
            }
        };
        let proxies = config.proxies.iter();
        let groups: Result<_, ListenError> = proxies
            .map(|proxy| proxy.listen.iter().map(|listen| group(*listen)).collect())
            .collect();
        Ok(Self(groups?))
    }

    /// Every group in messages of at most [`FDS_MAX`] descriptors.
    pub(super) fn messages(&self) -> impl Iterator<Item = (ListenerGroup, &[OwnedFd])> {
        let numbered = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        let proxies = self.0.iter().enumerate();
        let groups = proxies.flat_map(|(proxy, listens)| {
            let listens = listens.iter().enumerate();
            listens.map(move |(listen, group)| (proxy, listen, group))
        });
        groups.flat_map(move |(proxy, listen, group)| {
            group.chunks(FDS_MAX).map(move |fds| {
                let message = ListenerGroup {
                    proxy: numbered(proxy),
                    listen: numbered(listen),
                    count: numbered(fds.len()),
                };
                (message, fds)
            })
        })
    }

    /// Every socket.
    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().flatten().flatten().map(AsFd::as_fd)
    }

    /// Sockets held.
    pub(super) fn len(&self) -> usize {
        self.0.iter().flatten().map(Vec::len).sum()
    }
}

/// Whether a socket bound to `addr` is one of `listen`.
fn is_at(listen: Listen, addr: SocketAddr) -> bool {
    match listen {
        Listen::Addr(wanted) => wanted == addr,
        Listen::Any(port) => {
            addr == SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
                || addr == SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(port: u16, other: u16) -> Config {
        let text = format!(
            "[proxy.a]\nlisten = [\"127.0.0.1:{port}\", \"127.0.0.1:{other}\"]\n\
             backends = [\"127.0.0.1:1\"]\n"
        );
        config::load(&text).unwrap()
    }

    /// Two ports nobody has right now.
    fn ports() -> (u16, u16) {
        let held = ["127.0.0.1:0"; 2].map(|any| std::net::TcpListener::bind(any).unwrap());
        let [a, b] = held.map(|socket| socket.local_addr().unwrap().port());
        (a, b)
    }

    #[test]
    fn inherited_sockets_are_used_and_only_the_missing_are_opened() {
        let (a, b) = ports();
        let first = Listeners::open(&config(a, b), 2, Vec::new()).unwrap();
        assert_eq!(first.len(), 4);
        // All four are in use: only by inheriting them can a second set come to be.
        assert!(Listeners::open(&config(a, b), 2, Vec::new()).is_err());
        let copies = first.0.iter().flatten().flatten();
        let copies = copies.map(|fd| fd.try_clone().unwrap()).collect();
        drop(first);
        let second = Listeners::open(&config(a, b), 2, copies).unwrap();
        let counts: Vec<_> = second.messages().map(|(group, _)| group).collect();
        let expected = [0, 1].map(|listen| ListenerGroup {
            proxy: 0,
            listen,
            count: 2,
        });
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_port_alone_means_every_address_of_either_family() {
        let any = Listen::Any(6443);
        assert!(is_at(any, "[::]:6443".parse().unwrap()));
        assert!(is_at(any, "0.0.0.0:6443".parse().unwrap()));
        assert!(!is_at(any, "[::]:6444".parse().unwrap()));
        assert!(!is_at(any, "127.0.0.1:6443".parse().unwrap()));
        let one = Listen::Addr("127.0.0.1:6443".parse().unwrap());
        assert!(is_at(one, "127.0.0.1:6443".parse().unwrap()));
        assert!(!is_at(one, "0.0.0.0:6443".parse().unwrap()));
    }
}
