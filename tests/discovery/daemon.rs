//! The real daemon, keeper and proxy process, with its sandbox in force: what each source finds is
//! served, and `lbd status` tells of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};

use lbd::admin::protocol::ask_status;
use lbd::admin::status::{DiscoveryStatus, ProxyStatus};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord};

use crate::api::{Cluster, Pki};
use crate::program::{self, Folder};
use crate::{PATIENCE, wait_until};

struct Daemon {
    dir: Folder,
    keeper: Child,
    front: SocketAddr,
}

impl Daemon {
    /// `proxy` is what its one proxy has besides `listen` and a quick check.
    fn start(name: &str, proxy: &str) -> Self {
        let dir = Folder::new(name);
        let front = crate::port::held();
        let config = format!(
            "[metrics]\nlisten = \"off\"\n[limits]\nmax-connections = 50\nworkers = 1\n\
             [proxy.p]\nlisten = \"{front}\"\n\
             check = {{ type = \"tcp\", interval = \"200ms\", rise = 1 }}\n{proxy}\n"
        );
        fs::write(dir.0.join("lb.toml"), config).unwrap();
        let keeper = program::start_in(&dir.0, program::lbd());
        Self { dir, keeper, front }
    }

    fn proxy(&self) -> Option<ProxyStatus> {
        let status = ask_status(&self.dir.0.join("run/admin.sock")).ok()?;
        let serving = status.process.serving;
        status.proxies.into_iter().next().filter(|_| serving)
    }

    /// Waits until exactly these servers are up.
    fn wait_up(&self, servers: &[SocketAddr]) {
        let mut wanted: Vec<String> = servers.iter().map(ToString::to_string).collect();
        wanted.sort();
        wait_until("the servers are up", || {
            let Some(proxy) = self.proxy() else {
                return false;
            };
            let mut present: Vec<String> = proxy
                .servers
                .iter()
                .map(|server| server.address.clone())
                .collect();
            present.sort();
            present == wanted && proxy.usable == wanted.len() as u64
        });
    }

    fn wait_source(
        &self,
        what: &str,
        condition: impl Fn(&DiscoveryStatus) -> bool,
    ) -> DiscoveryStatus {
        let mut last = None;
        wait_until(what, || {
            last = self.proxy().and_then(|mut proxy| proxy.discovery.pop());
            last.as_ref().is_some_and(&condition)
        });
        last.unwrap()
    }

    /// The port of the server that a client meets.
    fn client(&self) -> String {
        let mut stream = TcpStream::connect(self.front).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// What a user sees.
    fn status_text(&self) -> String {
        let shown = program::order(&self.dir.0.join("run/admin.sock"), &["status"]);
        String::from_utf8(shown.stdout).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.0.join("log")).unwrap_or_default()
    }

    /// What is shown is shown by a process that has given up its rights.
    fn assert_confined(&self) {
        let log = self.log();
        assert!(log.contains("seccomp on ("), "{log}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("lbd said:\n{}", self.log());
        }
        program::end(&mut self.keeper, PATIENCE);
    }
}

/// A server that tells each client its own port and closes.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream
                .write_all(address.port().to_string().as_bytes())
                .unwrap_or_default();
        }
    });
    address
}

/// A resolver for one name on loopback.
struct Resolver {
    address: SocketAddr,
    addresses: Arc<Mutex<Result<Vec<[u8; 4]>, RCODE>>>,
}

impl Resolver {
    fn start(addresses: Result<Vec<[u8; 4]>, RCODE>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let addresses = Arc::new(Mutex::new(addresses));
        let shared = Arc::clone(&addresses);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let say = shared.lock().unwrap().clone();
                answer(&mut stream, say).unwrap_or_default();
            }
        });
        Self { address, addresses }
    }
}

fn answer(stream: &mut TcpStream, say: Result<Vec<[u8; 4]>, RCODE>) -> std::io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut question)?;
    let question = Packet::parse(&question).unwrap();
    let name = question.questions[0].qname.clone().into_owned();
    let is_a = question.questions[0].qtype == simple_dns::QTYPE::TYPE(simple_dns::TYPE::A);
    let mut reply = question.into_reply();
    match say {
        Ok(addresses) => {
            for ip in addresses.into_iter().filter(|_| is_a) {
                let address = u32::from_be_bytes(ip);
                let rdata = RData::A(A { address });
                let record = ResourceRecord::new(name.clone(), CLASS::IN, 1, rdata);
                reply.answers.push(record);
            }
        }
        Err(code) => *reply.rcode_mut() = code,
    }
    let bytes = reply.build_bytes_vec().unwrap();
    stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes())?;
    stream.write_all(&bytes)
}

fn file_sd(servers: &[SocketAddr]) -> String {
    let targets: Vec<String> = servers
        .iter()
        .map(|server| format!("\"{server}\""))
        .collect();
    format!("[{{\"targets\": [{}]}}]", targets.join(", "))
}

/// Gives a folder's file another text at once.
fn replace(folder: &Folder, name: &str, text: &str) {
    fs::write(folder.0.join("new"), text).unwrap();
    fs::rename(folder.0.join("new"), folder.0.join(name)).unwrap();
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

#[test]
fn servers_of_a_file_are_served_from_the_first_client_on_and_follow_the_file() {
    let folder = Folder::new("sources");
    let (one, two) = (server(), server());
    replace(&folder, "b.json", &file_sd(&[one]));
    let proxy = format!("backends-file = {}", quoted(&folder.0.join("b.json")));
    let daemon = Daemon::start("file", &proxy);
    daemon.wait_up(&[one]);
    assert_eq!(daemon.client(), one.port().to_string());
    replace(&folder, "b.json", &file_sd(&[two]));
    daemon.wait_up(&[two]);
    assert_eq!(daemon.client(), two.port().to_string());
    replace(&folder, "b.json", "[{\"targets\": [\"nowhere\"]}]");
    let source = daemon.wait_source("the error", |source| source.error.is_some());
    assert_eq!(
        source.error.as_deref(),
        Some("\"nowhere\" is no IP:PORT of a server")
    );
    assert_eq!(source.servers, 1);
    // And so does an empty one.
    replace(&folder, "b.json", "[]");
    daemon.wait_source("the other error", |source| {
        source.error.as_deref() == Some("it names no server")
    });
    daemon.wait_up(&[two]);
    assert_eq!(daemon.client(), two.port().to_string());
    let shown = daemon.status_text();
    let line = format!(
        "  from file {}: 1 server, heard ",
        folder.0.join("b.json").display()
    );
    assert!(shown.contains(&line), "{shown}");
    assert!(shown.contains(", ERROR it names no server"), "{shown}");
    daemon.assert_confined();
}

#[test]
fn servers_of_a_name_are_served_and_stay_when_the_resolver_fails() {
    let serves = server();
    let resolver = Resolver::start(Ok(vec![[127, 0, 0, 1]]));
    let proxy = format!(
        "backends = [\"api.example:{}\"]\n\
         discovery = {{ dns = {{ names = \"other.example:1\", resolvers = [\"{}\"], min-interval = \"1s\" }} }}",
        serves.port(),
        resolver.address
    );
    let daemon = Daemon::start("dns", &proxy);
    wait_until("the server is up", || {
        daemon.proxy().is_some_and(|proxy| proxy.usable == 1)
    });
    assert_eq!(daemon.client(), serves.port().to_string());
    *resolver.addresses.lock().unwrap() = Err(RCODE::ServerFailure);
    let source = daemon.wait_source("the error", |source| source.error.is_some());
    let error = format!("{}: the resolver says SERVFAIL", resolver.address);
    assert_eq!(source.error, Some(error));
    assert_eq!((source.kind.as_str(), source.servers), ("dns", 1));
    assert_eq!(daemon.client(), serves.port().to_string());
    let shown = daemon.status_text();
    let line = format!("  from dns api.example:{}: 1 server, heard ", serves.port());
    assert!(shown.contains(&line), "{shown}");
    *resolver.addresses.lock().unwrap() = Ok(vec![[127, 0, 0, 1]]);
    daemon.wait_source("it is well again", |source| source.error.is_none());
    daemon.assert_confined();
}

#[test]
fn endpoints_of_a_service_are_served_beside_the_seed_and_go_when_they_go() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    let (one, two) = (server(), server());
    let seed = cluster.server(&pki);
    cluster.set("one", one.port(), &[("127.0.0.1", true)]);
    let proxy = format!(
        "backends = [\"{seed}\"]\n[proxy.p.discovery.kubernetes]\nca-file = {}\ntoken-file = {}",
        quoted(&pki.file("ca.crt")),
        quoted(&pki.file("token"))
    );
    let daemon = Daemon::start("kubernetes", &proxy);
    daemon.wait_up(&[seed, one]);
    cluster.set("two", two.port(), &[("127.0.0.1", true)]);
    daemon.wait_up(&[seed, one, two]);
    cluster.set("one", one.port(), &[("127.0.0.1", false)]);
    daemon.wait_up(&[seed, two]);
    // A token that is replaced is read under the sandbox, too.
    fs::write(pki.dir().join("new"), "secret-2").unwrap();
    fs::rename(pki.dir().join("new"), pki.file("token")).unwrap();
    cluster.cut();
    wait_until("a watch with the new token", || {
        let watches = cluster.watches();
        watches
            .iter()
            .any(|w| w.authorization.as_deref() == Some("Bearer secret-2"))
    });
    let shown = daemon.status_text();
    let line = "  from kubernetes default/kubernetes: 1 server, heard ";
    assert!(shown.contains(line), "{shown}");
    daemon.assert_confined();
}

#[test]
fn a_name_of_the_hosts_own_table_is_found_under_the_sandbox() {
    let table = fs::read_to_string("/etc/hosts").unwrap_or_default();
    if !table
        .lines()
        .any(|line| line.starts_with("127.0.0.1") && line.contains("localhost"))
    {
        println!("skipped: /etc/hosts has no localhost");
        return;
    }
    let serves = server();
    let proxy = format!(
        "backends = [\"localhost:{}\"]\ndiscovery = {{ dns = {{ names = \"localhost:1\", family = \"ipv4\" }} }}",
        serves.port()
    );
    let daemon = Daemon::start("hosts", &proxy);
    wait_until("the server is up", || {
        daemon.proxy().is_some_and(|proxy| proxy.usable == 1)
    });
    assert_eq!(daemon.client(), serves.port().to_string());
    daemon.assert_confined();
}
