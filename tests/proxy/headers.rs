//! PROXY headers, from senders before the proxy and to servers behind it, and source addresses.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use lbd::config::model::{HeaderVersion, Network, Proxy, ProxyProtocol, Server, Source};
use lbd::proxy::pp::{self, Header};

use super::lab::{
    Backend, Lab, PATIENCE, Pattern, ask, is_reset, limited, proxy, refusing, server, wait_until,
};

const CLIENT: &str = "192.0.2.7:50000";
const LOCAL: &str = "198.51.100.1:6443";

fn told(version: HeaderVersion) -> Box<[u8]> {
    pp::encode(version, CLIENT.parse().unwrap(), LOCAL.parse().unwrap())
}

fn network(text: &str) -> Network {
    let (ip, prefix) = text.split_once('/').unwrap();
    Network::new(ip.parse().unwrap(), prefix.parse().unwrap()).unwrap()
}

/// A proxy that believes senders of this network.
fn accepting(servers: Vec<Server>, from: &str) -> Proxy {
    Proxy {
        proxy_protocol: Some(ProxyProtocol {
            accept: vec![network(from)],
            timeout: PATIENCE,
            send: None,
        }),
        ..proxy(servers)
    }
}

fn sending(servers: Vec<Server>, version: HeaderVersion) -> Proxy {
    Proxy {
        proxy_protocol: Some(ProxyProtocol {
            accept: Vec::new(),
            timeout: PATIENCE,
            send: Some(version),
        }),
        ..proxy(servers)
    }
}

/// A server that hands over each connection's whole request, and answers `ok`.
fn recorder() -> (Backend, Receiver<Vec<u8>>) {
    let (tx, rx) = sync_channel(1000);
    let backend = Backend::start(move |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(b"ok").unwrap();
        tx.send(request).unwrap();
    });
    (backend, rx)
}

/// What a server was told, and what came behind it.
fn split(request: &[u8]) -> (Header, &[u8]) {
    let decoded = pp::decode(request).unwrap().unwrap();
    (decoded.header, &request[decoded.len..])
}

#[test]
fn a_header_split_at_every_byte_is_taken_off_and_believed() {
    for version in [HeaderVersion::V1, HeaderVersion::V2] {
        let (backend, requests) = recorder();
        let lab = Lab::start(accepting(vec![server(backend.addr)], "127.0.0.0/8"), 1);
        let bytes = [&told(version), &b"hello"[..]].concat();
        for cut in 0..bytes.len() {
            let mut client = lab.connect();
            client.set_nodelay(true).unwrap();
            client.write_all(&bytes[..cut]).unwrap();
            thread::yield_now();
            assert_eq!(ask(client, &bytes[cut..]), b"ok", "{cut}");
            assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), b"hello", "{cut}");
            let record = lab.record();
            assert_eq!(record.client, CLIENT.parse().unwrap());
            assert_eq!(record.local, LOCAL.parse().unwrap());
            assert_eq!(record.bytes_in, 5);
        }
        let mut client = lab.connect();
        client.set_nodelay(true).unwrap();
        for byte in &bytes {
            client.write_all(&[*byte]).unwrap();
            thread::yield_now();
        }
        assert_eq!(ask(client, b""), b"ok");
        assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), b"hello");
        assert_eq!(lab.stats().totals.headers, bytes.len() as u64 + 1);
        lab.settle();
    }
}

#[test]
fn from_others_a_header_is_never_interpreted() {
    let (backend, requests) = recorder();
    let lab = Lab::start(accepting(vec![server(backend.addr)], "10.0.0.0/8"), 1);
    let bytes = [&told(HeaderVersion::V1), &b"hello"[..]].concat();
    let client = lab.connect();
    let own = client.local_addr().unwrap();
    assert_eq!(ask(client, &bytes), b"ok");
    assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), bytes);
    assert_eq!(lab.record().client, own);
    assert_eq!(lab.stats().totals.headers, 0);
}

#[test]
fn a_header_without_a_client_leaves_the_sockets_address() {
    for version in [HeaderVersion::V1, HeaderVersion::V2] {
        let (backend, requests) = recorder();
        let lab = Lab::start(accepting(vec![server(backend.addr)], "127.0.0.1/32"), 1);
        let client = lab.connect();
        let own = client.local_addr().unwrap();
        assert_eq!(ask(client, &[pp::own(version), b"x"].concat()), b"ok");
        assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), b"x");
        let record = lab.record();
        assert_eq!((record.client, record.local), (own, lab.addr));
    }
}

#[test]
fn what_is_no_header_is_ended_before_a_server_hears_of_it() {
    let (backend, _requests) = recorder();
    let lab = Lab::start(accepting(vec![server(backend.addr)], "127.0.0.0/8"), 1);
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat();
    for bytes in [&b"GET / HTTP/1.0\r\n"[..], b"PROXY TCP4 1.2.3.4\r\n", &long] {
        let mut client = lab.connect();
        client.write_all(bytes).unwrap();
        assert!(is_reset(&mut client));
        assert_eq!(lab.record().end.to_string(), "PR");
    }
    // Closed in the middle of it, and without a byte.
    for bytes in [&b"PROXY TC"[..], b""] {
        let mut client = lab.connect();
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_reset(&mut client));
        assert_eq!(lab.record().end.to_string(), "CR");
    }
    let totals = lab.stats().totals;
    assert_eq!(
        (
            totals.header_missing,
            totals.header_malformed,
            totals.header_too_long
        ),
        (1, 1, 1)
    );
    assert_eq!((totals.header_closed, totals.headers), (2, 0));
    assert_eq!(backend.total.load(std::sync::atomic::Ordering::SeqCst), 0);
    lab.settle();
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let (backend, _requests) = recorder();
    let mut config = accepting(vec![server(backend.addr)], "127.0.0.0/8");
    config.proxy_protocol.as_mut().unwrap().timeout = Duration::from_millis(300);
    let lab = Lab::start(config, 1);
    let mut client = lab.connect();
    client.write_all(b"PROXY TCP4 ").unwrap();
    assert!(is_reset(&mut client));
    let record = lab.record();
    assert_eq!(record.end.to_string(), "cR");
    assert!(record.total >= Duration::from_millis(300), "{record:?}");
    assert_eq!(lab.stats().totals.header_timeouts, 1);
}

#[test]
fn who_waits_for_its_header_holds_no_servers_slot() {
    let (backend, requests) = recorder();
    let config = accepting(vec![limited(backend.addr, 1)], "127.0.0.0/8");
    let lab = Lab::start(config, 1);
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| lab.connect()).collect();
    wait_until("all are accepted", || lab.engine.connections() == 20);
    assert_eq!(lab.stats().servers[0].connections, 0);
    let bytes = [&told(HeaderVersion::V2), &b"hello"[..]].concat();
    assert_eq!(ask(lab.connect(), &bytes), b"ok");
    let client = waiting.pop().unwrap();
    assert_eq!(ask(client, &bytes), b"ok");
    assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), b"hello");
    drop(waiting);
    lab.settle();
}

#[test]
fn a_server_that_speaks_first_does_so_behind_the_header() {
    let backend = Backend::start(|mut stream| stream.write_all(b"220 hello").unwrap());
    let lab = Lab::start(accepting(vec![server(backend.addr)], "127.0.0.0/8"), 1);
    let mut client = lab.connect();
    client.write_all(&told(HeaderVersion::V1)).unwrap();
    let mut greeting = Vec::new();
    client.read_to_end(&mut greeting).unwrap();
    assert_eq!(greeting, b"220 hello");
}

#[test]
fn the_first_byte_is_awaited_from_behind_the_header_on() {
    let (backend, _requests) = recorder();
    let lab = Lab::start(
        Proxy {
            client_first: true,
            first_byte_timeout: Some(Duration::from_millis(400)),
            ..accepting(vec![server(backend.addr)], "127.0.0.0/8")
        },
        1,
    );
    let mut client = lab.connect();
    // From then on its time counts.
    wait_until("it was accepted", || lab.engine.connections() == 1);
    // Longer than the first byte may take.
    client
        .set_read_timeout(Some(Duration::from_millis(600)))
        .unwrap();
    assert!(client.read(&mut [0]).is_err());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&told(HeaderVersion::V2)).unwrap();
    let record = lab.record();
    assert_eq!(record.end.to_string(), "cD");
    assert!(record.total >= Duration::from_millis(1000), "{record:?}");
    assert_eq!(lab.stats().totals.first_byte_timeouts, 1);
}

#[test]
fn a_server_is_told_the_client_before_the_clients_bytes() {
    for (version, workers) in [(HeaderVersion::V1, 1), (HeaderVersion::V2, 2)] {
        let (backend, requests) = recorder();
        let lab = Lab::start(sending(vec![server(backend.addr)], version), workers);
        for _ in 0..50 {
            let client = lab.connect();
            let own = client.local_addr().unwrap();
            assert_eq!(ask(client, b"hello"), b"ok");
            let request = requests.recv_timeout(PATIENCE).unwrap();
            let header = Header::Proxied {
                client: own,
                local: lab.addr,
            };
            assert_eq!(split(&request), (header, &b"hello"[..]));
            assert_eq!(lab.record().bytes_in, 5);
        }
        lab.settle();
        // Each on its own, whether or not the socket is new.
        assert!(lab.stats().servers[0].totals.recycled > 0);
    }
}

#[test]
fn the_line_to_a_server_is_what_the_protocol_says() {
    let (backend, requests) = recorder();
    let lab = Lab::start(sending(vec![server(backend.addr)], HeaderVersion::V1), 1);
    let client = lab.connect();
    let line = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello",
        client.local_addr().unwrap().port(),
        lab.addr.port()
    );
    assert_eq!(ask(client, b"hello"), b"ok");
    assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), line.as_bytes());
}

#[test]
fn a_server_that_speaks_first_is_told_though_the_client_is_silent() {
    let backend = Backend::start(|mut stream| {
        let mut header = [0; 28];
        stream.read_exact(&mut header).unwrap();
        stream.write_all(b"220 ").unwrap();
        let told = pp::decode(&header).unwrap().unwrap();
        let Header::Proxied { client, .. } = told.header else {
            return;
        };
        stream.write_all(client.to_string().as_bytes()).unwrap();
    });
    let lab = Lab::start(sending(vec![server(backend.addr)], HeaderVersion::V2), 1);
    let mut client = lab.connect();
    let own = client.local_addr().unwrap();
    let mut greeting = String::new();
    client.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, format!("220 {own}"));
}

#[test]
fn only_the_server_that_accepts_gets_a_header_and_one() {
    let (backend, requests) = recorder();
    let servers = vec![server(refusing()), server(refusing()), server(backend.addr)];
    let lab = Lab::start(sending(servers, HeaderVersion::V2), 1);
    for _ in 0..6 {
        let client = lab.connect();
        let own = client.local_addr().unwrap();
        assert_eq!(ask(client, b"hello"), b"ok");
        let request = requests.recv_timeout(PATIENCE).unwrap();
        let header = Header::Proxied {
            client: own,
            local: lab.addr,
        };
        assert_eq!(split(&request), (header, &b"hello"[..]));
    }
    let stats = lab.stats();
    assert!(
        stats.servers.iter().any(|s| s.totals.redispatches > 0),
        "{stats:?}"
    );
}

#[test]
fn what_a_trusted_sender_told_is_told_on() {
    let (backend, requests) = recorder();
    let mut config = accepting(vec![server(backend.addr)], "127.0.0.0/8");
    config.proxy_protocol.as_mut().unwrap().send = Some(HeaderVersion::V1);
    let lab = Lab::start(config, 1);
    let bytes = [&told(HeaderVersion::V2), &b"hello"[..]].concat();
    assert_eq!(ask(lab.connect(), &bytes), b"ok");
    assert_eq!(
        requests.recv_timeout(PATIENCE).unwrap(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 6443\r\nhello"
    );
}

#[test]
fn a_stream_behind_headers_arrives_whole_and_through_splice() {
    const LEN: usize = 64 << 20;
    let (done, verdict) = sync_channel(1);
    let backend = Backend::start(move |mut stream| {
        let mut header = [0; 28];
        stream.read_exact(&mut header).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(b"ok").unwrap();
        done.send(bytes == Pattern::bytes(3, LEN)).unwrap();
    });
    let mut config = accepting(vec![server(backend.addr)], "127.0.0.0/8");
    config.proxy_protocol.as_mut().unwrap().send = Some(HeaderVersion::V2);
    let lab = Lab::start(config, 1);
    let mut client = lab.connect();
    client.write_all(&told(HeaderVersion::V2)).unwrap();
    assert_eq!(ask(client, &Pattern::bytes(3, LEN)), b"ok");
    assert!(verdict.recv_timeout(PATIENCE).unwrap());
    let totals = lab.stats().totals;
    assert_eq!(totals.bytes_in, LEN as u64);
    assert!(totals.bytes_spliced > LEN as u64 / 2, "{totals:?}");
}

#[test]
fn servers_are_reached_from_the_source_address_on_new_and_recycled_sockets() {
    let (tx, peers) = sync_channel::<SocketAddr>(100);
    let backend = Backend::start(move |mut stream| {
        tx.send(stream.peer_addr().unwrap()).unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(b"ok").unwrap();
    });
    let lab = Lab::start(
        Proxy {
            source: Source::Fixed {
                v4: Some([127, 0, 0, 77].into()),
                v6: None,
            },
            ..proxy(vec![server(backend.addr)])
        },
        1,
    );
    for _ in 0..20 {
        assert_eq!(ask(lab.connect(), b"hello"), b"ok");
        let peer = peers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.77");
    }
    lab.settle();
    assert!(lab.stats().servers[0].totals.recycled > 0);
}
