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

use clap::Parser;
use lbd::config::model::Listen;
use lbd::net::tcp;

use crate::conn::Farm;
use crate::engine::Engine;
use crate::ring::Ring;

/// A TCP proxy over io_uring, for measurements.
#[derive(Parser)]
struct Options {
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
    let listener = tcp::listener_group(Listen::Addr(options.listen), 1)?
        .pop()
        .ok_or("no listener")?;
    let ring = Ring::new(options.buffers.next_power_of_two(), options.size)?;
    let farm = Farm::new(options.servers, options.limit);
    let mut engine = Engine::new(ring, listener, farm)?;
    run(&mut engine)?;
    Ok(())
}

/// One call of the kernel a round: hand over, wait.
fn run(engine: &mut Engine) -> io::Result<()> {
    let mut done = Vec::new();
    loop {
        let patience = engine.patience();
        engine.ring.enter(patience)?;
        engine.look_at_the_clock();
        engine.ring.completed(&mut done);
        for done in done.drain(..) {
            engine.on_done(done)?;
        }
        engine.on_timers()?;
    }
}
