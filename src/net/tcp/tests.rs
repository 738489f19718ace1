//! Against the kernel, on loopback.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::SockRef;

use super::*;
use crate::config::model::Listen;

#[test]
fn keepalive_is_rounded_up_to_whole_seconds_and_never_off() {
    let fd = stream_socket(SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
    for (ms, seconds) in [(1, 1), (1_000, 1), (1_500, 2), (30_000, 30)] {
        let options = Options {
            keepalive: Some(Duration::from_millis(ms)),
        };
        set_options(&fd, options).unwrap();
        let idle = SockRef::from(&fd).tcp_keepalive_time().unwrap();
        assert_eq!(idle, Duration::from_secs(seconds), "{ms} ms");
    }
}

/// A non-blocking socket on its way to a listener that nobody accepts from.
fn connecting(listener: &OwnedFd, prepare: impl Fn(&OwnedFd)) -> OwnedFd {
    let addr = local_addr(listener).unwrap();
    let fd = stream_socket(addr).unwrap();
    prepare(&fd);
    connect(&fd, addr).unwrap();
    fd
}

fn listener() -> OwnedFd {
    let listen = Listen::Addr("127.0.0.1:0".parse().unwrap());
    listener_group(listen, 1).unwrap().remove(0)
}

fn await_true(mut condition: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("not within 5 s");
}

#[test]
fn a_connection_is_closed_only_when_both_ends_are_acknowledged() {
    let listener = listener();
    let fd = connecting(&listener, |_| {});
    await_true(|| is_readable(&listener).unwrap());
    let (peer, _) = accept(&listener).unwrap();
    assert!(!is_closed(&fd).unwrap());
    finish(&fd).unwrap();
    assert!(!is_closed(&fd).unwrap());
    drop(peer);
    await_true(|| is_closed(&fd).unwrap());
}

/// Whether the listener's side of a handshake waits for its last acknowledgement.
fn waits(listener: &OwnedFd) -> bool {
    !is_readable(listener).unwrap()
}

#[test]
fn the_last_ack_of_each_handshake_waits_for_data_also_after_a_disconnect() {
    // A slow machine may look only after the 200 ms that the kernel lets it wait.
    let seen = (0..10).any(|_| {
        let listener = listener();
        let fd = connecting(&listener, |fd| defer_handshake(fd).unwrap());
        let first = waits(&listener);
        await_true(|| send(&fd, b"x").is_ok());
        await_true(|| !waits(&listener));
        let (peer, _) = accept(&listener).unwrap();
        finish(&fd).unwrap();
        drop(peer);
        await_true(|| recv(&fd, &mut [0]).is_err() || is_closed(&fd).unwrap());
        disconnect(&fd).unwrap();
        connect(&fd, local_addr(&listener).unwrap()).unwrap();
        first && waits(&listener)
    });
    assert!(seen);
}
