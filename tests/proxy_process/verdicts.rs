//! Servers that hang, say that they are not ready, or refuse their clients, behind a real proxy
//! process: who is told, who is left alone, and what the status says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use lbd::admin::status::{ServerStatus, Status};
use lbd::ipc::message::ToKeeper;

use super::{Keeper, dial, front, talk, wait_for};

/// Answers everything.
const WELL: u8 = 0;
/// Says that it is not ready, and goes on serving.
const NOT_READY: u8 = 1;
/// Answers nothing any more.
const HANGS: u8 = 2;

/// A server that answers `GET /readyz` as it is told, and else says its number and sends back what
/// it gets.
fn start(number: u8) -> (SocketAddr, Arc<AtomicU8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mode = Arc::new(AtomicU8::new(WELL));
    let told = Arc::clone(&mode);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mode = Arc::clone(&told);
            thread::spawn(move || serve(connection, number, &mode));
        }
    });
    (address, mode)
}

fn serve(mut connection: TcpStream, number: u8, mode: &AtomicU8) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = connection.read(&mut buffer) {
        while mode.load(Ordering::SeqCst) == HANGS {
            thread::sleep(Duration::from_millis(5));
        }
        let asked = &buffer[..count];
        let answer: Vec<u8> = if !asked.starts_with(b"GET /readyz") {
            [&[number], asked].concat()
        } else if mode.load(Ordering::SeqCst) == NOT_READY {
            b"HTTP/1.1 500 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
        } else {
            b"HTTP/1.1 200 ok\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
        };
        if connection.write_all(&answer).is_err() || asked.starts_with(b"GET /readyz") {
            return;
        }
    }
}

/// The server that a client has reached.
fn hello(client: &mut TcpStream) -> u8 {
    client.set_read_timeout(Some(super::PATIENCE)).unwrap();
    client.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    client.read_exact(&mut answer).unwrap();
    answer[0]
}

fn is_reset(client: &mut TcpStream) -> bool {
    let end = client.read(&mut [0]);
    matches!(end, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

fn server(status: &Status, at: usize) -> &ServerStatus {
    &status.proxies[0].servers[at]
}

fn wait_for_verdict(keeper: &Keeper, at: usize, verdict: &str) {
    wait_for(verdict, || {
        let status = keeper.status();
        let standing = &server(&status, at).standing;
        (standing.verdict.as_deref() == Some(verdict)).then_some(())
    });
}

#[test]
fn clients_of_a_server_that_hangs_are_told_and_nobody_else_is() {
    let servers = [start(0), start(1), start(2)];
    let mut keeper = Keeper::start("verdicts");
    let (listener, address) = front();
    let backends: Vec<String> = servers.iter().map(|(at, _)| format!("\"{at}\"")).collect();
    let text = format!(
        "[metrics]\nlisten = \"off\"\n[limits]\nmax-connections = 50\nworkers = 2\n\
         [proxy.p]\nlisten = \"{address}\"\nbackends = [{}]\n\
         [proxy.p.check]\ntype = \"http\"\npath = \"/readyz\"\ninterval = \"200ms\"\n\
         fast-interval = \"100ms\"\ndown-interval = \"200ms\"\ntimeout = \"1s\"\n",
        backends.join(", ")
    );
    keeper.bring_up(&text, listener);
    let mut clients: Vec<TcpStream> = (0..6).map(|_| dial(address)).collect();
    clients.sort_by_cached_key(|client| hello(&mut client.try_clone().unwrap()));
    let numbers: Vec<u8> = clients.iter_mut().map(hello).collect();
    assert_eq!(numbers, [0, 0, 1, 1, 2, 2]);
    let set = |at: usize, mode: u8| servers[at].1.store(mode, Ordering::SeqCst);

    set(0, NOT_READY);
    wait_for_verdict(&keeper, 0, "not-ready");
    set(1, HANGS);
    wait_for_verdict(&keeper, 1, "unresponsive");
    assert!(clients[2..4].iter_mut().all(is_reset));
    let served: Vec<u8> = clients[..2].iter_mut().map(hello).collect();
    assert_eq!(served, [0, 0], "those of a server that drains stay");
    let status = keeper.status();
    let failed = &status.proxies[0].totals.failed;
    assert!(
        failed.contains(&("server-down".to_owned(), 2)),
        "{failed:?}"
    );
    assert_eq!(server(&status, 0).connections, 2);

    // All pause now: nobody is told, however long it takes.
    set(2, HANGS);
    set(0, HANGS);
    wait_for_verdict(&keeper, 0, "unresponsive");
    wait_for_verdict(&keeper, 2, "unresponsive");
    assert_eq!(keeper.status().proxies[0].usable, 0);
    for at in 0..3 {
        set(at, WELL);
        wait_for_verdict(&keeper, at, "ready");
    }
    assert!(clients[..2].iter_mut().all(|client| hello(client) == 0));
    assert!(clients[4..].iter_mut().all(|client| hello(client) == 2));
    let status = keeper.status();
    let failed = &status.proxies[0].totals.failed;
    assert!(
        failed.contains(&("server-down".to_owned(), 2)),
        "{failed:?}"
    );
}

#[test]
fn a_server_that_only_its_clients_cannot_reach_is_ejected_and_the_election_hears_nothing_of_it() {
    let servers = [start(0), start(1), start(2)];
    // Its checks go elsewhere, and succeed.
    let refuses = crate::port::held();
    let mut keeper = Keeper::start("ejected");
    let (listener, address) = front();
    let [a, b, c] = [0, 1, 2].map(|at: usize| servers[at].0);
    let text = format!(
        "[metrics]\nlisten = \"off\"\n[limits]\nmax-connections = 50\nworkers = 2\n\
         [proxy.p]\nlisten = \"{address}\"\n\
         check = {{ type = \"http\", path = \"/readyz\", interval = \"1h\" }}\n\
         [proxy.p.backends]\na = \"{a}\"\nb = \"{b}\"\n\
         c = {{ address = \"{refuses}\", check-address = \"{c}\" }}\n"
    );
    keeper.bring_up(&text, listener);
    let standing = |keeper: &Keeper| server(&keeper.status(), 2).standing.clone();
    let checks = |keeper: &Keeper| server(&keeper.status(), 2).checks;
    assert_eq!(checks(&keeper), 1);
    while standing(&keeper).ejections == 0 {
        let answer = talk(&mut dial(address), b"x").unwrap();
        assert!(answer == [0] || answer == [1], "{answer:?}");
    }
    // The next check would be an hour away.
    wait_for("a check at once", || (checks(&keeper) > 1).then_some(()));
    // That one found it well; its clients say otherwise again, and this time it stays out.
    while standing(&keeper).ejections < 2 {
        talk(&mut dial(address), b"x").unwrap();
    }
    let status = keeper.status();
    assert_eq!(status.proxies[0].usable, 2);
    let words = "c ejected";
    assert!(status.headline.contains(words), "{}", status.headline);
    let (message, _) = keeper.next("serving", |m| matches!(m, ToKeeper::Serving(_)));
    let ToKeeper::Serving(serving) = message else {
        panic!()
    };
    assert_eq!(serving[0].usable, 3);
    assert!(keeper.stderr().contains("server ejected"));
}
