//! What a worker does in user space for a whole connection and for a request: slab, sockets,
//! timers, counters and all. One client and one server on 127.0.0.1, one thing at a time, so that
//! nearly every run has the same rounds. The system calls themselves are counted by tests/syscalls.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use lbd::config::model::Listen;
use lbd::net::{clock, tcp};
use lbd::proxy::engine::{Engine, EngineOptions};
use lbd::proxy::farm::Farm;

use super::{Case, Outcome, config};

/// A worker's loop, wherever the optimiser has put the function itself.
const WORKER: &str = "lbd::proxy::worker::Worker::run";

/// A worker that has something to do is at it long before this is over.
const REST: Duration = Duration::from_millis(1);

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
    fn settle(&self, connections: usize) {
        while self.engine.connections() > connections {
            std::thread::sleep(REST);
        }
        std::thread::sleep(REST);
    }

    fn stop(self) {
        self.engine.stop(Duration::from_secs(10));
    }
}

fn connections(times: u32) -> Outcome {
    let lab = Lab::start()?;
    for _ in 0..times {
        let (mut client, mut server) = lab.connect()?;
        server.read_exact(&mut [0; 256])?;
        lab.settle(1);
        server.write_all(&[2; 512])?;
        client.read_exact(&mut [0; 512])?;
        drop(client);
        if server.read(&mut [0])? != 0 {
            return Err("more than the request".into());
        }
        drop(server);
        lab.settle(0);
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
