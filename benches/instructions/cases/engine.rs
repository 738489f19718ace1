//! What a worker does in user space for a whole connection and for a request: slab, sockets,
//! timers, counters and all. One client and one server on 127.0.0.1, one thing at a time: for a
//! connection each next one when the worker waits, so that every run has the same rounds, on a busy
//! machine too. What is left is the worker's tick, 20 a second. The system calls are counted by
//! tests/syscalls.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lbd::config::model::Listen;
use lbd::net::{clock, tcp};
use lbd::proxy::engine::{Engine, EngineOptions};
use lbd::proxy::farm::Farm;

use super::{Case, Outcome, config};

/// A worker's loop, wherever the optimiser has put the function itself.
const WORKER: &str = "lbd::proxy::worker::Worker::run";

/// How long to look away from a worker that is at work.
const REST: Duration = Duration::from_micros(200);
/// How often the worker's thread is looked for.
const LOOKS_MAX: u32 = 5_000;
/// The name of the one worker's thread.
const THREAD: &str = "lbd-w0";
/// The system calls in which it waits.
const WAITS: &[libc::c_long] = &[
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

pub(super) const CASES: [Case; 2] = [
    Case {
        name: "engine: a short connection",
        counted: WORKER,
        times: 600,
        empty: 100,
        run: connections,
    },
    Case {
        name: "engine: a request",
        counted: WORKER,
        times: 1_200,
        empty: 200,
        run: requests,
    },
];

struct Lab {
    engine: Engine,
    listener: TcpListener,
    addr: SocketAddr,
    /// In which system call the worker is.
    place: PathBuf,
}

impl Lab {
    fn start() -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let config = config(&format!(
            "[proxy.test]\nlisten = \":6443\"\nbackends = [\"{}\"]\nclient-first = true\n",
            listener.local_addr()?
        ))?;
        let proxy = config.proxies.first().ok_or("no proxy")?;
        let farm = Arc::new(Farm::new(proxy));
        farm.set_up(0, true, clock::now());
        // Not where the configuration says: on any free port.
        let group = tcp::listener_group(Listen::Addr("127.0.0.1:0".parse()?), 1)?;
        let addr = tcp::local_addr(group.first().ok_or("no socket")?)?;
        let options = EngineOptions {
            workers: 1,
            max_connections: 100,
            access: None,
        };
        let engine = Engine::start(&config, &[farm], vec![vec![group]], options)?;
        Ok(Self {
            engine,
            listener,
            addr,
            place: worker()?.join("syscall"),
        })
    }

    /// Client and server of one connection.
    fn connect(&self) -> Result<(TcpStream, TcpStream), Box<dyn Error>> {
        let mut client = TcpStream::connect(self.addr)?;
        client.set_nodelay(true)?;
        // At once: the handshake's last ACK waits for it.
        client.write_all(&[1; 256])?;
        let (server, _) = self.listener.accept()?;
        server.set_nodelay(true)?;
        Ok((client, server))
    }

    /// Lets the worker come to rest, so that each connection has the same rounds: what arrives in
    /// one wait or in two makes a tenth of the instructions.
    fn settle(&self) -> Result<(), Box<dyn Error>> {
        loop {
            std::thread::sleep(REST);
            let place = fs::read_to_string(&self.place)?;
            let call = place.split(' ').next().and_then(|call| call.parse().ok());
            if call.is_some_and(|call| WAITS.contains(&call)) {
                return Ok(());
            }
        }
    }

    fn stop(self) {
        self.engine.stop(Duration::from_secs(10));
    }
}

/// What the kernel tells about the worker's thread, which names itself when it begins.
fn worker() -> Result<PathBuf, Box<dyn Error>> {
    for _ in 0..LOOKS_MAX {
        for thread in fs::read_dir("/proc/self/task")? {
            let thread = thread?.path();
            if fs::read_to_string(thread.join("comm"))?.trim_end() == THREAD {
                return Ok(thread);
            }
        }
        std::thread::sleep(REST);
    }
    Err("no worker".into())
}

fn connections(times: u32) -> Outcome {
    let lab = Lab::start()?;
    for _ in 0..times {
        let (mut client, mut server) = lab.connect()?;
        server.read_exact(&mut [0; 256])?;
        lab.settle()?;
        server.write_all(&[2; 512])?;
        client.read_exact(&mut [0; 512])?;
        lab.settle()?;
        drop(client);
        if server.read(&mut [0])? != 0 {
            return Err("more than the request".into());
        }
        lab.settle()?;
        drop(server);
        while lab.engine.connections() > 0 {
            lab.settle()?;
        }
    }
    lab.stop();
    Ok(())
}

fn requests(times: u32) -> Outcome {
    let lab = Lab::start()?;
    let (mut client, mut server) = lab.connect()?;
    server.read_exact(&mut [0; 256])?;
    for _ in 0..times {
        server.write_all(&[2; 512])?;
        client.read_exact(&mut [0; 512])?;
        client.write_all(&[1; 256])?;
        server.read_exact(&mut [0; 256])?;
    }
    drop((client, server));
    lab.stop();
    Ok(())
}
