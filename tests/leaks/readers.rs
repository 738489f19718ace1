//! Peers that never read: what they cost the proxy process.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use lbd::net::tcp;

use super::daemon::{self, Daemon, is_instrumented, wait_until};

const PEERS: usize = 100;
/// What each would have to take.
const BYTES: usize = 16 << 20;
static BLOCK: [u8; 1 << 16] = [7; 1 << 16];

/// Writes all of it, in small buffers: what the kernel gives to all TCP sockets together is the
/// machine's, and not what is measured.
fn pour(mut stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_send_buffer_size(64 << 10).unwrap();
    for _ in 0..BYTES / BLOCK.len() {
        if stream.write_all(&BLOCK).is_err() {
            return;
        }
    }
}

fn config(listen: SocketAddr, server: SocketAddr, check: SocketAddr) -> String {
    format!(
        "[log]\ntarget = \"stderr\"\n[metrics]\nlisten = \"off\"\n[limits]\nworkers = 2\n\
         [proxy.p]\nlisten = \"{listen}\"\n\
         check = {{ type = \"tcp\", interval = \"1s\", timeout = \"10s\" }}\n\
         [proxy.p.backends]\na = {{ address = \"{server}\", check-address = \"{check}\" }}\n"
    )
}

/// Waits until no byte moves any more; answers how many have moved.
fn stuck(daemon: &Daemon) -> u64 {
    let moved = || {
        let totals = &daemon.status().proxies[0].totals;
        totals.bytes_in + totals.bytes_out
    };
    let mut last = (0, 0);
    wait_until("everything is stuck", || {
        thread::sleep(Duration::from_millis(30));
        let now = moved();
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
        now > 0 && last.1 >= 15
    });
    last.0
}

/// Opens connections on which nothing is read, one and then all of them, and compares.
fn nobody_reads(name: &str, clients_write: bool) {
    let _alone = daemon::alone();
    let [server, checked] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&server, &checked].map(|listener| listener.local_addr().unwrap());
    thread::spawn(move || checked.incoming().for_each(drop));
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in server.incoming() {
            let stream = stream.unwrap();
            let other = stream.try_clone().unwrap();
            if !clients_write {
                thread::spawn(move || pour(&other));
            }
            kept.push(stream);
        }
    });
    let listen = crate::port::held();
    let mut daemon = Daemon::start(name, &config(listen, addresses[0], addresses[1]));
    daemon.wait_served(1);
    let before = daemon.pss();
    let mut clients = Vec::new();
    let mut grown = Vec::new();
    for count in [1, PEERS] {
        while clients.len() < count {
            let stream = TcpStream::connect(listen).unwrap();
            let other = stream.try_clone().unwrap();
            if clients_write {
                thread::spawn(move || pour(&other));
            }
            clients.push(stream);
        }
        wait_until("all are there", || {
            daemon.status().process.connections == count as u64
        });
        let moved = stuck(&daemon);
        assert!(moved < (count * BYTES) as u64, "{moved} bytes were taken");
        grown.push(daemon.pss().saturating_sub(before));
    }
    if !is_instrumented() {
        // One may take a pipe's worth and what a first connection sets up; each of the hundred no
        // more than the rest of one read.
        assert!(grown[0] <= 1 << 20, "{grown:?}");
        assert!(grown[1] <= PEERS as u64 * (96 << 10), "{grown:?}");
    }
    for client in &clients {
        tcp::reset_on_close(client).unwrap();
        client.shutdown(std::net::Shutdown::Both).unwrap_or(());
    }
    drop(clients);
    assert_eq!(daemon.stop(), 0, "{}", daemon.log());
}

#[test]
fn clients_that_never_read_cost_the_process_little() {
    nobody_reads("deaf-clients", false);
}

#[test]
fn servers_that_never_read_cost_the_process_little() {
    nobody_reads("deaf-servers", true);
}
