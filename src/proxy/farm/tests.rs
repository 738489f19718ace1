//! Many threads on one farm: limits, order and shares hold whatever the threads do to each other.

use std::net::IpAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::config::model::{Balance, MaxQueue};
use crate::net::clock;
use crate::proxy::balance::Key;
use crate::proxy::dispatch::slots::{Door, Take};
use crate::proxy::dispatch::tests::{proxy, server};

const THREADS: u16 = 4;
/// Every wait ends after this long, and the test with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// All servers up, and a mailbox for each thread.
fn farm(servers: Vec<model::Server>, max_queue: u32) -> (Farm, Vec<Arc<Mailbox>>) {
    farm_that(Balance::RoundRobin, servers, max_queue)
}

fn farm_that(
    balance: Balance,
    servers: Vec<model::Server>,
    max_queue: u32,
) -> (Farm, Vec<Arc<Mailbox>>) {
    let count = servers.len();
    let mut config = proxy(servers, MaxQueue::Total(max_queue));
    config.balance = balance;
    let farm = Farm::new(&config);
    for server in 0..count {
        farm.set_up(server, true, clock::now());
    }
    let mailboxes: Vec<_> = (0..THREADS)
        .map(|_| Arc::new(Mailbox::new().unwrap()))
        .collect();
    assert!(farm.attach(0, &mailboxes));
    (farm, mailboxes)
}

fn together(work: impl Fn(u16) + Sync) {
    let start = Barrier::new(usize::from(THREADS));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(thread);
            });
        }
    });
}

fn ticket(worker: u16, slot: u32) -> Ticket {
    Ticket {
        worker,
        slot,
        serial: 0,
    }
}

#[test]
fn shares_over_whole_turns_are_exact_with_four_threads() {
    for (weights, turn) in [
        (vec![1, 1, 1], 3),
        (vec![3, 5, 256], 264),
        (vec![0, 100, 40], 7),
    ] {
        let servers = weights.iter().map(|w| server(*w, 0)).collect();
        let (farm, _mailboxes) = farm(servers, 0);
        let taken: Vec<_> = weights.iter().map(|_| AtomicU32::new(0)).collect();
        // Together whole turns; no thread by itself.
        let turns = 4 * 301;
        let each = turns * turn / u32::from(THREADS);
        assert_eq!(each * u32::from(THREADS), turns * turn);
        together(|thread| {
            for slot in 0..each {
                let Admission::Server(server) = farm.admit(
                    ticket(thread, slot),
                    Tried::default(),
                    Turn::First,
                    Key::NONE,
                ) else {
                    panic!("refused");
                };
                taken[server].fetch_add(1, Ordering::Relaxed);
                if slot % 3 == 0 {
                    farm.release(server);
                }
            }
        });
        let total: i64 = weights.iter().sum();
        for (weight, taken) in weights.iter().zip(&taken) {
            let expected = i64::from(turns * turn) * weight / total;
            assert_eq!(i64::from(taken.load(Ordering::Relaxed)), expected);
        }
    }
}

#[test]
fn shares_among_servers_with_room_are_exact_while_another_is_full() {
    let (farm, _mailboxes) = farm(vec![server(7, 5), server(1, 0), server(2, 0)], 0);
    let full = || (0..5).all(|_| farm.board.slots(0).unwrap().take(Door::Front) == Take::Taken);
    assert!(full());
    let taken = [0; 3].map(AtomicU32::new);
    together(|thread| {
        for slot in 0..3_000 {
            let Admission::Server(server) = farm.admit(
                ticket(thread, slot),
                Tried::default(),
                Turn::First,
                Key::NONE,
            ) else {
                panic!("refused");
            };
            taken[server].fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(taken.map(AtomicU32::into_inner), [0, 4_000, 8_000]);
}

/// What the clients of [`storm`] did and saw.
struct Storm<'a> {
    farm: &'a Farm,
    mailboxes: &'a [Arc<Mailbox>],
    limits: &'a [u32],
    present: Vec<AtomicU32>,
    served: AtomicUsize,
    queued: AtomicUsize,
    left: AtomicUsize,
}

impl Storm<'_> {
    fn enter(&self, server: usize) {
        let present = self.present[server].fetch_add(1, Ordering::SeqCst) + 1;
        assert!(present <= self.limits[server], "server {server}: {present}");
    }

    fn leave(&self, server: usize) {
        self.present[server].fetch_sub(1, Ordering::SeqCst);
        self.farm.release(server);
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// One worker with `clients` clients, `at_once` of them present; now and then one that waits
    /// loses its patience. Ends when all of its clients were served or have left.
    fn work(&self, worker: u16, clients: u32, at_once: usize) {
        let deadline = clock::now() + PATIENCE;
        let (mut held, mut waiting) = (Vec::new(), Vec::new());
        let (mut next, mut mail) = (0, Vec::new());
        while next < clients || !held.is_empty() || !waiting.is_empty() {
            assert!(clock::now() < deadline, "{} wait for ever", waiting.len());
            if next < clients && held.len() + waiting.len() < at_once {
                let ticket = ticket(worker, next);
                next += 1;
                let key = Key::of(IpAddr::from(next.to_be_bytes()));
                match self.farm.admit(ticket, Tried::default(), Turn::First, key) {
                    Admission::Server(server) => {
                        self.enter(server);
                        held.push(server);
                    }
                    Admission::Queued(_) => {
                        self.queued.fetch_add(1, Ordering::Relaxed);
                        waiting.push(ticket);
                    }
                    Admission::NoServer | Admission::QueueFull | Admission::NotInTime => {
                        panic!("refused")
                    }
                }
            }
            self.mailboxes[usize::from(worker)].take(&mut mail);
            for message in mail.drain(..) {
                let Message::Notice {
                    notice: Notice::Granted(ticket, server),
                    ..
                } = message
                else {
                    panic!("{message:?}");
                };
                self.enter(server);
                match waiting.iter().position(|w| *w == ticket) {
                    Some(place) => {
                        waiting.remove(place);
                        held.push(server);
                    }
                    None => self.leave(server),
                }
            }
            if next % 11 == 0 && !waiting.is_empty() {
                // Not there any more: its grant is under way.
                self.left.fetch_add(1, Ordering::Relaxed);
                if !self.farm.leave(waiting.pop().unwrap()) {
                    self.left.fetch_sub(1, Ordering::Relaxed);
                }
            }
            if (held.len() + waiting.len() >= at_once || next == clients)
                && let Some(server) = held.pop()
            {
                self.leave(server);
            } else {
                thread::yield_now();
            }
        }
    }
}

#[test]
fn limits_hold_and_nobody_is_forgotten_in_a_storm() {
    let limits = [1, 2, 3];
    let (clients, at_once) = (5_000, 6);
    for (balance, weights) in [
        (Balance::RoundRobin, [1, 1, 1]),
        (Balance::RoundRobin, [250, 251, 256]),
        (Balance::LeastConnections, [1, 2, 3]),
        (Balance::Random, [1, 2, 3]),
        (Balance::SourceHash, [1, 1, 1]),
        (Balance::First, [1, 1, 1]),
    ] {
        let servers = weights.iter().zip(limits);
        let servers = servers.map(|(w, max)| server(*w, max)).collect();
        let (farm, mailboxes) = farm_that(balance, servers, 1_000);
        let storm = Storm {
            farm: &farm,
            mailboxes: &mailboxes,
            limits: &limits,
            present: limits.iter().map(|_| AtomicU32::new(0)).collect(),
            served: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        };
        together(|worker| storm.work(worker, clients, at_once));
        // What was granted to those who had left lies in the mailboxes still.
        let (mut mail, mut late) = (Vec::new(), 0);
        for mailbox in &mailboxes {
            mailbox.take(&mut mail);
        }
        for message in mail {
            if let Message::Notice {
                notice: Notice::Granted(_, server),
                ..
            } = message
            {
                storm.enter(server);
                storm.leave(server);
                late += 1;
            }
        }
        let all = storm.served.into_inner() + storm.left.into_inner();
        assert_eq!(all, 4 * 5_000, "{late} late");
        assert!(
            storm.queued.into_inner() > 1_000,
            "too little waiting to mean anything"
        );
        let stats = farm.stats(clock::now());
        assert_eq!(stats.queue, 0);
        for (stats, limit) in stats.servers.iter().zip(limits) {
            assert_eq!((stats.connections, stats.connections_max), (0, limit));
        }
        // Whoever comes next needs no lock.
        assert!(farm.board.take(Key::NONE).is_some());
    }
}
