//! Other settings, servers, listeners and proxies while connections go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lbd::config::model::{Balance, Guard, Listen, MaxQueue, Network, PerSource, Proxy};
use lbd::health::fsm::Health;
use lbd::net::{clock, tcp};
use lbd::proxy::dispatch::verdicts::Checked;
use lbd::proxy::farm::Farm;
use lbd::proxy::reshape::{Group, Shape};
use lbd::proxy::roster::Origin;
use lbd::proxy::server::AdminState;

use super::lab::{
    Backend, Lab, PATIENCE, ask, is_reset, limited, proxy, server, wait_until, weighted,
};

/// What the control thread does with a new file, every new server found ready.
fn settle(farm: &Farm, config: &Arc<Proxy>) {
    farm.set_config(config);
    for spec in &config.servers {
        let now = clock::now();
        let checked = Checked {
            health: Health::Ready,
            found: Health::Ready,
            began: now,
        };
        farm.bring(spec, (checked, now)).unwrap();
    }
    assert!(farm.reconcile_file(&config.servers).is_settled());
}

fn commit(lab: &Lab, farms: Vec<(usize, Arc<Farm>)>, groups: Vec<Group>) {
    lab.engine.commit(Shape {
        farms,
        groups,
        max_connections: 100_000,
        access: Some(lab.sink.clone()),
    });
}

fn reload(lab: &Lab, change: impl FnOnce(&mut Proxy)) {
    let mut config = Proxy::clone(&lab.farm.config());
    change(&mut config);
    settle(&lab.farm, &Arc::new(config));
    let farms = vec![(0, Arc::clone(&lab.farm))];
    commit(lab, farms, lab.engine.groups());
}

/// A further listener for the proxy in `slot`.
fn listener(lab: &Lab, (slot, listen): (usize, usize), config: &Proxy) -> (Group, SocketAddr) {
    let any = Listen::Addr("127.0.0.1:0".parse().unwrap());
    let sockets = tcp::listener_group(any, 2).unwrap();
    let addr = tcp::local_addr(&sockets[0]).unwrap();
    let group = lab.engine.group((slot, listen), config, sockets).unwrap();
    (group, addr)
}

/// Which server answers, and the connection to it.
fn greeted(addr: SocketAddr) -> (u8, TcpStream) {
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer[1], b'x');
    (answer[0], client)
}

fn goes_on(client: &mut TcpStream) {
    client.write_all(b"again").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"again");
}

fn refuses(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn an_idle_timeout_that_becomes_shorter_ends_those_that_rest_already() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let (_, mut client) = greeted(lab.addr);
        let began = clock::now();
        reload(&lab, |p| p.idle_timeout = Duration::from_millis(300));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        // By the settings it began with it would have been looked at after a minute.
        assert!(clock::now() - began < Duration::from_secs(5));
        assert_eq!(lab.record().end.to_string(), "cD");
        assert_eq!(lab.stats().totals.idle_timeouts, 1);
    }
}

#[test]
fn a_server_that_moves_is_followed_by_newcomers_and_keeps_the_connections_it_has() {
    for workers in [1, 2] {
        let backends = [Backend::echo(1), Backend::echo(2)];
        let named = |at: usize| {
            let mut server = server(backends[at].addr);
            server.name = "a".into();
            server
        };
        let lab = Lab::start(proxy(vec![named(0)]), workers);
        let (id, mut old) = greeted(lab.addr);
        assert_eq!(id, 1);
        reload(&lab, |p| p.servers = vec![named(1)]);
        for _ in 0..20 {
            assert_eq!(greeted(lab.addr).0, 2);
        }
        goes_on(&mut old);
        let stats = lab.stats();
        assert_eq!(stats.servers.len(), 1);
        assert_eq!(stats.leaving.len(), 1);
        drop(old);
        wait_until("it has left", || lab.stats().leaving.is_empty());
        assert_eq!(lab.stats().totals.no_server, 0);
    }
}

#[test]
fn servers_come_and_go_and_those_that_stay_keep_health_counters_and_orders() {
    let backends = [Backend::echo(0), Backend::echo(1), Backend::echo(2)];
    let mut first = proxy(vec![server(backends[0].addr), server(backends[1].addr)]);
    first.slowstart = Duration::from_secs(3600);
    let lab = Lab::start(first, 2);
    for _ in 0..10 {
        greeted(lab.addr);
    }
    lab.farm.set_admin(0, AdminState::Drain, clock::now());
    lab.settle();
    let before = lab.stats();
    reload(&lab, |p| {
        p.servers = vec![server(backends[2].addr), weighted(backends[0].addr, 7)];
    });
    let after = lab.stats();
    let of = |name: SocketAddr| {
        let mut servers = after.servers.iter();
        servers.find(|s| s.address == name).unwrap()
    };
    let stayed = of(backends[0].addr);
    assert_eq!(stayed.admin, AdminState::Drain);
    assert_eq!(stayed.weight, 7);
    assert_eq!(stayed.totals, before.servers[0].totals);
    assert_eq!(stayed.totals.connected, 5);
    assert_eq!(
        stayed.since_ms.is_some(),
        before.servers[0].since_ms.is_some()
    );
    // One that is new is no server that comes back: no slowstart.
    assert_eq!(of(backends[2].addr).ramp_ms, None);
    assert_eq!(after.servers.len(), 2);
    for _ in 0..10 {
        assert_eq!(greeted(lab.addr).0, 2);
    }
    lab.farm.set_admin(0, AdminState::Ready, clock::now());
    let mut got = [0; 3];
    for _ in 0..8 {
        got[usize::from(greeted(lab.addr).0)] += 1;
    }
    assert!(got[0] >= 1 && got[1] == 0, "{got:?}");
}

#[test]
fn a_server_that_an_operator_added_becomes_the_files_when_the_file_names_it() {
    let backends = [Backend::echo(0), Backend::echo(1)];
    let lab = Lab::start(proxy(vec![server(backends[0].addr)]), 1);
    let place = lab.farm.add(&server(backends[1].addr), Origin::Operator);
    let place = place.unwrap();
    lab.farm.set_up(place, true, clock::now());
    for _ in 0..6 {
        greeted(lab.addr);
    }
    lab.settle();
    let id = lab.farm.member(place).unwrap().id;
    reload(&lab, |p| p.servers.push(weighted(backends[1].addr, 2)));
    let member = lab.farm.member(place).unwrap();
    assert_eq!((member.id, member.origin), (id, Origin::File));
    let stats = lab.stats();
    let own = stats.servers.iter().find(|s| s.place == place).unwrap();
    assert_eq!((own.weight, own.totals.connected), (2, 3));
    // And goes with the file.
    reload(&lab, |p| p.servers.truncate(1));
    assert_eq!(lab.stats().servers.len(), 1);
    for _ in 0..4 {
        assert_eq!(greeted(lab.addr).0, 0);
    }
}

#[test]
fn the_last_server_that_serves_stays_until_another_one_is_ready() {
    let backends = [Backend::echo(0), Backend::echo(1)];
    let lab = Lab::start(proxy(vec![server(backends[0].addr)]), 1);
    let mut config = Proxy::clone(&lab.farm.config());
    config.servers = vec![server(backends[1].addr)];
    lab.farm.set_config(&Arc::new(config.clone()));
    let done = lab.farm.reconcile_file(&config.servers);
    assert_eq!(done.held, [backends[0].addr.to_string()]);
    assert_eq!(greeted(lab.addr).0, 0);
    lab.farm.set_up(1, true, clock::now());
    let done = lab.farm.reconcile_file(&config.servers);
    assert_eq!(done.removed, [backends[0].addr.to_string()]);
    assert!(done.is_settled());
    assert_eq!(greeted(lab.addr).0, 1);
}

#[test]
fn a_limit_that_rises_lets_those_in_who_wait_and_one_that_falls_ends_nobody() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let mut narrow = proxy(vec![server(backend.addr)]);
        narrow.max_connections = NonZeroU32::new(1);
        let lab = Lab::start(narrow, workers);
        let (_, mut inside) = greeted(lab.addr);
        let mut waiting = lab.connect();
        waiting.write_all(b"y").unwrap();
        wait_until("it is turned away", || lab.stats().totals.limit_reached > 0);
        assert_eq!(backend.total.load(Ordering::SeqCst), 1);
        reload(&lab, |p| p.max_connections = NonZeroU32::new(3));
        waiting.read_exact(&mut [0; 2]).unwrap();
        reload(&lab, |p| p.max_connections = NonZeroU32::new(1));
        assert_eq!(lab.stats().connections, 2);
        goes_on(&mut inside);
        goes_on(&mut waiting);
        let mut third = lab.connect();
        third.write_all(b"z").unwrap();
        drop(inside);
        wait_until("one has left", || lab.stats().connections == 1);
        assert_eq!(backend.total.load(Ordering::SeqCst), 2);
        drop(waiting);
        third.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(backend.total.load(Ordering::SeqCst), 3);
    }
}

#[test]
fn whoever_waits_is_served_when_the_servers_limit_rises_and_stays_when_fewer_may_wait() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let mut config = proxy(vec![limited(backend.addr, 1)]);
        config.max_queue = MaxQueue::Total(8);
        let lab = Lab::start(config, workers);
        let (_, mut first) = greeted(lab.addr);
        let mut waiting: Vec<TcpStream> = (0..3).map(|_| lab.connect()).collect();
        for client in &mut waiting {
            client.write_all(b"y").unwrap();
        }
        wait_until("they wait", || lab.stats().queue == 3);
        reload(&lab, |p| p.max_queue = MaxQueue::Total(1));
        assert_eq!(lab.stats().queue, 3);
        // There is no room for a fourth any more.
        assert!(is_reset(&mut lab.connect()));
        reload(&lab, |p| p.servers = vec![limited(backend.addr, 4)]);
        for client in &mut waiting {
            client.read_exact(&mut [0; 2]).unwrap();
        }
        goes_on(&mut first);
        assert_eq!(lab.stats().servers[0].connections, 4);
        assert_eq!(lab.stats().servers[0].connections_limit, Some(4));
    }
}

#[test]
fn another_strategy_holds_from_the_next_connection_on() {
    for workers in [1, 2] {
        let backends = [Backend::echo(0), Backend::echo(1)];
        let servers = backends.iter().map(|b| server(b.addr)).collect();
        let lab = Lab::start(proxy(servers), workers);
        let count = |n: usize| -> [usize; 2] {
            let mut got = [0; 2];
            for _ in 0..n {
                got[usize::from(greeted(lab.addr).0)] += 1;
            }
            got
        };
        assert_eq!(count(10), [5, 5]);
        reload(&lab, |p| p.balance = Balance::First);
        assert_eq!(count(10), [10, 0]);
        reload(&lab, |p| p.balance = Balance::SourceHash);
        // One client, one server, once the workers tell who it is.
        wait_until("one has all", || count(10).contains(&10));
        reload(&lab, |p| p.balance = Balance::RoundRobin);
        assert_eq!(count(10), [5, 5]);
    }
}

#[test]
fn a_listener_that_comes_serves_and_one_that_goes_refuses() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let (_, mut old) = greeted(lab.addr);
        let farms = || vec![(0, Arc::clone(&lab.farm))];
        let (group, second) = listener(&lab, (0, 1), &lab.farm.config());
        let mut groups = lab.engine.groups();
        groups.push(group.clone());
        commit(&lab, farms(), groups);
        let (_, mut new) = greeted(second);
        assert_eq!(lab.engine.listeners()[0].len(), 2);
        commit(&lab, farms(), vec![group]);
        wait_until("the first refuses", || refuses(lab.addr));
        goes_on(&mut old);
        goes_on(&mut new);
        for _ in 0..20 {
            greeted(second);
        }
        assert!(refuses(lab.addr));
    }
}

#[test]
fn a_listener_that_goes_to_another_proxy_loses_nobody_on_the_way() {
    let backends = [Backend::echo(0), Backend::echo(1)];
    let lab = Lab::start(proxy(vec![server(backends[0].addr)]), 2);
    let mut other = proxy(vec![server(backends[1].addr)]);
    other.name = "other".into();
    let second = Arc::new(Farm::new(&other));
    second.set_up(0, true, clock::now());
    lab.engine.attach(1, &second).unwrap();
    let (_, mut old) = greeted(lab.addr);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (stop, asked, addr) = (Arc::clone(&stop), Arc::clone(&asked), lab.addr);
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    greeted(addr);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let some_more = || {
        let target = asked.load(Ordering::SeqCst) + 50;
        wait_until("traffic", || asked.load(Ordering::SeqCst) >= target);
    };
    some_more();
    let mut groups = lab.engine.groups();
    groups[0].proxy = 1;
    commit(&lab, vec![(1, Arc::clone(&second))], groups);
    wait_until("the other has it", || greeted(lab.addr).0 == 1);
    some_more();
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    goes_on(&mut old);
    assert!(second.stats(clock::now()).totals.accepted >= 50);
    wait_until("only the old one is left", || lab.stats().connections == 1);
}

#[test]
fn a_proxy_that_goes_keeps_its_connections_until_they_are_ended_and_its_counters_for_good() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let (_, mut old) = greeted(lab.addr);
        let accepted = lab.stats().totals.accepted;
        commit(&lab, Vec::new(), Vec::new());
        wait_until("it refuses", || refuses(lab.addr));
        goes_on(&mut old);
        let (group, addr) = listener(&lab, (0, 0), &lab.farm.config());
        commit(&lab, vec![(0, Arc::clone(&lab.farm))], vec![group]);
        greeted(addr);
        assert!(lab.stats().totals.accepted > accepted);
        goes_on(&mut old);
        lab.engine.end_proxy(0);
        assert!(is_reset(&mut old));
        lab.settle();
    }
}

#[test]
fn clients_that_a_new_rule_denies_are_refused_and_those_inside_stay() {
    let backend = Backend::echo(1);
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 2);
    let (_, mut inside) = greeted(lab.addr);
    let deny = Guard {
        deny: vec![Network::new("127.0.0.0".parse().unwrap(), 8).unwrap()],
        ..Guard::default()
    };
    reload(&lab, |p| p.guard = deny);
    wait_until("newcomers are refused", || is_reset_at_once(&lab));
    goes_on(&mut inside);
    reload(&lab, |p| p.guard = Guard::default());
    wait_until("newcomers are served", || !is_reset_at_once(&lab));
    goes_on(&mut inside);
}

fn is_reset_at_once(lab: &Lab) -> bool {
    let mut client = lab.connect();
    if client.write_all(b"x").is_err() {
        return true;
    }
    client.read_exact(&mut [0; 2]).is_err()
}

#[test]
fn what_a_source_has_is_counted_from_when_the_file_asks_for_it_and_never_twice() {
    let backend = Backend::echo(1);
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 1);
    let (_, mut before) = greeted(lab.addr);
    let most = |count| Guard {
        per_source: Some(PerSource {
            max_connections: NonZeroU32::new(count),
            ..PerSource::default()
        }),
        ..Guard::default()
    };
    reload(&lab, |p| p.guard = most(1));
    let connected = || lab.stats().sources.map(|sources| sources.connected);
    wait_until("it is counted", || {
        let client = greeted(lab.addr).1;
        connected() == Some(1) && is_reset(&mut lab.connect()) && client.peer_addr().is_ok()
    });
    wait_until("they have left", || connected() == Some(0));
    let (_, mut counted) = greeted(lab.addr);
    reload(&lab, |p| p.guard = most(2));
    wait_until("two may", || {
        let mut client = lab.connect();
        client.write_all(b"x").unwrap_or_default();
        client.read_exact(&mut [0; 2]).is_ok()
    });
    // Off: those that were counted are not counted twice when they leave.
    reload(&lab, |p| p.guard = Guard::default());
    assert_eq!(connected(), None);
    goes_on(&mut before);
    goes_on(&mut counted);
    drop((before, counted));
    lab.settle();
    reload(&lab, |p| p.guard = most(1));
    assert_eq!(connected(), Some(0));
}

#[test]
fn records_are_written_while_the_access_log_is_on() {
    let backend = Backend::echo(1);
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 1);
    let shape = |access| Shape {
        farms: Vec::new(),
        groups: lab.engine.groups(),
        max_connections: 7,
        access,
    };
    assert_eq!(ask(lab.connect(), b"one"), b"\x01one");
    assert_eq!(lab.record().bytes_in, 3);
    lab.engine.commit(shape(None));
    lab.settle();
    assert_eq!(ask(lab.connect(), b"silent"), b"\x01silent");
    lab.settle();
    lab.engine.commit(shape(Some(lab.sink.clone())));
    assert_eq!(ask(lab.connect(), b"three"), b"\x01three");
    assert_eq!(lab.record().bytes_in, 5);
    assert_eq!(lab.engine.connections_limit(), 7);
}

#[test]
fn twenty_reloads_under_load_cost_no_connection_and_no_stream() {
    let backends = [Backend::echo(0), Backend::echo(1), Backend::echo(2)];
    let servers = || -> Vec<_> { backends.iter().map(|b| server(b.addr)).collect() };
    let mut config = proxy(servers());
    config.client_first = true;
    config.first_byte_timeout = Some(PATIENCE);
    let lab = Arc::new(Lab::start(config, 2));
    let mut streams: Vec<TcpStream> = (0..50).map(|_| greeted(lab.addr).1).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (lab, stop, asked) = (Arc::clone(&lab), Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let answer = ask(lab.connect(), b"hello");
                    assert_eq!(answer[1..], *b"hello");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let target = asked.load(Ordering::SeqCst) + 15;
        wait_until("traffic", || {
            asked.load(Ordering::SeqCst) >= target
                || clients.iter().any(thread::JoinHandle::is_finished)
        });
        reload(&lab, |p| {
            let mut all = servers();
            all.remove(round % 3);
            p.servers = if round % 2 == 0 { all } else { servers() };
            p.balance = match round % 3 {
                0 => Balance::LeastConnections,
                1 => Balance::RoundRobin,
                _ => Balance::Random,
            };
            p.keepalive = (round % 2 == 0).then_some(Duration::from_secs(9));
            p.user_timeout = (round % 4 != 0).then_some(Duration::from_secs(7));
            p.retries = u8::try_from(round % 4).unwrap();
            p.idle_timeout = Duration::from_secs(1000 + u64::try_from(round).unwrap());
            p.max_connections = NonZeroU32::new(500 + u32::try_from(round).unwrap());
            p.max_age = (round % 5 == 0).then_some(Duration::from_secs(3600));
        });
        for stream in &mut streams {
            goes_on(stream);
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    assert!(asked.load(Ordering::SeqCst) >= 300);
    let totals = lab.stats().totals;
    assert_eq!((totals.no_server, totals.unreachable), (0, 0));
    drop(streams);
    wait_until("all have left", || lab.engine.connections() == 0);
}
