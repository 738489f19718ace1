//! Who may connect, and how much of it: networks, and limits of each source.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::time::Duration;

use lbd::config::model::{Guard, HeaderVersion, Network, PerSource, Proxy, ProxyProtocol, Rate};
use lbd::net::clock;
use lbd::proxy::pp;

use super::lab::{Backend, Lab, PATIENCE, ask, is_reset, proxy, server, wait_until};

fn network(text: &str) -> Network {
    let (ip, prefix) = text.split_once('/').unwrap();
    Network::new(ip.parse().unwrap(), prefix.parse().unwrap()).unwrap()
}

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().copied().map(network).collect()
}

fn per_source(max: u32, rate: Option<(u32, u32)>) -> Guard {
    Guard {
        per_source: Some(PerSource {
            max_connections: NonZeroU32::new(max),
            connections_per_second: rate.map(|(per_second, burst)| Rate {
                per_second: NonZeroU32::new(per_second).unwrap(),
                burst: NonZeroU32::new(burst).unwrap(),
            }),
            exempt: networks(&["10.9.0.0/16"]),
        }),
        ..Guard::default()
    }
}

fn guarded(backend: &Backend, guard: Guard) -> Proxy {
    Proxy {
        guard,
        ..proxy(vec![server(backend.addr)])
    }
}

/// The same, and clients are who their headers say.
fn told(backend: &Backend, guard: Guard) -> Proxy {
    Proxy {
        proxy_protocol: Some(ProxyProtocol {
            accept: networks(&["127.0.0.0/8"]),
            timeout: PATIENCE,
            send: None,
        }),
        ..guarded(backend, guard)
    }
}

/// A client whose header says that it is `ip`.
fn from(lab: &Lab, ip: &str) -> TcpStream {
    let mut stream = lab.connect();
    let client = std::net::SocketAddr::new(ip.parse().unwrap(), 50_000);
    let local = if client.is_ipv4() {
        "198.51.100.1:6443"
    } else {
        "[2001:db8::1]:6443"
    };
    let header = pp::encode(HeaderVersion::V2, client, local.parse().unwrap());
    stream.write_all(&header).unwrap();
    stream
}

/// Whether it gets through to a server.
fn is_served(mut client: &TcpStream) -> bool {
    let mut answer = [0; 2];
    client.write_all(b"x").is_ok() && client.read_exact(&mut answer).is_ok()
}

#[test]
fn denied_clients_and_those_not_allowed_are_reset_and_counted() {
    let backend = Backend::echo(1);
    let only = |allow: &[&str], deny: &[&str]| Guard {
        allow: networks(allow),
        deny: networks(deny),
        per_source: None,
    };
    for (guard, served) in [
        (only(&["127.0.0.0/8"], &[]), true),
        (only(&["10.0.0.0/8", "::/0"], &[]), false),
        (only(&[], &["127.0.0.1/32"]), false),
        (only(&[], &["127.0.0.2/32", "10.0.0.0/8"]), true),
        (only(&["127.0.0.0/8"], &["127.0.0.1/32"]), false),
    ] {
        let lab = Lab::start(guarded(&backend, guard), 2);
        let mut client = lab.connect();
        if served {
            assert_eq!(ask(client, b"x"), [1, b'x']);
            assert_eq!(lab.record().end.to_string(), "--");
        } else {
            assert!(is_reset(&mut client));
            assert_eq!(lab.record().end.to_string(), "PR");
        }
        assert_eq!(lab.stats().totals.denied, u64::from(!served));
        lab.settle();
    }
}

#[test]
fn with_headers_it_is_the_client_they_name_that_is_judged() {
    let backend = Backend::echo(1);
    let guard = Guard {
        allow: networks(&["192.0.2.0/24", "2001:db8::/32"]),
        deny: networks(&["192.0.2.66/32"]),
        per_source: None,
    };
    let lab = Lab::start(told(&backend, guard), 1);
    for (ip, served) in [
        ("192.0.2.7", true),
        ("192.0.2.66", false),
        ("127.0.0.1", false),
        ("2001:db8::9", true),
        ("2001:db9::9", false),
    ] {
        assert_eq!(is_served(&from(&lab, ip)), served, "{ip}");
        let record = lab.record();
        assert_eq!(record.client.ip().to_string(), ip);
        assert_eq!(record.end.to_string() == "PR", !served, "{ip}");
    }
    lab.settle();
}

#[test]
fn a_source_is_held_to_its_connections_and_others_are_not() {
    let backend = Backend::echo(1);
    for workers in [1, 2] {
        let lab = Lab::start(told(&backend, per_source(5, None)), workers);
        let mut inside: Vec<TcpStream> = (0..5).map(|_| from(&lab, "192.0.2.7")).collect();
        assert!(inside.iter().all(is_served));
        for _ in 0..20 {
            assert!(is_reset(&mut from(&lab, "192.0.2.7")));
            assert_eq!(lab.record().end.to_string(), "PR");
        }
        assert!(is_served(&from(&lab, "192.0.2.8")));
        assert_eq!(lab.record().client.ip().to_string(), "192.0.2.8");
        let exempt: Vec<TcpStream> = (0..9).map(|_| from(&lab, "10.9.8.7")).collect();
        assert!(exempt.iter().all(is_served));
        drop(inside.pop());
        assert_eq!(lab.record().client.ip().to_string(), "192.0.2.7");
        assert!(is_served(&from(&lab, "192.0.2.7")));
        assert_eq!(lab.stats().totals.source_connections, 20);
        drop((inside, exempt));
        lab.settle();
        let sources = lab.stats().sources.unwrap();
        assert_eq!((sources.known, sources.connected), (3, 0));
        assert_eq!((sources.top[0].accepted, sources.top[0].refused), (6, 20));
    }
}

#[test]
fn an_ipv6_network_of_64_bits_is_one_source() {
    let backend = Backend::echo(1);
    let lab = Lab::start(told(&backend, per_source(3, None)), 2);
    let inside: Vec<TcpStream> = ["1", "2", "ffff:ffff:ffff:ffff"]
        .map(|host| {
            from(
                &lab,
                &format!(
                    "2001:db8:0:7:{}",
                    if host.contains(':') {
                        host.to_owned()
                    } else {
                        format!(":{host}")
                    }
                ),
            )
        })
        .into();
    assert!(inside.iter().all(is_served));
    assert!(is_reset(&mut from(&lab, "2001:db8:0:7:aaaa::1")));
    assert!(is_served(&from(&lab, "2001:db8:0:8::1")));
    let top = lab.stats().sources.unwrap().top;
    assert_eq!(top[0].source.to_string(), "2001:db8:0:7::/64");
    assert_eq!((top[0].connections, top[0].refused), (3, 1));
}

#[test]
fn a_source_s_connections_come_no_faster_than_its_rate_after_a_burst() {
    let backend = Backend::echo(1);
    let lab = Lab::start(guarded(&backend, per_source(0, Some((20, 10)))), 2);
    let began = clock::now();
    let mut served: u32 = 0;
    while clock::now() - began < Duration::from_secs(2) {
        served += u32::from(is_served(&lab.connect()));
    }
    let refused = lab.stats().totals.source_rate;
    // 10 at once and 20 a second, as the worker's clock has it.
    assert!((48..=52).contains(&served), "{served}");
    assert!(refused > 0, "{refused}");
    lab.settle();
}

#[test]
fn clients_that_are_refused_elsewhere_or_leave_early_are_given_back_too() {
    let backend = Backend::echo(1);
    let mut config = told(&backend, per_source(2, None));
    config.servers[0].max_connections = NonZeroU32::new(1);
    config.queue_timeout = Duration::from_millis(100);
    let lab = Lab::start(config, 2);
    let served = from(&lab, "192.0.2.1");
    assert!(is_served(&served));
    // Waits in the queue until its time is over; counted all the while.
    for round in 0..10 {
        let mut waits = from(&lab, "192.0.2.1");
        wait_until("it waits", || lab.stats().queue == 1);
        assert!(is_reset(&mut from(&lab, "192.0.2.1")), "{round}");
        if round % 2 == 0 {
            assert!(is_reset(&mut waits));
        } else {
            super::lab::reset(waits);
        }
        wait_until("it has left", || {
            lab.stats().sources.unwrap().top[0].connections == 1
        });
    }
    drop(served);
    lab.settle();
    assert_eq!(lab.stats().sources.unwrap().connected, 0);
}
