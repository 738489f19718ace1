//! Each strategy, with two workers and real connections: who gets which server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

use lbd::config::model::{Balance, HeaderVersion, Network, Proxy, ProxyProtocol, Server};
use lbd::net::clock;
use lbd::proxy::pp;
use lbd::units::Weight;
use socket2::{Domain, Socket, Type};

use super::lab::{Backend, Lab, PATIENCE, ask, limited, proxy, server, wait_until, weighted};

/// The servers of 127.0.1.1 to 127.0.1.12 among api-1, api-2 and api-3, all of weight 1. Worked out
/// by another program, with real logarithms.
const FIRST_CLIENTS: [u8; 12] = [1, 2, 1, 1, 3, 2, 3, 3, 2, 3, 2, 2];

/// Servers that answer with 1, 2 and 3.
fn backends() -> [Backend; 3] {
    [1, 2, 3].map(Backend::echo)
}

fn named(number: u8, addr: SocketAddr) -> Server {
    Server {
        name: format!("api-{number}"),
        ..server(addr)
    }
}

/// api-1, api-2 and api-3.
fn in_order(backends: &[Backend; 3]) -> Vec<Server> {
    let numbered = (1..).zip(backends);
    numbered.map(|(n, b)| named(n, b.addr)).collect()
}

fn balanced(balance: Balance, servers: Vec<Server>) -> Proxy {
    Proxy {
        balance,
        ..proxy(servers)
    }
}

/// A connection that stays, and the server that it has.
fn stay(lab: &Lab) -> (TcpStream, u8) {
    let mut stream = lab.connect();
    stream.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    (stream, answer[0])
}

/// Connections that stay, from six clients at once.
fn many(lab: &Lab, count: usize) -> Vec<(TcpStream, u8)> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| (0..count / 6).map(|_| stay(lab)).collect::<Vec<_>>()))
            .collect();
        clients
            .into_iter()
            .flat_map(|c| c.join().unwrap())
            .collect()
    })
}

fn counts(held: &[(TcpStream, u8)]) -> [usize; 3] {
    [1, 2, 3].map(|id| held.iter().filter(|(_, server)| *server == id).count())
}

/// The server of a client 127.0.1.N.
fn server_of(lab: &Lab, client: u8) -> u8 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, client), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&lab.addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(stream, b"x")[0]
}

fn servers_of(lab: &Lab, clients: std::ops::RangeInclusive<u8>) -> Vec<u8> {
    clients.map(|client| server_of(lab, client)).collect()
}

#[test]
fn connections_that_stay_are_spread_exactly_by_weight_under_least_connections() {
    let backends = backends();
    let weights = [1, 2, 3];
    let servers = backends.iter().zip(weights);
    let servers = servers
        .map(|(b, weight)| weighted(b.addr, weight))
        .collect();
    let lab = Lab::start(balanced(Balance::LeastConnections, servers), 2);
    let mut held = many(&lab, 120);
    assert_eq!(counts(&held), [20, 40, 60]);
    // Half of those of one leave: it gets all that come next.
    let mut kept = 0;
    held.retain(|(_, id)| {
        kept += usize::from(*id == 3);
        *id != 3 || kept > 30
    });
    wait_until("they have left", || {
        lab.stats().servers[2].connections == 30
    });
    held.extend(many(&lab, 30));
    assert_eq!(counts(&held), [20, 40, 60]);
    drop(held);
    lab.settle();
}

#[test]
fn two_draws_spread_connections_that_stay_within_a_tenth() {
    let backends = backends();
    let servers = backends.iter().map(|b| server(b.addr)).collect();
    let lab = Lab::start(balanced(Balance::Random, servers), 2);
    let held = many(&lab, 300);
    let counts = counts(&held);
    assert!(counts.iter().all(|n| (90..=110).contains(n)), "{counts:?}");
    drop(held);
    lab.settle();
}

#[test]
fn two_nodes_and_a_restarted_one_give_a_client_the_same_server() {
    let backends = backends();
    let [one, two, three] = [1, 2, 3].map(|n| named(n, backends[usize::from(n) - 1].addr));
    let in_order = vec![one.clone(), two.clone(), three.clone()];
    let turned = vec![three, one, two];
    let node =
        |servers: &Vec<Server>| Lab::start(balanced(Balance::SourceHash, servers.clone()), 2);
    let (first, second) = (node(&in_order), node(&turned));
    let placed = servers_of(&first, 1..=60);
    assert_eq!(placed[..12], FIRST_CLIENTS);
    assert_eq!(servers_of(&second, 1..=60), placed);
    assert_eq!(servers_of(&first, 1..=60), placed);
    drop(first);
    assert_eq!(servers_of(&node(&in_order), 1..=60), placed);
}

#[test]
fn when_a_server_leaves_its_clients_alone_move_and_come_back_with_it() {
    let backends = backends();
    let lab = Lab::start(balanced(Balance::SourceHash, in_order(&backends)), 2);
    let before = servers_of(&lab, 1..=90);
    lab.farm.set_up(2, false, clock::now());
    let without = servers_of(&lab, 1..=90);
    let moved = before.iter().zip(&without).filter(|(b, w)| b != w);
    assert!(moved.clone().all(|(before, _)| *before == 3));
    // All that it had, by that program; 120,000 clients are in balance/rendezvous/tests.rs.
    assert_eq!(moved.count(), 36);
    lab.farm.set_up(2, true, clock::now());
    assert_eq!(servers_of(&lab, 1..=90), before);
    lab.settle();
}

#[test]
fn one_client_with_many_connections_spills_over_and_no_server_is_overloaded() {
    let backends = backends();
    let lab = Lab::start(balanced(Balance::SourceHash, in_order(&backends)), 2);
    let held = many(&lab, 300);
    let mut counts = counts(&held);
    counts.sort_unstable();
    // At most 125, a quarter more than a third; its last choice has the rest.
    assert!((124..=125).contains(&counts[2]), "{counts:?}");
    assert!(counts[1] <= 125 && counts[0] >= 50, "{counts:?}");
    drop(held);
    lab.settle();
}

#[test]
fn behind_a_proxy_the_client_that_its_header_names_decides() {
    let backends = backends();
    let lab = Lab::start(
        Proxy {
            proxy_protocol: Some(ProxyProtocol {
                accept: vec![Network::new(Ipv4Addr::LOCALHOST.into(), 32).unwrap()],
                timeout: PATIENCE,
                send: None,
            }),
            ..balanced(Balance::SourceHash, in_order(&backends))
        },
        2,
    );
    let told = |client: u8| {
        let client = SocketAddr::from((Ipv4Addr::new(127, 0, 1, client), 1));
        let mut request = pp::encode(HeaderVersion::V2, client, lab.addr).to_vec();
        request.push(b'x');
        ask(lab.connect(), &request)[0]
    };
    let placed: Vec<u8> = (1..=12).map(told).collect();
    assert_eq!(placed, FIRST_CLIENTS);
}

#[test]
fn the_first_server_is_filled_before_the_next_and_again_when_it_has_room() {
    let backends = backends();
    let [one, two, three] = &backends;
    let servers = vec![
        limited(one.addr, 6),
        limited(two.addr, 6),
        server(three.addr),
    ];
    let lab = Lab::start(balanced(Balance::First, servers), 2);
    let mut held = many(&lab, 18);
    assert_eq!(counts(&held), [6, 6, 6]);
    held.retain(|(_, id)| *id != 1);
    wait_until("they have left", || lab.stats().servers[0].connections == 0);
    held.extend(many(&lab, 6));
    assert_eq!(counts(&held), [6, 6, 6]);
    drop(held);
    lab.settle();
}

#[test]
fn a_backup_serves_while_no_other_server_is_usable() {
    let backends = backends();
    let [one, two, three] = &backends;
    let backup = |backend: &Backend| Server {
        backup: true,
        ..server(backend.addr)
    };
    let servers = vec![backup(one), server(two.addr), backup(three)];
    let lab = Lab::start(proxy(servers), 2);
    let now = clock::now();
    assert_eq!(counts(&many(&lab, 12)), [0, 12, 0]);
    lab.farm.set_up(1, false, now);
    assert_eq!(counts(&many(&lab, 12)), [6, 0, 6]);
    lab.farm.set_up(1, true, now);
    assert_eq!(counts(&many(&lab, 12)), [0, 12, 0]);
    lab.settle();
}

#[test]
fn a_client_reaches_a_backup_when_all_servers_refuse_before_checks_know() {
    let backend = Backend::echo(7);
    let backup = Server {
        backup: true,
        ..server(backend.addr)
    };
    let refusing = [(); 2].map(|()| server(super::lab::refusing()));
    let [one, two] = refusing;
    let lab = Lab::start(proxy(vec![one, two, backup]), 2);
    for _ in 0..20 {
        assert_eq!(ask(lab.connect(), b"x"), [7, b'x']);
    }
    assert_eq!(lab.stats().totals.unreachable, 0);
    lab.settle();
}

#[test]
fn weights_change_while_connections_come_and_each_new_share_is_exact() {
    let backends = backends();
    let servers = backends.iter().map(|b| server(b.addr)).collect();
    let lab = Lab::start(proxy(servers), 2);
    let mut taken = [0; 3];
    for weights in [[1, 1, 1], [256, 1, 128], [0, 1, 3], [2, 2, 0]] {
        for (place, weight) in weights.into_iter().enumerate() {
            lab.farm
                .set_weight(place, Some(Weight::try_from(weight).unwrap()));
        }
        let held = many(&lab, 36);
        for (taken, count) in taken.iter_mut().zip(counts(&held)) {
            *taken += count;
        }
    }
    // 12 + 23.94 + 0 + 18; 12 + 0.09 + 9 + 18; 12 + 11.97 + 27 + 0.
    for (taken, expected) in taken.into_iter().zip([54_usize, 39, 51]) {
        assert!(taken.abs_diff(expected) <= 1, "{taken:?}");
    }
    lab.settle();
}
