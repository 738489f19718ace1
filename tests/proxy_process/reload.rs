//! Another configuration for a process that serves, in its sandbox.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lbd::admin::protocol::order_servers;
use lbd::admin::servers::{ServerName, Servers, ServersOutcome};
use lbd::ipc::reload::PrepareAnswer;

use super::*;

impl Keeper {
    /// Offers another text, with sockets for the entries that are new.
    fn prepare(&mut self, id: u64, text: &str, fresh: Vec<(u16, TcpListener)>) -> PrepareAnswer {
        let config = memfd::sealed("lb.toml", text.as_bytes()).unwrap();
        self.send(&ToProxy::Prepare { id }, &[config]);
        for (proxy, listener) in fresh {
            listener.set_nonblocking(true).unwrap();
            let group = ListenerGroup {
                proxy,
                listen: 0,
                count: 1,
            };
            self.send(&ToProxy::Listeners(group), &[OwnedFd::from(listener)]);
        }
        self.send(&ToProxy::ListenersDone, &[]);
        let (message, _) = self.next("answer", |m| matches!(m, ToKeeper::Prepared { .. }));
        let ToKeeper::Prepared { id: of, answer } = message else {
            panic!()
        };
        assert_eq!(of, id);
        answer
    }

    fn commit(&mut self, id: u64) {
        self.send(&ToProxy::Commit { id }, &[]);
        let (message, _) = self.next("commit", |m| matches!(m, ToKeeper::Committed { .. }));
        assert_eq!(message, ToKeeper::Committed { id });
    }

    fn reload(&mut self, id: u64, text: &str, fresh: Vec<(u16, TcpListener)>) {
        assert_eq!(self.prepare(id, text, fresh), PrepareAnswer::Ready);
        self.commit(id);
    }

    fn serving(&mut self) -> Vec<(bool, u16)> {
        let (message, _) = self.next("serving", |m| matches!(m, ToKeeper::Serving(_)));
        let ToKeeper::Serving(serving) = message else {
            panic!()
        };
        serving.iter().map(|s| (s.probed, s.usable)).collect()
    }
}

fn proxy(name: &str, front: SocketAddr, servers: &str, more: &str) -> String {
    format!(
        "[proxy.{name}]\nlisten = \"{front}\"\n{more}\n\
         check = {{ type = \"tcp\", interval = \"200ms\", timeout = \"1s\" }}\n\
         [proxy.{name}.backends]\n{servers}\n"
    )
}

const HEAD: &str = "[metrics]\nlisten = \"off\"\n[limits]\nmax-connections = 50\nworkers = 2\n";

#[test]
fn servers_settings_and_proxies_change_in_place_and_whoever_is_connected_stays() {
    let (a, b) = (echo(), echo());
    let mut keeper = Keeper::start("reload");
    let (listener, address) = front();
    let one = format!("{HEAD}{}", proxy("p", address, &format!("a = \"{a}\""), ""));
    keeper.bring_up(&one, listener);
    let mut client = dial(address);
    assert_eq!(talk(&mut client, b"before").unwrap(), b"before");
    let checks = keeper.status().proxies[0].servers[0].checks;

    // A server, a limit, and a second proxy before the first one.
    let (second, second_address) = front();
    let two = format!(
        "{HEAD}{}{}",
        proxy("q", second_address, &format!("b = \"{b}\""), ""),
        proxy(
            "p",
            address,
            &format!("a = \"{a}\"\nb = \"{b}\""),
            "max-connections = 7"
        ),
    );
    keeper.reload(1, &two, vec![(0, second)]);
    // By the positions of the new file, and with the verdicts of checks made before.
    assert_eq!(keeper.serving(), [(true, 1), (true, 2)]);
    assert_eq!(talk(&mut dial(second_address), b"q").unwrap(), b"q");
    assert_eq!(talk(&mut client, b"after").unwrap(), b"after");
    let status = keeper.status();
    assert_eq!(status.proxies[0].name, "q");
    assert_eq!(status.proxies[1].max_connections, Some(7));
    assert_eq!(status.proxies[1].connections, 1);
    assert!(status.proxies[1].servers[0].checks >= checks);
    assert_eq!(status.proxies[1].servers[0].transitions, 0);
    assert_eq!(status.proxies[1].servers[1].state, ServerState::Up);

    // The first proxy goes, and its connection goes on.
    let three = format!(
        "{HEAD}{}",
        proxy("q", second_address, &format!("b = \"{b}\""), "")
    );
    keeper.reload(2, &three, Vec::new());
    assert_eq!(keeper.serving(), [(true, 1)]);
    wait_for("refusal", || {
        TcpStream::connect(address).is_err().then_some(())
    });
    assert_eq!(talk(&mut client, b"leaving").unwrap(), b"leaving");
    assert_eq!(keeper.status().proxies.len(), 1);

    // And comes back, with what it has counted.
    let (again, again_address) = front();
    let four = format!(
        "{HEAD}{}{}",
        proxy("q", second_address, &format!("b = \"{b}\""), ""),
        proxy("p", again_address, &format!("a = \"{a}\""), ""),
    );
    keeper.reload(3, &four, vec![(1, again)]);
    assert_eq!(talk(&mut dial(again_address), b"back").unwrap(), b"back");
    assert_eq!(talk(&mut client, b"still").unwrap(), b"still");
    let status = keeper.status();
    assert_eq!(status.proxies[1].servers.len(), 1);
    assert!(status.proxies[1].totals.accepted >= 2);

    keeper.send(&ToProxy::Stop { grace_ms: 0 }, &[]);
    assert_eq!(keeper.wait_end(), 0);
}

#[test]
fn what_was_prepared_and_given_up_leaves_nothing_behind() {
    let (a, b) = (echo(), echo());
    let mut keeper = Keeper::start("abort");
    let (listener, address) = front();
    let one = format!("{HEAD}{}", proxy("p", address, &format!("a = \"{a}\""), ""));
    keeper.bring_up(&one, listener);
    let (second, second_address) = front();
    let two = format!(
        "{HEAD}{}{}",
        proxy("p", address, &format!("b = \"{b}\""), "max-connections = 3"),
        proxy("q", second_address, &format!("b = \"{b}\""), ""),
    );
    assert_eq!(
        keeper.prepare(5, &two, vec![(1, second)]),
        PrepareAnswer::Ready
    );
    keeper.send(&ToProxy::Abort { id: 5 }, &[]);
    wait_for("refusal", || {
        TcpStream::connect(second_address).is_err().then_some(())
    });
    let status = keeper.status();
    assert_eq!(
        (status.proxies.len(), status.proxies[0].max_connections),
        (1, None)
    );
    assert_eq!(status.proxies[0].servers[0].address, a.to_string());
    assert_eq!(talk(&mut dial(address), b"x").unwrap(), b"x");
    // The next one is not hindered.
    let three = format!("{HEAD}{}", proxy("p", address, &format!("b = \"{b}\""), ""));
    keeper.reload(6, &three, Vec::new());
    assert_eq!(talk(&mut dial(address), b"y").unwrap(), b"y");
    let status = keeper.status();
    assert_eq!(status.proxies[0].servers[0].address, b.to_string());
}

#[test]
fn what_a_running_process_cannot_do_is_said_and_what_nobody_can_do_is_refused() {
    let a = echo();
    let mut keeper = Keeper::start("cannot");
    let (listener, address) = front();
    let servers = format!("a = \"{a}\"");
    let plain = proxy("p", address, &servers, "");
    let one = format!("{HEAD}{plain}");
    keeper.bring_up(&one, listener);
    let needs = |answer: PrepareAnswer| match answer {
        PrepareAnswer::NeedsNewProcess { why } => why,
        other @ (PrepareAnswer::Ready | PrepareAnswer::Refused { .. }) => panic!("{other:?}"),
    };
    let workers = one.replace("workers = 2", "workers = 3");
    assert!(needs(keeper.prepare(1, &workers, vec![])).contains("number of workers"));
    let log = format!("[log]\nformat = \"json\"\n{one}");
    assert!(needs(keeper.prepare(2, &log, vec![])).contains("[log]"));
    let far = one.replace(
        "type = \"tcp\"",
        "type = \"tls\", ca-file = \"/opt/lbd-not-there/ca.pem\"",
    );
    let why = needs(keeper.prepare(3, &far, vec![]));
    assert!(why.contains("/opt/lbd-not-there"), "{why}");
    let refused = |answer: PrepareAnswer| match answer {
        PrepareAnswer::Refused { problems } => problems.join("\n"),
        other @ (PrepareAnswer::Ready | PrepareAnswer::NeedsNewProcess { .. }) => {
            panic!("{other:?}")
        }
    };
    assert!(refused(keeper.prepare(4, "[proxy.p]\nnonsense = 1\n", vec![])).contains("nonsense"));
    let (taken, taken_address) = front();
    let metrics = one.replace("listen = \"off\"", &format!("listen = \"{taken_address}\""));
    assert!(refused(keeper.prepare(5, &metrics, vec![])).contains("metrics.listen"));
    drop(taken);
    let elsewhere = one.replace(&address.to_string(), "127.0.0.1:1");
    assert!(refused(keeper.prepare(6, &elsewhere, vec![])).contains("no socket came"));
    assert_eq!(talk(&mut dial(address), b"x").unwrap(), b"x");
    keeper.reload(7, &metrics, Vec::new());
    let got = wait_for("metrics", || get(taken_address, "/livez"));
    assert!(got.ends_with("ok\n"), "{got}");
    keeper.reload(8, &one, Vec::new());
    wait_for("end of metrics", || {
        TcpStream::connect(taken_address).is_err().then_some(())
    });
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn orders_of_operators_stand_through_a_reload_and_the_access_log_comes_on() {
    let (a, b) = (echo(), echo());
    let mut keeper = Keeper::start("orders");
    let (listener, address) = front();
    let servers = format!("a = \"{a}\"\nb = \"{b}\"");
    let one = format!("{HEAD}{}", proxy("p", address, &servers, ""));
    keeper.bring_up(&one, listener);
    let socket = keeper.dir.join("admin.sock");
    let name = ServerName {
        proxy: None,
        server: "a".to_owned(),
    };
    let drain = protocol::Command::Drain(Servers {
        servers: vec![name],
    });
    let drained = order_servers(&socket, drain).unwrap();
    assert!(matches!(drained, ServersOutcome::Done(_)));
    let two = format!(
        "{HEAD}[access-log]\nformat = \"logfmt\"\n{}",
        proxy("p", address, &servers, "balance = \"first\"")
    );
    keeper.reload(1, &two, Vec::new());
    let status = keeper.status();
    assert_eq!(status.proxies[0].servers[0].state, ServerState::Drain);
    drop(dial(address));
    assert_eq!(talk(&mut dial(address), b"logged").unwrap(), b"logged");
    wait_for("a line", || {
        keeper.stderr().contains("bytes_in=6").then_some(())
    });
    // The file takes one out of service, where no operator said anything.
    let three = two.replace(
        &format!("b = \"{b}\""),
        &format!("b = {{ address = \"{b}\", disabled = true }}"),
    );
    keeper.reload(2, &three, Vec::new());
    let status = keeper.status();
    assert_eq!(status.proxies[0].servers[1].state, ServerState::Maint);
    keeper.reload(3, &two, Vec::new());
    wait_for("b is back", || {
        let status = keeper.status();
        (status.proxies[0].servers[1].state == ServerState::Up).then_some(())
    });
    assert_eq!(
        keeper.status().proxies[0].servers[0].state,
        ServerState::Drain
    );
}

#[test]
fn sources_of_servers_come_and_go_with_the_file() {
    let (a, b) = (echo(), echo());
    let mut keeper = Keeper::start("sources");
    let found = keeper.dir.join("found.json");
    std::fs::write(&found, format!("[{{\"targets\": [\"{b}\"]}}]")).unwrap();
    let (listener, address) = front();
    let file = format!("backends-file = \"{}\"", found.display());
    let with = format!(
        "{HEAD}{}",
        proxy("p", address, &format!("a = \"{a}\""), &file)
    );
    let without = format!("{HEAD}{}", proxy("p", address, &format!("a = \"{a}\""), ""));
    keeper.bring_up(&with, listener);
    let names = |keeper: &Keeper| -> Vec<String> {
        let status = keeper.status();
        let up = |s: &&lbd::admin::status::ServerStatus| s.state == ServerState::Up;
        let servers = status.proxies[0].servers.iter().filter(up);
        servers.map(|s| s.name.clone()).collect()
    };
    let (one, both) = (["a".to_owned()], ["a".to_owned(), b.to_string()]);
    wait_for("discovery", || (names(&keeper) == both).then_some(()));
    keeper.reload(1, &without, Vec::new());
    assert_eq!(names(&keeper), one);
    assert!(keeper.status().proxies[0].discovery.is_empty());
    keeper.reload(2, &with, Vec::new());
    wait_for("discovery", || (names(&keeper) == both).then_some(()));
    // The file names it itself: it is the same server as before.
    let listed = format!("{file}\nbackends = [\"{a}\", \"{b}\"]");
    let named = proxy("p", address, "", &listed).replace("[proxy.p.backends]\n", "");
    keeper.reload(3, &format!("{HEAD}{named}"), Vec::new());
    let status = keeper.status();
    let mut servers = status.proxies[0].servers.iter();
    let server = servers.find(|s| s.name == b.to_string()).unwrap();
    assert_eq!((server.origin.as_str(), server.transitions), ("file", 0));
    assert_eq!(server.state, ServerState::Up);
}

#[test]
fn a_check_by_other_rules_keeps_the_verdict_until_it_says_otherwise() {
    let a = echo();
    let mut keeper = Keeper::start("rules");
    let (listener, address) = front();
    let one = format!("{HEAD}{}", proxy("p", address, &format!("a = \"{a}\""), ""));
    keeper.bring_up(&one, listener);
    // An echo speaks no HTTP: by these rules it is not ready, after three failures.
    let two = one.replace("type = \"tcp\"", "type = \"http\", fall = 3");
    keeper.reload(1, &two, Vec::new());
    assert_eq!(talk(&mut dial(address), b"x").unwrap(), b"x");
    let down = wait_for("down", || {
        let server = keeper.status().proxies[0].servers[0].clone();
        (server.state == ServerState::Down).then_some(server)
    });
    assert_eq!(down.transitions, 1);
    keeper.reload(2, &one, Vec::new());
    wait_for("up", || {
        let server = keeper.status().proxies[0].servers[0].clone();
        (server.state == ServerState::Up).then_some(())
    });
}

#[test]
fn twenty_reloads_under_load_refuse_and_reset_nobody() {
    let servers = [echo(), echo(), echo()];
    let mut keeper = Keeper::start("twenty");
    let (listener, address) = front();
    let text = |round: usize| {
        let list: Vec<String> = (0..3)
            .filter(|at| round == 0 || *at != round % 3)
            .map(|at| format!("s{at} = \"{}\"", servers[at]))
            .collect();
        let more = format!(
            "connect-timeout = \"{}s\"\nidle-timeout = \"{}m\"\nmax-connections = {}",
            1 + round % 3,
            5 + round,
            100 + round
        );
        let head = HEAD.replace("= 50", "= 200");
        format!("{head}{}", proxy("p", address, &list.join("\n"), &more))
    };
    keeper.bring_up(&text(0), listener);
    let mut streams: Vec<TcpStream> = (0..50).map(|_| dial(address)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(talk(&mut dial(address), b"hello").unwrap(), b"hello");
                    asked.fetch_add(1, Ordering::SeqCst);
                    // 3 clients, about 300 connections a second.
                    std::thread::sleep(Duration::from_millis(8));
                }
            })
        })
        .collect();
    for round in 1..=20 {
        let target = asked.load(Ordering::SeqCst) + 15;
        wait_for("traffic", || {
            assert!(!clients.iter().any(std::thread::JoinHandle::is_finished));
            (asked.load(Ordering::SeqCst) >= target).then_some(())
        });
        keeper.reload(round, &text(usize::try_from(round).unwrap()), Vec::new());
        for stream in &mut streams {
            assert_eq!(talk(stream, b"stream").unwrap(), b"stream");
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    let proxy = &keeper.status().proxies[0];
    assert_eq!(proxy.max_connections, Some(120));
    assert_eq!(proxy.connections, 50);
    assert!(proxy.totals.accepted >= 350);
    let failed: u64 = proxy.totals.failed.iter().map(|(_, count)| count).sum();
    assert_eq!(failed, 0, "{:?}", proxy.totals.failed);
}
