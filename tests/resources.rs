//! The real daemon and what the machine gives it: CPUs for its workers, descriptors, ports. When
//! something runs out it goes on, says what to change, and answers questions.

#![cfg(test)]

#[path = "lab/port.rs"]
mod port;
#[path = "lab/program.rs"]
mod program;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::Duration;

use lbd::net::cpus;
use lbd::net::netns::Namespace;
use nix::unistd::geteuid;
use program::Folder;
use socket2::{Domain, Socket, Type};

const SOON: Duration = Duration::from_secs(30);

fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    program::wait_for(what, SOON, condition)
}

/// A running lbd with all its processes.
struct Daemon {
    keeper: Child,
    dir: Folder,
    metrics: SocketAddr,
}

impl Daemon {
    /// With at most `files` descriptors in each of its processes.
    fn start(name: &str, files: u32, metrics: SocketAddr, config: &str) -> Self {
        let dir = Folder::new(name);
        let text =
            format!("[log]\ntarget = \"stderr\"\n[metrics]\nlisten = \"{metrics}\"\n{config}");
        fs::write(dir.0.join("lb.toml"), text).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c");
        command.arg(format!("ulimit -n {files}; exec \"$0\" \"$@\""));
        command.arg(env!("CARGO_BIN_EXE_lbd"));
        let keeper = program::start_in(&dir.0, command);
        let daemon = Self {
            keeper,
            dir,
            metrics,
        };
        wait_for("serving", || {
            daemon.log().contains(" serving ").then_some(())
        });
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.0.join("log")).unwrap_or_default()
    }

    /// `lbd status`.
    fn status(&self) -> Output {
        program::order(&self.dir.0.join("run/admin.sock"), &["status"])
    }

    /// The value of a line of /metrics.
    fn metric(&self, line: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(self.metrics).ok()?;
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let value = text.lines().find_map(|at| at.strip_prefix(line))?;
        value.trim().parse().ok()
    }

    fn times_said(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", self.log());
        }
        program::end(&mut self.keeper, SOON);
    }
}

/// A server whose connections are each handled by a thread.
fn serve(address: SocketAddr, handle: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || handle(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Sends for ever.
fn pour(mut stream: TcpStream) {
    while stream.write_all(&[7; 65_536]).is_ok() {}
}

fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

#[test]
fn a_data_path_that_has_used_every_descriptor_leaves_some_to_those_who_ask() {
    let (front, bulk) = (port::held(), port::held());
    let config = format!(
        "[limits]\nworkers = 2\n\
         [proxy.echo]\nlisten = \"{front}\"\nbackends = [\"{}\"]\ncheck = {{ type = \"tcp\" }}\n\
         [proxy.bulk]\nlisten = \"{bulk}\"\nbackends = [\"{}\"]\ncheck = {{ type = \"tcp\" }}\n",
        serve(any(), echo),
        serve(any(), pour),
    );
    let daemon = Daemon::start("files", 160, port::held(), &config);
    // Two sockets and a pipe each, which is more than a connection is reckoned with.
    let hoarders: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(bulk).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.read_exact(&mut vec![0; 4 << 20]).unwrap();
            stream
        })
        .collect();
    let clients: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(front).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(b"x").unwrap();
            stream
        })
        .collect();
    let files = "lbd_process_shortages_total{resource=\"files\"}";
    wait_for("descriptors run out", || {
        daemon.metric(files).filter(|times| *times > 0)
    });
    for _ in 0..10 {
        let status = daemon.status();
        let text = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success(), "{status:?}");
        assert!(text.contains("ran out of: files "), "{text}");
        assert!(text.contains("1 of 1 server"), "{text}");
    }
    assert_eq!(
        daemon.times_said("open files of this process are used up"),
        1
    );
    assert!(
        daemon.log().contains("raise LimitNOFILE="),
        "{}",
        daemon.log()
    );
    drop(hoarders);
    for mut client in clients {
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        drop(client);
    }
}

/// The CPUs that each worker thread of this daemon may use.
fn cpus_of_workers(daemon: &Daemon) -> Vec<String> {
    let text = String::from_utf8(daemon.status().stdout).unwrap();
    let pid = text.split_once("  pid ").unwrap().1;
    let pid = pid.split(' ').next().unwrap();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut found: Vec<String> = threads
        .map(|thread| fs::read_to_string(thread.path().join("status")).unwrap())
        .filter(|status| status.starts_with("Name:\tlbd-w"))
        .map(|status| {
            let line = status.lines().find(|l| l.starts_with("Cpus_allowed_list:"));
            line.unwrap().replace("Cpus_allowed_list:\t", "")
        })
        .collect();
    found.sort();
    found
}

#[test]
fn workers_are_as_many_as_the_process_has_cpus_and_stay_on_one_each_when_asked() {
    let config = |limits: &str| {
        format!(
            "[limits]\n{limits}\n[proxy.p]\nlisten = \"{}\"\nbackends = [\"{}\"]\n\
             check = {{ type = \"tcp\" }}\n",
            port::held(),
            serve(any(), echo),
        )
    };
    let all = cpus::allowed().unwrap();
    let numbers: Vec<String> = all.iter().map(usize::to_string).collect();
    let workers = all.len();
    let pinned = format!("workers = {workers}\npin-workers = true");
    let daemon = Daemon::start("pinned", 4_096, port::held(), &config(&pinned));
    assert_eq!(cpus_of_workers(&daemon), numbers);
    let said = String::from_utf8(daemon.status().stdout).unwrap();
    let expected = format!("  workers {workers} (on CPU {})  ", numbers.join(", "));
    assert!(said.contains(&expected), "{said}");
    drop(daemon);
    // What a process started from this thread inherits.
    let last = *all.last().unwrap();
    cpus::stay_on(last).unwrap();
    let auto = config("workers = \"auto\"\npin-workers = true");
    let daemon = Daemon::start("one-cpu", 4_096, port::held(), &auto);
    assert_eq!(cpus_of_workers(&daemon), [last.to_string()]);
    assert_eq!(daemon.metric("lbd_process_workers"), Some(1));
    drop(daemon);
    let daemon = Daemon::start(
        "crowd",
        4_096,
        port::held(),
        &config("workers = 3\npin-workers = true"),
    );
    assert_eq!(daemon.metric("lbd_process_workers"), Some(3));
    assert_eq!(daemon.metric("lbd_process_workers_pinned"), Some(0));
    let log = daemon.log();
    assert!(log.contains("workers are not pinned"), "{log}");
    assert!(log.contains("more workers than CPUs"), "{log}");
}

/// Connects from a port of its own, so that the namespace's few remain for the proxy.
fn connect_from(port: u16, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.into()
}

#[test]
fn when_ports_towards_one_server_are_used_up_clients_get_the_other_and_then_the_truth() {
    if !geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let host = Namespace::new(&[]).unwrap();
    host.run(|| {
        let at = |last: u8, port| SocketAddr::from(([127, 0, 0, last], port));
        let (front, servers) = (at(1, 6443), [at(2, 7001), at(3, 7001)]);
        for server in servers {
            serve(server, echo);
        }
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 10019").unwrap();
        let config = format!(
            "[access-log]\n[limits]\nworkers = 2\n\
             [proxy.p]\nlisten = \"{front}\"\nbackends = [\"{}\", \"{}\"]\n\
             check = {{ type = \"tcp\", interval = \"60s\" }}\n",
            servers[0], servers[1],
        );
        let daemon = Daemon::start("ports", 4_096, at(1, 9633), &config);
        let mut served = Vec::new();
        let mut ended = 0;
        for number in 0..60 {
            let mut client = connect_from(20_000 + number, front);
            let mut answer = [0];
            let asked = client.write_all(b"x");
            match asked.and_then(|()| client.read_exact(&mut answer)) {
                Ok(()) => served.push(client),
                Err(_) => ended += 1,
            }
        }
        // Twenty ports towards each, some of which may still be with a probe.
        assert!((30..=40).contains(&served.len()), "{} served", served.len());
        assert_eq!(ended, 60 - served.len());
        assert_eq!(
            daemon.times_said("local ports towards a server are used up"),
            1
        );
        assert!(daemon.log().contains("ip_local_port_range"));
        wait_for("the access log says why", || {
            daemon.log().contains(" RC ").then_some(())
        });
        let ports = "lbd_process_shortages_total{resource=\"ports\"}";
        drop(served);
        let met = wait_for("an answer", || daemon.metric(ports));
        assert!(met >= 20, "{met}");
        // It was not the servers' fault.
        let text = daemon.status().stdout;
        assert!(String::from_utf8_lossy(&text).contains("2 of 2 servers up"));
        // A second later the kernel gives ports of ended connections again.
        let mut number = 21_000;
        wait_for("ports to be had again", || {
            number += 1;
            let mut late = connect_from(number, front);
            late.write_all(b"x").ok()?;
            late.read_exact(&mut [0]).ok()
        });
    })
    .unwrap();
}
