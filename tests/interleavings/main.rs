//! The dispatcher's shared state in every order that threads can bring it into, with every value
//! that the memory model lets them read: the product's own source files, with loom's atomics in
//! place of the processor's. Own main function: loom runs each model many times over.
#![expect(clippy::print_stdout, reason = "progress goes to standard output")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test, made of the product's files"
)]

mod proxy;

/// What the product's files name outside of `proxy`.
mod config {
    pub use lbd::config::model;
}
mod health {
    pub use lbd::health::fsm;
}
mod net {
    pub use lbd::net::clock;
}
mod units {
    pub use lbd::units::{Count, Weight};
}

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use loom::sync::Mutex;
use loom::thread;

use crate::config::model::{self, Balance, MaxQueue};
use crate::net::clock;
use crate::proxy::balance::Key;
use crate::proxy::dispatch::board::Board;
use crate::proxy::dispatch::{Admission, Dispatch, Notice, Turn};
use crate::proxy::gate::Gate;
use crate::proxy::queue::{Ticket, Tried};

fn main() {
    // Reading a file takes more stack than a thread of a model has.
    LazyLock::force(&PROXY);
    // Name, model, and so many times it may switch away from a thread that could go on: without a
    // bound three threads take minutes.
    let models: [(&str, fn(), usize); 10] = [
        (
            "a slot that comes free while somebody begins to wait reaches it",
            freed_while_queueing,
            4,
        ),
        (
            "of two who begin to wait one gets the slot",
            two_queue_while_one_leaves,
            1,
        ),
        (
            "a limit of one is never exceeded by two",
            limit_of_one_for_two,
            4,
        ),
        ("nor by three", limit_of_one_for_three, 1),
        (
            "a grant and a leaver agree on who has the slot",
            leaving_while_freed,
            4,
        ),
        (
            "nobody waits for servers that have gone",
            last_server_goes,
            2,
        ),
        ("three threads get each server once", one_turn_by_three, 2),
        (
            "two who look for the least loaded server at once get one each",
            least_loaded_by_two,
            3,
        ),
        (
            "whatever the strategy a slot that comes free reaches whoever waits",
            freed_under_each_strategy,
            2,
        ),
        (
            "whoever finds the gate full is told when it is not",
            gate,
            3,
        ),
    ];
    for (name, model, preemptions) in models {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
        println!("{name}: ok");
    }
}

/// A proxy with three servers.
static PROXY: LazyLock<model::Proxy> = LazyLock::new(|| {
    let file = r#"
        [proxy.p]
        listen = ":6443"
        backends = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    "#;
    lbd::config::load(file).unwrap().proxies.remove(0)
});

/// `src/proxy/farm/mod.rs`, as far as admission goes; news is kept rather than sent.
struct Farm {
    board: Arc<Board>,
    dispatch: Mutex<Dispatch>,
    news: Mutex<Vec<Notice>>,
}

impl Farm {
    /// Servers with these limits, all up.
    fn new(limits: &[u32], max_queue: u32) -> loom::sync::Arc<Self> {
        Self::that(Balance::RoundRobin, limits, max_queue)
    }

    fn that(balance: Balance, limits: &[u32], max_queue: u32) -> loom::sync::Arc<Self> {
        let mut proxy = PROXY.clone();
        proxy.balance = balance;
        proxy.max_queue = MaxQueue::Total(max_queue);
        proxy.servers.truncate(limits.len());
        for (server, limit) in proxy.servers.iter_mut().zip(limits) {
            server.max_connections = NonZeroU32::new(*limit);
        }
        let mut dispatch = Dispatch::new(&proxy);
        for server in 0..limits.len() {
            dispatch.set_up(server, true, clock::now());
        }
        loom::sync::Arc::new(Self {
            board: Arc::clone(dispatch.board()),
            dispatch: Mutex::new(dispatch),
            news: Mutex::new(Vec::new()),
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Dispatch) -> T) -> T {
        let mut dispatch = self.dispatch.lock().unwrap();
        let outcome = change(&mut dispatch);
        let notices = dispatch.take_notices();
        drop(dispatch);
        if !notices.is_empty() {
            self.news.lock().unwrap().extend(notices);
        }
        outcome
    }

    fn admit(&self, slot: u32) -> Admission {
        if let Some(server) = self.board.take(Key::NONE) {
            return Admission::Server(server);
        }
        self.change(|dispatch| {
            dispatch.admit(ticket(slot), Tried::default(), Turn::First, Key::NONE)
        })
    }

    fn release(&self, server: usize) {
        if self.board.give_back(server).wanted {
            self.change(Dispatch::pump);
        }
    }

    fn leave(&self, slot: u32) -> bool {
        self.change(|dispatch| dispatch.leave(ticket(slot)))
    }

    fn used(&self, server: usize) -> u32 {
        self.board.slots(server).unwrap().used()
    }

    fn news(&self) -> Vec<Notice> {
        std::mem::take(&mut self.news.lock().unwrap())
    }

    fn waiting(&self) -> usize {
        self.dispatch.lock().unwrap().queue().len()
    }
}

fn ticket(slot: u32) -> Ticket {
    Ticket {
        worker: 0,
        slot,
        serial: 0,
    }
}

fn spawn<T: 'static>(
    farm: &loom::sync::Arc<Farm>,
    work: impl FnOnce(&Farm) -> T + 'static,
) -> thread::JoinHandle<T> {
    let farm = loom::sync::Arc::clone(farm);
    thread::spawn(move || work(&farm))
}

fn freed_while_queueing() {
    let farm = Farm::new(&[1], 9);
    assert_eq!(farm.admit(1), Admission::Server(0));
    let leaver = spawn(&farm, |farm| farm.release(0));
    let admission = farm.admit(2);
    leaver.join().unwrap();
    match admission {
        Admission::Server(0) => assert_eq!(farm.news(), []),
        Admission::Queued(0) => assert_eq!(farm.news(), [Notice::Granted(ticket(2), 0)]),
        other => panic!("{other:?}"),
    }
    assert_eq!((farm.used(0), farm.waiting()), (1, 0));
    farm.release(0);
    // The way without the lock is open again.
    assert_eq!(farm.board.take(Key::NONE), Some(0));
}

fn two_queue_while_one_leaves() {
    let farm = Farm::new(&[1], 9);
    assert_eq!(farm.admit(1), Admission::Server(0));
    let leaver = spawn(&farm, |farm| farm.release(0));
    let other = spawn(&farm, |farm| farm.admit(2));
    let mine = farm.admit(3);
    leaver.join().unwrap();
    let admissions = [other.join().unwrap(), mine];
    let served = admissions.iter().filter(|a| **a == Admission::Server(0));
    assert_eq!(served.count() + farm.news().len(), 1, "{admissions:?}");
    assert_eq!((farm.used(0), farm.waiting()), (1, 1));
    farm.release(0);
    assert_eq!(farm.news().len(), 1);
    assert_eq!((farm.used(0), farm.waiting()), (1, 0));
}

fn limit_of_one_for_two() {
    limit_of_one(1);
}

fn limit_of_one_for_three() {
    limit_of_one(2);
}

fn limit_of_one(others: usize) {
    let farm = Farm::new(&[1], 0);
    let work = |farm: &Farm| match farm.admit(1) {
        Admission::Server(0) => {
            assert_eq!(farm.used(0), 1);
            farm.release(0);
            true
        }
        Admission::QueueFull | Admission::NotInTime => false,
        other => panic!("{other:?}"),
    };
    let others: Vec<_> = (0..others).map(|_| spawn(&farm, work)).collect();
    let mut served = u32::from(work(&farm));
    for other in others {
        served += u32::from(other.join().unwrap());
    }
    assert!(served >= 1);
    let slots = farm.board.slots(0).unwrap();
    assert_eq!((slots.used(), slots.most()), (0, 1));
}

fn leaving_while_freed() {
    let farm = Farm::new(&[1], 9);
    assert_eq!(farm.admit(1), Admission::Server(0));
    assert_eq!(farm.admit(2), Admission::Queued(0));
    let leaver = spawn(&farm, |farm| farm.release(0));
    let left = farm.leave(2);
    leaver.join().unwrap();
    let granted = farm.news() == [Notice::Granted(ticket(2), 0)];
    assert_ne!(left, granted);
    assert_eq!((farm.used(0), farm.waiting()), (u32::from(granted), 0));
    if granted {
        farm.release(0);
    }
    assert_eq!(farm.board.take(Key::NONE), Some(0));
}

fn last_server_goes() {
    let farm = Farm::new(&[1], 9);
    assert_eq!(farm.admit(1), Admission::Server(0));
    let leaver = spawn(&farm, |farm| farm.release(0));
    let verdict = spawn(&farm, |farm| {
        farm.change(|dispatch| dispatch.set_up(0, false, clock::now()));
    });
    let admission = farm.admit(2);
    leaver.join().unwrap();
    verdict.join().unwrap();
    let news = farm.news();
    let used = match (admission, news.as_slice()) {
        (Admission::Server(0), []) => 1,
        (Admission::Queued(0), [Notice::Granted(_, 0)]) => 1,
        (Admission::Queued(0), [Notice::NoServer(_)]) | (Admission::NoServer, []) => 0,
        other => panic!("{other:?}"),
    };
    assert_eq!((farm.used(0), farm.waiting()), (used, 0));
    assert_eq!(farm.admit(3), Admission::NoServer);
}

fn one_turn_by_three() {
    let farm = Farm::new(&[0, 0, 0], 0);
    let others = [
        spawn(&farm, |farm| farm.admit(1)),
        spawn(&farm, |farm| farm.admit(2)),
    ];
    assert!(matches!(farm.admit(3), Admission::Server(_)));
    for other in others {
        assert!(matches!(other.join().unwrap(), Admission::Server(_)));
    }
    assert_eq!([0, 1, 2].map(|server| farm.used(server)), [1, 1, 1]);
}

fn least_loaded_by_two() {
    let farm = Farm::that(Balance::LeastConnections, &[0, 0, 0], 0);
    for server in 0..3 {
        assert_eq!(farm.admit(1), Admission::Server(server));
    }
    farm.release(1);
    farm.release(2);
    // The first one's turn is server 0's, and the next in turn server 1; the second one's is 1's.
    let other = spawn(&farm, |farm| farm.admit(1));
    assert!(matches!(farm.admit(2), Admission::Server(_)));
    assert!(matches!(other.join().unwrap(), Admission::Server(_)));
    assert_eq!([0, 1, 2].map(|server| farm.used(server)), [1, 1, 1]);
}

fn freed_under_each_strategy() {
    for balance in [
        Balance::LeastConnections,
        Balance::Random,
        Balance::SourceHash,
        Balance::First,
    ] {
        let farm = Farm::that(balance, &[1, 1], 9);
        let full = [farm.admit(1), farm.admit(2)];
        assert!(full.contains(&Admission::Server(0)) && full.contains(&Admission::Server(1)));
        let leaver = spawn(&farm, |farm| farm.release(1));
        let admission = farm.admit(3);
        leaver.join().unwrap();
        match admission {
            Admission::Server(1) => assert_eq!(farm.news(), []),
            Admission::Queued(0) => assert_eq!(farm.news(), [Notice::Granted(ticket(3), 1)]),
            other => panic!("{other:?}"),
        }
        assert_eq!((farm.used(0), farm.used(1), farm.waiting()), (1, 1, 0));
    }
}

fn gate() {
    let gate = loom::sync::Arc::new(Gate::new(1));
    assert!(gate.enter());
    let spawn = |work: fn(&Gate) -> bool| {
        let gate = loom::sync::Arc::clone(&gate);
        thread::spawn(move || work(&gate))
    };
    let leaver = spawn(Gate::leave);
    let other = spawn(Gate::enter);
    let entered = gate.enter();
    let told = leaver.join().unwrap();
    let other_entered = other.join().unwrap();
    assert!(!(entered && other_entered));
    let inside = u32::from(entered || other_entered);
    assert_eq!((gate.inside(), gate.most()), (inside, 1));
    // Whoever was turned away is told now, or by the next to leave.
    assert!(told || inside == 1 && gate.leave());
}
