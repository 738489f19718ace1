//! A TCP proxy as near to lbd's data path as its verdict on io_uring needs, and no nearer: no
//! health, no reload, no retries, no splice. Not a part of the daemon. How it is measured:
//! docs/decisions/0001-io-uring.md.
#![expect(clippy::print_stderr, reason = "talk goes to standard error")]

mod conn;
mod engine;
mod ring;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lbd::config::model::Listen;
use lbd::net::epoll::{Events, Interest};
use lbd::net::tcp;

use crate::conn::{End, Farm};
use crate::engine::{Engine, Mode};
use crate::ring::{Done, Ring};

/// The ring's own token in epoll.
const RING: u64 = 2 << 32;

/// A TCP proxy over io_uring, for measurements.
#[derive(Parser)]
struct Options {
    /// How the ring is used
    #[arg(long, value_enum, default_value = "ring")]
    mode: Mode,
    /// Buffers, a power of two
    #[arg(long, default_value_t = 256)]
    buffers: u16,
    /// Their size
    #[arg(long, default_value_t = 16 * 1024)]
    size: usize,
    /// Connections that each server may have
    #[arg(long, default_value_t = 20_000)]
    limit: u32,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
    listen: SocketAddr,
    #[arg(required = true)]
    servers: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    match serve(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches/uring: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    let mode = options.mode;
    let listener = tcp::listener_group(Listen::Addr(options.listen), 1)?
        .pop()
        .ok_or("no listener")?;
    let ring = Ring::new(
        options.buffers.next_power_of_two(),
        options.size,
        mode != Mode::Mixed,
        mode == Mode::RingDirect,
    )?;
    let farm = Farm::new(options.servers, options.limit);
    let mut engine = Engine::new(mode, ring, listener, farm)?;
    match mode {
        Mode::Ring | Mode::RingDirect => run(&mut engine)?,
        Mode::Mixed => run_mixed(&mut engine)?,
    }
    Ok(())
}

/// One call of the kernel a round: hand over, wait.
fn run(engine: &mut Engine) -> io::Result<()> {
    let mut done = Vec::new();
    loop {
        let patience = engine.patience();
        engine.ring.enter(Some(patience))?;
        engine.look_at_the_clock();
        engine.ring.completed(&mut done);
        for done in done.drain(..) {
            engine.on_done(done)?;
        }
        engine.on_timers()?;
    }
}

/// Two calls a round: wait, hand over. The ring is watched like a socket.
fn run_mixed(engine: &mut Engine) -> io::Result<()> {
    let mut done = Vec::new();
    let mut events = Events::with_capacity(256);
    let edge = Interest::READ | Interest::EDGE;
    engine.epoll.add(&engine.ring, RING, edge)?;
    loop {
        if engine.ring.has_requests() {
            hand_over(engine, &mut done)?;
        }
        // What came of that may be more requests already.
        let patience = match engine.ring.has_requests() {
            true => Duration::ZERO,
            false => engine.patience(),
        };
        engine.epoll.wait(&mut events, Some(patience))?;
        engine.look_at_the_clock();
        for event in events.iter() {
            let place = usize::try_from(event.token & u64::from(u32::MAX)).unwrap_or(0);
            match event.token >> 32 {
                0 => on_event(engine, place, End::Client, event)?,
                1 => {
                    let sock = engine.socks.get(place);
                    let user = sock.filter(|sock| sock.fresh != engine.round);
                    let Some(slot) = user.and_then(|s| usize::try_from(s.user).ok()) else {
                        continue;
                    };
                    on_event(engine, slot, End::Server, event)?;
                }
                _ => hand_over(engine, &mut done)?,
            }
        }
        engine.on_timers()?;
    }
}

fn hand_over(engine: &mut Engine, done: &mut Vec<Done>) -> io::Result<()> {
    engine.ring.enter(None)?;
    engine.ring.completed(done);
    for done in done.drain(..) {
        engine.on_done(done)?;
    }
    Ok(())
}

fn on_event(
    engine: &mut Engine,
    place: usize,
    end: End,
    event: lbd::net::epoll::Event,
) -> io::Result<()> {
    let Ok(slot) = u32::try_from(place) else {
        return Ok(());
    };
    let Some(conn) = engine.conns.get_mut(place) else {
        return Ok(());
    };
    let flow = conn.flow(end);
    flow.readable |= event.readable();
    flow.read_closed |= event.read_closed();
    if event.error() {
        return engine.abort(slot);
    }
    if end == End::Server && event.writable() {
        engine.connected(slot, true)?;
    }
    engine.receive(slot, end)
}
