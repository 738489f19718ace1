//! The way of an advert, in and out, takes no memory from the allocator: nor do timers, renewals of
//! the address, what the kernel says of them, announcements and the watch over the LAN. Two nodes
//! on real sockets, under an allocator that counts. Needs root; says so when it skips.
#![expect(
    unsafe_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an allocator is unsafe by its contract; a test says what it counted"
)]

#[path = "lab/routers.rs"]
mod routers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use lbd::ipc::message::VrrpState;
use lbd::net::clock::now;
use lbd::net::netns::wire::Wire;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use routers::{Host, Inside, is_possible, secs, within};

thread_local! {
    /// Allocations of this thread since it began to count; `None`: not counting.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    COUNT.with(|count| count.set(count.get().map(|so_far| so_far + 1)));
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

/// A keeper's loop around one router, without memory of its own.
fn run(inside: &mut Inside, span: Duration) {
    let (routers, links) = inside.parts();
    let router = routers.first_mut().unwrap();
    let end = now() + span;
    loop {
        let at = now();
        if at >= end {
            return;
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
        while router.pop_event().is_some() {}
    }
}

/// Allocations of a host's thread in so long a run of its loop.
fn counted(host: &Host, span: Duration) -> Receiver<u64> {
    host.begin(move |inside| {
        run(inside, secs(1.0));
        COUNT.with(|count| count.set(Some(0)));
        run(inside, span);
        COUNT.with(|count| count.replace(None)).unwrap()
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

    let mut wire = Wire::new().unwrap();
    let [a, b] = [("a", "10.1.0.2"), ("b", "10.1.0.3")].map(|(name, ip)| {
        let host = Host::new();
        host.attach(&mut wire, name, "eth0", ip);
        host
    });
    a.reach("10.1.0.3");
    a.open(PAIR, false);
    within("a active", secs(3.0), || {
        a.state() == Some(VrrpState::Active)
    });
    b.open(PAIR, false);
    within("b hears a", secs(3.0), || {
        b.status()[0].peers[0].adverts > 5
    });
    let before = [a.status().remove(0), b.status().remove(0)].map(|vip| vip.counters);
    let both = [counted(&a, secs(11.0)), counted(&b, secs(11.0))];
    let allocations = both.map(|answer| answer.recv().unwrap());
    let after = [a.status().remove(0), b.status().remove(0)].map(|vip| vip.counters);
    let sent = after[0].adverts_sent - before[0].adverts_sent;
    let received = after[1].adverts_received - before[1].adverts_received;
    let garps = after[0].garps_sent - before[0].garps_sent;
    println!("{sent} adverts sent, {received} received, {garps} announcements: {allocations:?}");
    assert!(sent >= 1_000 && received >= 1_000 && garps >= 50);
    assert_eq!(allocations, [0, 0]);
}
