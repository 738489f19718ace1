//! All parts at once: servers that leave connects without an answer, verdicts and an operator that
//! change their minds, servers that come and go, limits, pace, backups, second connects, limits per
//! source, impatient clients, and a stop. The servers themselves count.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lbd::config::model::{Balance, MaxQueue, PerSource, Proxy, Server};
use lbd::health::fsm::Health;
use lbd::net::{clock, tcp};
use lbd::proxy::roster::Origin;
use lbd::proxy::server::AdminState;
use lbd::units::Weight;

use super::hedge_storms::{LIMIT, Moody, Seen, storm};
use super::lab::{Dice, Lab, PATIENCE, Pattern, limited, reset, wait_until};

/// Connects in a second to the server that has a pace.
const PACE: u32 = 40;
const PER_SOURCE: u32 = 4;
const CLIENTS: u64 = 32;
/// Each mixture lasts so long.
const LASTS: Duration = Duration::from_millis(1_200);

/// Two in trouble, one with a pace, one that stands by.
fn members(servers: &[Moody; 4]) -> Vec<Server> {
    let limit = u32::try_from(LIMIT).unwrap();
    let mut members: Vec<Server> = servers.iter().map(|s| limited(s.addr, limit)).collect();
    members[2].connects_per_second = NonZeroU32::new(PACE);
    members[3].backup = true;
    members
}

fn mixture(servers: &[Moody; 4], dice: &mut Dice) -> Proxy {
    let ways = [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::Random,
        Balance::SourceHash,
        Balance::First,
    ];
    let mut config = Proxy {
        balance: ways[dice.below(ways.len())],
        max_queue: MaxQueue::Total(12),
        queue_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(400),
        slowstart: Duration::from_millis(dice.below(2) as u64 * 400),
        max_ejected: 50,
        ..storm(members(servers))
    };
    config.guard.per_source = Some(PerSource {
        max_connections: NonZeroU32::new(PER_SOURCE),
        ..PerSource::default()
    });
    config
}

/// `true`: it was served, and right. Nobody waits for ever, and nobody hears what is not for him.
fn client(addr: SocketAddr, id: u64, dice: &mut Dice) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let own = [127, 0, 0, 11 + u8::try_from(id % 8).unwrap()];
    socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
    if socket.connect(&addr.into()).is_err() {
        return false;
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bytes = Pattern::bytes(id, 1 + dice.below(3000));
    let port = stream.local_addr().unwrap().port().to_le_bytes();
    if dice.below(6) == 0 {
        thread::sleep(Duration::from_millis(dice.below(40) as u64));
        reset(stream);
        return false;
    }
    let words = [&id.to_le_bytes()[..], &port[..], &bytes[..]].concat();
    if stream.write_all(&words).is_err() {
        return false;
    }
    if dice.below(6) == 0 {
        thread::sleep(Duration::from_millis(dice.below(40) as u64));
        reset(stream);
        return false;
    }
    let mut answer = vec![0; bytes.len()];
    if let Err(error) = stream.read_exact(&mut answer) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "stuck");
        return false;
    }
    assert!(answer == bytes, "client {id}");
    thread::sleep(Duration::from_millis(dice.below(20) as u64));
    let _gone = stream.shutdown(Shutdown::Write);
    !matches!(stream.read(&mut [0]), Ok(1))
}

/// One turn of fate.
fn trouble(lab: &Lab, servers: &[Moody; 4], members: &[Server], dice: &mut Dice) {
    let which = dice.below(2);
    let any = dice.below(4);
    let now = clock::now();
    let place = |at: usize| lab.farm.roster().place(&members[at].name);
    let verdicts = [Health::Ready, Health::NotReady, Health::Unresponsive];
    let states = [AdminState::Ready, AdminState::Drain, AdminState::Maint];
    match (dice.below(10), place(which), place(any)) {
        (0, ..) => servers[which].sulk(),
        (1 | 2, ..) => servers[which].cheer_up(),
        (3, Some(place), _) => lab.farm.set_health(place, verdicts[dice.below(3)], now),
        (4, Some(place), _) => lab.farm.set_admin(place, states[dice.below(3)], now),
        (5, _, Some(place)) => {
            let weight = [0, 1, 256][dice.below(3)];
            let weight = Weight::try_from(weight).ok().filter(|_| dice.below(2) == 0);
            lab.farm.set_weight(place, weight);
        }
        (6, Some(place), _) => assert!(lab.farm.remove(place)),
        (7, _, Some(place)) => lab.farm.suspect(place),
        (_, None, _) => {
            let place = lab.farm.add(&members[which], Origin::Operator).unwrap();
            lab.farm.set_up(place, true, now);
        }
        (_, Some(place), _) => {
            lab.farm.set_admin(place, AdminState::Ready, now);
            lab.farm.set_up(place, true, now);
        }
    }
    for at in 0..4 {
        let answers = at > 1 || dice.below(2) == 0;
        if let Some(place) = place(at).filter(|_| answers) {
            lab.farm.passed_check(place, now);
        }
    }
    lab.farm.tick(now);
    lab.farm.watch(now);
    let stats = lab.stats();
    let top = stats.sources.unwrap().top;
    assert!(top.iter().all(|talker| talker.connections <= PER_SOURCE));
    assert!(stats.queue <= 12 + usize::try_from(CLIENTS).unwrap());
    thread::sleep(Duration::from_millis(dice.below(12) as u64));
}

#[test]
fn nothing_leaks_no_limit_is_exceeded_and_nobody_is_forgotten_in_a_mixture_of_everything() {
    for seed in 0..6 {
        let workers = 1 + usize::try_from(seed % 2).unwrap();
        let mut dice = Dice::new(700 + seed);
        let seen = Seen::default();
        let servers = [0, 1, 2, 3].map(|_| Moody::start(&seen));
        let config = mixture(&servers, &mut dice);
        let balance = config.balance;
        let members = config.servers.clone();
        let began = clock::now();
        let lab = Arc::new(Lab::start(config, workers));
        let (over, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::<AtomicUsize>::default(),
        );
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (addr, over, served) = (lab.addr, Arc::clone(&over), Arc::clone(&served));
                thread::spawn(move || {
                    let mut dice = Dice::new(number);
                    for round in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        let id = number + round * CLIENTS;
                        let right = usize::from(client(addr, id, &mut dice));
                        served.fetch_add(right, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(1));
                    }
                })
            })
            .collect();
        // On a busy machine until enough have got through it.
        let enough = || served.load(Ordering::Relaxed) > 20;
        let over_by = |time| clock::now() - began >= time;
        while !over_by(LASTS) || !(enough() || over_by(PATIENCE)) {
            trouble(&lab, &servers, &members, &mut dice);
        }
        let elapsed = clock::now() - began;
        let connects = servers[2].total.load(Ordering::Relaxed);
        over.store(true, Ordering::Relaxed);
        let stops = dice.below(2) == 0;
        if stops {
            lab.engine.stop(Duration::from_millis(20));
        }
        for server in &servers {
            server.cheer_up();
        }
        wait_until("no client is left waiting", || {
            // Those in the backlog when it stopped wait for the next process.
            for listener in lab.engine.listeners().iter().flatten().flatten() {
                while stops && let Ok((client, _)) = tcp::accept(listener) {
                    tcp::reset_on_close(&client).unwrap();
                }
            }
            clients.iter().all(thread::JoinHandle::is_finished)
        });
        for client in clients {
            client.join().unwrap();
        }
        lab.settle();
        let stats = lab.stats();
        let told = format!("seed {seed}, {balance:?}, {stats:?}");
        assert!(stats.leaving.is_empty(), "{told}");
        assert_eq!(stats.sources.as_ref().unwrap().connected, 0, "{told}");
        for server in &servers {
            assert!(server.most.load(Ordering::Relaxed) <= LIMIT, "{told}");
        }
        let paced = f64::from(PACE) * elapsed.as_secs_f64() + 2.0;
        assert!((connects as f64) < paced, "{connects} of {paced}: {told}");
        assert!(enough(), "{told}");
        assert!(seen.lock().unwrap().values().all(|count| *count == 1));
    }
}
