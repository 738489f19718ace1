//! The way of an advert, in and out, takes no memory from the allocator: nor do timers, renewals of
//! the address, what the kernel says of them, announcements and the watch over the LAN. Two nodes
//! on real sockets, under an allocator that counts. Needs root; says so when it skips.
#![expect(
    unsafe_code,
    clippy::unwrap_used,
    reason = "an allocator is unsafe by its contract; helpers of a test may stop it"
)]

#[path = "lab/routers.rs"]
mod routers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use lbd::daemon::judge::recorded::RecordedJudge;
use lbd::daemon::judge::{Judge, Look, Seen};
use lbd::daemon::supervise::Standing;
use lbd::net::clock::now;
use lbd::peer::oneway::{self, Word};
use lbd::peer::recorded::RecordedOneWay;
use lbd::track::verdict::Found;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use routers::{Host, Inside, elect, is_possible, lan, secs};

thread_local! {
    /// Allocations of this thread since it began to count; `None`: not counting.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
    /// Where the first of them was made.
    static FIRST: RefCell<Option<Backtrace>> = const { RefCell::new(None) };
}

/// So long at a time, and so many of them.
const SPAN: Duration = Duration::from_millis(250);
const SPANS: u32 = 44;
/// The longest that these may take together.
const PATIENCE: Duration = Duration::from_secs(60);

struct Counting;

fn count() {
    let Some(so_far) = COUNT.with(Cell::take) else {
        return;
    };
    // What this takes is not counted.
    if so_far == 0 {
        FIRST.with(|first| first.replace(Some(Backtrace::force_capture())));
    }
    COUNT.with(|count| count.set(Some(so_far + 1)));
}

// SAFETY: every call is handed on to the system's allocator as it came; counting touches a
// thread-local cell that needs no memory and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and `place` came from `System`.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract, and `place` came from `System`.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PAIR: &str = r#"
[vip.kube]
address = ["10.1.0.100/24", "10.1.0.101/24"]
nodes = [{ name = "a", address = "10.1.0.2" }, { name = "b", address = "10.1.0.3" }]
advert-interval = "10ms"
garp = { refresh = "200ms" }
"#;

/// A keeper's loop around one router, without memory of its own; answers whether nothing happened:
/// a machine that withheld the processor from one side for three intervals lets the VIP change hands,
/// and that is no advert's way.
fn run(inside: &mut Inside, span: Duration) -> bool {
    let (routers, links) = inside.parts();
    let router = routers.first_mut().unwrap();
    let end = now() + span;
    let mut quiet = true;
    loop {
        let at = now();
        if at >= end {
            return quiet;
        }
        let due = router.deadline().map_or(end, |due| due.min(end));
        let wait = due.saturating_duration_since(at);
        let advert = router.fds().next().unwrap().as_raw_fd();
        let ready = {
            let adverts = router.fds().next().unwrap();
            let mut fds = [
                PollFd::new(adverts, PollFlags::POLLIN),
                PollFd::new(links.as_fd(), PollFlags::POLLIN),
            ];
            let ms = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap();
            poll(&mut fds, PollTimeout::from(ms)).unwrap();
            fds.map(|fd| fd.any().unwrap_or(false))
        };
        let at = now();
        if ready[0] {
            router.on_readable(advert, at);
        }
        if ready[1] {
            while links.read(|event| router.on_link(at, &event)).unwrap() {}
        }
        if router.deadline().is_some_and(|due| due <= at) {
            router.on_deadline(at);
        }
        while router.pop_event().is_some() {
            quiet = false;
        }
    }
}

/// What a host's thread did in the spans in which nothing happened.
#[derive(Debug, Default)]
struct Counted {
    spans: u32,
    sent: u64,
    received: u64,
    garps: u64,
    allocations: u64,
    first: Option<String>,
}

/// Runs a host's loop in spans until `SPANS` were quiet, and counts in these.
fn counted(host: &Host) -> Receiver<Counted> {
    host.begin(move |inside| {
        let end = now() + PATIENCE;
        let mut counted = Counted::default();
        run(inside, secs(1.0));
        while counted.spans < SPANS && now() < end {
            let before = inside.status().remove(0).counters;
            COUNT.with(|count| count.set(Some(0)));
            let quiet = run(inside, SPAN);
            let allocations = COUNT.with(|count| count.replace(None)).unwrap();
            let first = FIRST.with(RefCell::take);
            if !quiet {
                continue;
            }
            let after = inside.status().remove(0).counters;
            counted.spans += 1;
            counted.sent += after.adverts_sent - before.adverts_sent;
            counted.received += after.adverts_received - before.adverts_received;
            counted.garps += after.garps_sent - before.garps_sent;
            counted.allocations += allocations;
            let first = first.map(|first| first.to_string());
            counted.first = counted.first.or(first);
        }
        counted
    })
}

#[test]
fn a_thousand_adverts_with_renewals_and_announcements_take_no_memory_on_either_side() {
    if !is_possible() {
        return;
    }
    // The count itself works.
    COUNT.with(|count| count.set(Some(0)));
    let one = std::hint::black_box(Box::new(7));
    assert_eq!(COUNT.with(|count| count.replace(None)), Some(1));
    drop(one);

    let ([a, b], _wire) = lan([("a", "10.1.0.2"), ("b", "10.1.0.3")]);
    a.reach("10.1.0.3");
    elect(PAIR, &a, &b);
    let both = [counted(&a), counted(&b)];
    let [a, b] = both.map(|answer| answer.recv().unwrap());
    println!("{a:?}\n{b:?}");
    assert_eq!((a.spans, b.spans), (SPANS, SPANS), "spans of quiet");
    assert!(a.sent >= 1_000 && b.received >= 1_000 && a.garps >= 50);
    for side in [a, b] {
        assert_eq!(side.allocations, 0, "first {}", side.first.unwrap());
    }
}

/// The keeper's loop asks its judges at every turn, so at every advert.
#[test]
fn a_judge_with_its_tape_takes_no_memory_whatever_it_is_told() {
    let text = "[vip.a]\naddress = \"172.16.0.10/24\"\n\
                nodes = [\"172.16.0.2\", \"172.16.0.3\"]\nper-server-weight = 2\n\
                track = [\"proxy:p\", \"script:s:-20\"]\n\
                [track.script.s]\ncommand = [\"/bin/true\"]\n\
                [proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"172.16.0.4:6443\"]\n";
    let vip = lbd::config::load(text).unwrap().vips.remove(0);
    let judge = Judge::new(&vip, |at| format!("track {at}"), secs(2.0));
    let base = now();
    let mut judge = RecordedJudge::new(judge, None, base);
    let mut one = RecordedOneWay::new(base);
    COUNT.with(|count| count.set(Some(0)));
    let mut changes = 0;
    // Several times around the ring.
    for round in 0..20_000_u32 {
        let at = base + Duration::from_millis(100) * round;
        let tracks = [
            Seen::Proxy {
                usable: Some(u16::try_from(round % 4).unwrap()),
                epoch: u64::from(round / 3),
            },
            Seen::Result(Some(Found::Ok(round % 50 < 40))),
        ];
        let look = Look {
            proxy: Standing::Fine,
            holds: round % 100 < 50,
            tracks: &tracks,
        };
        changes += u32::from(judge.look(at, &look).can_serve);
        let word = Word {
            silence: Duration::from_millis(u64::from(round % 400)),
            heard: Some(at),
        };
        let look = oneway::Look {
            active: round % 700 < 600,
            interval: Duration::from_millis(100),
            word: (round % 9 > 0).then_some(word),
        };
        changes += u32::from(one.judge(at, &look).is_some());
    }
    let allocations = COUNT.with(|count| count.replace(None)).unwrap();
    assert!(changes > 10_000, "{changes}");
    assert_eq!(allocations, 0);
}
