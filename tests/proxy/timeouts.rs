//! What happens to those who keep others waiting.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use lbd::net::clock;

use super::lab::{Backend, Lab, ask, proxy, server};

const SHORT: Duration = Duration::from_millis(200);

/// A server that reads and never answers nor closes.
fn mute() -> Backend {
    Backend::start(|mut stream| {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        // The client has finished; hold on until the proxy loses patience.
        while stream.write_all(b"").is_ok() && !closed(&stream) {
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}

fn closed(stream: &std::net::TcpStream) -> bool {
    lbd::net::tcp::is_closed(stream).unwrap_or(true)
}

#[test]
fn a_connection_without_a_byte_is_closed_after_the_idle_timeout() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.idle_timeout = SHORT;
        let lab = Lab::start(proxy, workers);
        let mut client = lab.connect();
        let began = clock::now();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let took = clock::now() - began;
        assert!(
            took >= Duration::from_millis(190) && took < Duration::from_secs(2),
            "{took:?}"
        );
        assert_eq!(lab.record().end.to_string(), "cD");
        assert_eq!(lab.stats().totals.idle_timeouts, 1);
    }
}

#[test]
fn bytes_in_either_direction_keep_a_connection_alive() {
    let backend = Backend::start(|mut stream| {
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(b"x").unwrap();
        }
    });
    let mut proxy = proxy(vec![server(backend.addr)]);
    proxy.idle_timeout = SHORT;
    let lab = Lab::start(proxy, 1);
    let mut client = lab.connect();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"xxxxxxxxxxxx");
}

#[test]
fn a_server_that_does_not_finish_after_the_client_is_given_up() {
    for workers in [1, 2] {
        let backend = mute();
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.half_close_timeout = SHORT;
        let lab = Lab::start(proxy, workers);
        let mut client = lab.connect();
        let began = clock::now();
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let took = clock::now() - began;
        assert!(
            took >= Duration::from_millis(190) && took < Duration::from_secs(2),
            "{took:?}"
        );
        assert_eq!(lab.record().end.to_string(), "sD");
        assert_eq!(lab.stats().totals.half_close_timeouts, 1);
    }
}

#[test]
fn a_client_that_never_speaks_is_closed_where_it_should_speak_first() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.client_first = true;
        proxy.first_byte_timeout = Some(SHORT);
        let lab = Lab::start(proxy, workers);
        let mut speaks = lab.connect();
        speaks.write_all(b"x").unwrap();
        speaks.read_exact(&mut [0; 2]).unwrap();
        let began = clock::now();
        assert_eq!(lab.connect().read(&mut [0]).unwrap(), 0);
        let took = clock::now() - began;
        assert!(
            took >= Duration::from_millis(190) && took < Duration::from_secs(2),
            "{took:?}"
        );
        assert_eq!(lab.record().end.to_string(), "cD");
        assert_eq!(lab.stats().totals.first_byte_timeouts, 1);
        // One that has spoken is not concerned.
        assert_eq!(ask(speaks, b"y"), b"y");
    }
}
