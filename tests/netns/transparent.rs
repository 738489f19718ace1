//! `source = "client"`: lbd on the gateway of the servers, which see each client's own address.
//! The set-up is that of docs/transparent.md, word for word.
//!
//! client 10.8.0.2 — 10.8.0.1 gateway with lbd 10.9.0.1 — 10.9.0.4 server, and the same in fd08::
//! and fd09::

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use lbd::net::netns::Namespace;
use lbd::net::netns::wire::{Plug, Wire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Case;

pub const CASES: &[Case] = &[(
    "servers_see_the_clients_address_and_answers_go_through_lbd",
    &["ip", "nft", "sysctl", "setpriv", "chown"],
    transparent,
)];

const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[log]
target = "stderr"
[metrics]
listen = "off"
[proxy.v4]
listen = "10.8.0.1:6443"
backends = ["10.9.0.4:6443"]
source = "client"
[proxy.v6]
listen = "[fd08::1]:6443"
backends = ["[fd09::4]:6443"]
source = "client"
"#;

struct Lab {
    client: Arc<Namespace>,
    gateway: Arc<Namespace>,
    _server: Arc<Namespace>,
    _wires: [Wire; 2],
}

fn run(host: &Namespace, command: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).stdin(Stdio::null());
    let ended = host.spawn(&mut shell).unwrap().wait().unwrap();
    assert!(ended.success(), "{command}");
}

fn attach(wire: &mut Wire, host: &Namespace, plug: (&str, &str, [u8; 4]), v6: &str) {
    let (name, interface, ip) = plug;
    let plug = Plug {
        host: name,
        interface,
        ip: ip.into(),
        prefix: 24,
    };
    wire.attach(host, &plug).unwrap();
    run(
        host,
        &format!("ip -6 address add {v6}/64 dev {interface} nodad"),
    );
}

/// The commands of the document, in the order they stand there.
fn documented() -> Vec<String> {
    let text = include_str!("../../docs/transparent.md");
    let blocks = text.split("```").skip(1).step_by(2);
    let shell = blocks.filter_map(|block| block.strip_prefix("sh\n"));
    shell.map(str::to_owned).collect()
}

impl Lab {
    fn new() -> Self {
        let mut inner = Wire::new().unwrap();
        let mut outer = Wire::new().unwrap();
        let host = || Arc::new(Namespace::new(&[Path::new("/run")]).unwrap());
        let (client, gateway, server) = (host(), host(), host());
        attach(
            &mut outer,
            &client,
            ("client", "eth0", [10, 8, 0, 2]),
            "fd08::2",
        );
        attach(
            &mut outer,
            &gateway,
            ("gateway", "eth1", [10, 8, 0, 1]),
            "fd08::1",
        );
        attach(
            &mut inner,
            &gateway,
            ("gateway", "eth0", [10, 9, 0, 1]),
            "fd09::1",
        );
        attach(
            &mut inner,
            &server,
            ("server", "eth0", [10, 9, 0, 4]),
            "fd09::4",
        );
        for (host, v4, v6) in [
            (&client, "10.8.0.1", "fd08::1"),
            (&server, "10.9.0.1", "fd09::1"),
        ] {
            run(
                host,
                &format!("ip route add default via {v4}; ip -6 route add default via {v6}"),
            );
        }
        for address in ["0.0.0.0:6443", "[::]:6443"] {
            let bind = || {
                let address: SocketAddr = address.parse().unwrap();
                let domain = socket2::Domain::for_address(address);
                let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
                if address.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&address.into())?;
                socket.listen(64)?;
                std::io::Result::Ok(TcpListener::from(socket))
            };
            let listener = server.run(bind).unwrap().unwrap();
            drop(thread::spawn(move || serve(&listener)));
        }
        Self {
            client,
            gateway,
            _server: server,
            _wires: [inner, outer],
        }
    }

    /// lbd on the gateway, started by these words; its log is /run/log there.
    fn start_lbd(&self, user: &str) -> Lbd {
        let written = self.gateway.run(|| std::fs::write("/run/lb.toml", CONFIG));
        written.unwrap().unwrap();
        run(
            &self.gateway,
            "rm -rf /run/lbd /run/log; mkdir /run/lbd; chown 65534 /run/lbd",
        );
        let lbd = env!("CARGO_BIN_EXE_lbd");
        let mut command = Command::new("sh");
        let line = format!(
            "exec {user} {lbd} --config /run/lb.toml --runtime-dir /run/lbd >/run/log 2>&1"
        );
        command.args(["-c", &line]).stdin(Stdio::null());
        Lbd(self.gateway.spawn(&mut command).unwrap())
    }

    fn log(&self) -> String {
        // Not there before lbd is.
        let log = self.gateway.run(|| std::fs::read_to_string("/run/log"));
        log.unwrap().unwrap_or_default()
    }

    fn wait_log(&self, words: &str) -> String {
        let end = clock::now() + PATIENCE;
        loop {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(words));
            if let Some(line) = line {
                return line.to_owned();
            }
            assert!(clock::now() < end, "no {words:?} in:\n{log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the client's own address is, and who it is for the server.
    fn ask(&self, address: &str) -> std::io::Result<(SocketAddr, String)> {
        let address: SocketAddr = address.parse().unwrap();
        let asked = self.client.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let own = stream.local_addr()?;
            // More than one segment each way.
            stream.write_all(&[7; 100_000])?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok((own, answer))
        });
        asked.unwrap()
    }
}

/// Ended in order when dropped: its proxy would go on without a keeper.
struct Lbd(Child);

impl Drop for Lbd {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// Says who is there, behind 100,000 bytes.
fn serve(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        drop(thread::spawn(move || {
            let mut request = Vec::new();
            let read = stream.read_to_end(&mut request);
            let peer = stream.peer_addr();
            if let (Ok(100_000), Ok(peer)) = (read, peer) {
                drop(stream.write_all(peer.ip().to_string().as_bytes()));
            }
        }));
    }
}

fn transparent() {
    let lab = Lab::new();
    let [rules, routes, undo] = &documented()[..] else {
        panic!("docs/transparent.md has other commands than this test knows");
    };
    run(
        &lab.gateway,
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    );
    run(&lab.gateway, rules);
    run(&lab.gateway, routes);
    let as_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs";
    // As root, and as a user with this one right: the way a service manager starts it.
    for user in [
        "",
        &format!("{as_nobody} --inh-caps=+net_raw --ambient-caps=+net_raw"),
    ] {
        let lbd = lab.start_lbd(user);
        lab.wait_log("serving");
        let rights = lab.wait_log("privileges given up");
        assert!(
            rights.contains("capabilities CAP_NET_RAW, no_new_privs on"),
            "{rights}"
        );
        for _ in 0..20 {
            for address in ["10.8.0.1:6443", "[fd08::1]:6443"] {
                let (own, seen) = lab
                    .ask(address)
                    .unwrap_or_else(|error| panic!("{address}: {error}\n{}", lab.log()));
                assert_eq!(own.ip().to_string(), seen);
            }
        }
        drop(lbd);
    }
    let unpermitted = lab.start_lbd(as_nobody);
    lab.wait_log("`source = \"client\"` is not permitted: lbd needs CAP_NET_RAW");
    drop(unpermitted);
    // Without the routes answers pass lbd by, and the client refuses them.
    run(&lab.gateway, undo);
    let _lbd = lab.start_lbd("");
    lab.wait_log("serving");
    let asked = lab.ask("10.8.0.1:6443");
    assert!(!asked.is_ok_and(|(own, seen)| own.ip().to_string() == seen));
}
