//! Which clients are connected to certain local addresses: each worker is asked through its
//! mailbox and answers between two rounds. Connections younger than half a second are passed over,
//! so that short ones cost nothing; of the others a worker asks the kernel once each, and not of too
//! many in one round.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use slab::Slab;

use super::conn::{Conn, State};
use crate::ipc::message::ClientFlow;
use crate::net::tcp;

/// A connection must have lasted so long to be counted, microseconds.
const AGE_MIN: u64 = 500_000;

/// A question to all workers, and what they have answered so far.
#[derive(Debug)]
pub struct Census {
    vips: Vec<IpAddr>,
    most: usize,
    missing: AtomicUsize,
    found: Mutex<Vec<ClientFlow>>,
}

impl Census {
    /// Asks for at most so many connections to these addresses.
    pub(super) fn new(vips: &[IpAddr], most: usize, workers: usize) -> Self {
        Self {
            vips: vips.to_vec(),
            most,
            missing: AtomicUsize::new(workers),
            found: Mutex::default(),
        }
    }

    /// The connections, once every worker has answered; to be taken once.
    pub fn take(&self) -> Option<Vec<ClientFlow>> {
        if self.missing.load(Ordering::Acquire) > 0 {
            return None;
        }
        Some(self.take_some())
    }

    /// Those of the workers that have answered: others have ended, while they are waited for.
    pub fn take_some(&self) -> Vec<ClientFlow> {
        std::mem::take(&mut *self.found())
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Vec<ClientFlow>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a worker asks the kernel in one answer; the rest has to wait for the next.
const ASKS_MAX: u32 = 1024;

/// What a worker knows of the local end of a slot's connection.
#[derive(Debug, Clone, Copy)]
struct Known {
    serial: u32,
    /// Position among the addresses asked for; `None`: none of them.
    vip: Option<u16>,
    port: u16,
}

/// A worker's memory of local ends, by slot; empty until somebody asks.
#[derive(Debug, Default)]
pub(super) struct LocalEnds(Vec<Option<Known>>);

impl LocalEnds {
    /// Answers; `now` in microseconds since the engine's start. All questions of one engine name
    /// the same addresses.
    pub(super) fn answer(&mut self, conns: &Slab<Conn>, now: u64, census: &Census) {
        let room = census.most.saturating_sub(census.found().len());
        let mut mine = Vec::new();
        let mut asks = ASKS_MAX;
        for (slot, conn) in conns {
            let old = now.saturating_sub(conn.accepted) >= AGE_MIN;
            if mine.len() >= room {
                break;
            }
            if old && conn.state != State::Dead {
                mine.extend(self.flow(slot, conn, &census.vips, &mut asks));
            }
        }
        let mut found = census.found();
        let room = census.most.saturating_sub(found.len());
        found.extend(mine.into_iter().take(room));
        drop(found);
        census.missing.fetch_sub(1, Ordering::Release);
    }

    fn flow(
        &mut self,
        slot: usize,
        conn: &Conn,
        vips: &[IpAddr],
        asks: &mut u32,
    ) -> Option<ClientFlow> {
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        let place = self.0.get_mut(slot)?;
        let known = match place.filter(|known| known.serial == conn.serial) {
            Some(known) => known,
            None => {
                *asks = asks.checked_sub(1)?;
                *place.insert(local_end(conn, vips)?)
            }
        };
        // The connection's real other end, for packets are sent there; a header may name another.
        let client = conn.peer.addr();
        Some(ClientFlow {
            vip: *vips.get(usize::from(known.vip?))?,
            port: known.port,
            client: client.ip(),
            client_port: client.port(),
        })
    }
}

fn local_end(conn: &Conn, vips: &[IpAddr]) -> Option<Known> {
    let local: SocketAddr = tcp::local_addr(conn.client.as_ref()?).ok()?;
    let ip = local.ip().to_canonical();
    let vip = vips.iter().position(|vip| *vip == ip);
    Some(Known {
        serial: conn.serial,
        vip: vip.and_then(|vip| u16::try_from(vip).ok()),
        port: local.port(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_lasting_connections_to_the_addresses_asked_for_are_found() {
        let vip: IpAddr = "127.0.0.1".parse().unwrap();
        let other: IpAddr = "127.0.0.2".parse().unwrap();
        let listeners = [vip, other].map(|ip| TcpListener::bind((ip, 0)).unwrap());
        let mut clients = Vec::new();
        let mut conns = Slab::new();
        for (listener, accepted) in [
            (&listeners[0], 0),
            (&listeners[1], 0),
            (&listeners[0], 900_000),
        ] {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (socket, peer) = listener.accept().unwrap();
            let serial = u32::try_from(conns.len()).unwrap();
            conns.insert(Conn::new(socket.into(), peer, 0, serial, accepted));
        }
        let mut ends = LocalEnds::default();
        let mut ask = |conns: &Slab<Conn>, most, now| {
            let census = Census::new(&[vip], most, 1);
            assert_eq!(census.take(), None);
            ends.answer(conns, now, &census);
            census.take().unwrap()
        };
        let ports = |flows: Vec<ClientFlow>| -> Vec<u16> {
            flows.iter().map(|flow| flow.client_port).collect()
        };
        let port = |at: usize| clients[at].local_addr().unwrap().port();
        let flows = ask(&conns, 10, 1_000_000);
        assert_eq!(flows[0].vip, vip);
        assert_eq!(flows[0].port, listeners[0].local_addr().unwrap().port());
        assert_eq!(ports(flows), [port(0)]);
        assert_eq!(ports(ask(&conns, 10, 1_400_000)), [port(0), port(2)]);
        assert_eq!(ports(ask(&conns, 1, 1_400_000)), [port(0)]);
        // The slot's next user is another connection.
        let (socket, peer) = {
            let address = listeners[1].local_addr().unwrap();
            clients.push(TcpStream::connect(address).unwrap());
            listeners[1].accept().unwrap()
        };
        conns.remove(0);
        assert_eq!(conns.insert(Conn::new(socket.into(), peer, 0, 77, 0)), 0);
        let port = |at: usize| clients[at].local_addr().unwrap().port();
        assert_eq!(ports(ask(&conns, 10, 1_400_000)), [port(2)]);
    }
}
