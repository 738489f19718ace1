//! Clients that say nothing for long, and speak when there is no room left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Keeper, PATIENCE, config, dial, echo, front, wait_for};

/// Neither hears nor does anything until told to go on.
fn halt(keeper: &Keeper) -> Pid {
    let pid = Pid::from_raw(i32::try_from(keeper.proxy.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_for("stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        rest.starts_with(" T").then_some(())
    });
    pid
}

/// Twelve clients that say nothing, where there is room for twelve; they came all at once.
fn crowd(keeper: &mut Keeper) -> (SocketAddr, Vec<TcpStream>) {
    let (listener, address) = front();
    let limits = (
        "max-connections = 50\nworkers = 2",
        "max-connections = 12\nworkers = 1",
    );
    let text = config(address, &[echo()]).replace(limits.0, limits.1) + "client-first = true\n";
    keeper.bring_up(&text, listener);
    let pid = halt(keeper);
    let clients = (0..12).map(|_| dial(address)).collect();
    kill(pid, Signal::SIGCONT).unwrap();
    wait_for("all to be in", || {
        (keeper.status().proxies[0].connections == 12).then_some(())
    });
    // From then on the oldest one gives way.
    std::thread::sleep(Duration::from_millis(1_300));
    (address, clients)
}

fn all_are_served(clients: &mut [TcpStream]) {
    for client in clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn nobody_gives_way_where_it_is_full_and_no_newcomer_waits() {
    let mut keeper = Keeper::start("silence-full");
    let (_, mut clients) = crowd(&mut keeper);
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    all_are_served(&mut clients);
}

#[test]
fn a_client_that_has_spoken_does_not_give_way_though_a_newcomer_is_heard_first() {
    let mut keeper = Keeper::start("silence-spoke");
    let (address, mut clients) = crowd(&mut keeper);
    let pid = halt(&keeper);
    let _newcomer = dial(address);
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    kill(pid, Signal::SIGCONT).unwrap();
    all_are_served(&mut clients);
}
