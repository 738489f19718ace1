//! Who gets which server, who waits, timers and counters: what a worker does in user space for a
//! connection, part by part.

use std::error::Error;
use std::hint::black_box;

use lbd::net::clock;
use lbd::proxy::balance::Key;
use lbd::proxy::counters::{ProxyCount, ProxyTotals, ServerCount, ServerTotals, WorkerCounters};
use lbd::proxy::dispatch::{Admission, Turn};
use lbd::proxy::farm::Farm;
use lbd::proxy::queue::{Queue, Ticket, Tried, Waiter};
use lbd::proxy::timer::Wheel;

use super::{Case, KUBESPHERE, Outcome, config};
use crate::measured;

pub(super) const CASES: [Case; 9] = [
    Case::pure("farm: admit and release, 3 servers", 10_000, three),
    Case::pure("farm: admit and release, 100 servers", 10_000, hundred),
    Case::pure("farm: wait at the limit and be served", 2_000, at_the_limit),
    Case::pure("queue: join and leave behind 100", 2_000, queue),
    Case::pure("timer: arm and come due", 20_000, timer),
    Case::pure("timer: a tick with 10,000 armed", 10_000, ticks),
    Case::pure("timer: when is the next, 10,000 armed", 10_000, next_timer),
    Case::pure("counters: count a request", 10_000, count),
    Case::pure("counters: sum 8 workers and 3 servers", 1_000, sum),
];

fn ticket(serial: u32) -> Ticket {
    Ticket {
        worker: 0,
        slot: serial % 1000,
        serial,
    }
}

/// The first proxy of `text`, all its servers up.
fn farm(text: &str) -> Result<Farm, Box<dyn Error>> {
    let config = config(text)?;
    let proxy = config.proxies.first().ok_or("no proxy")?;
    let farm = Farm::new(proxy);
    for server in 0..proxy.servers.len() {
        farm.set_up(server, true, clock::now());
    }
    Ok(farm)
}

fn admit_and_release(farm: &Farm, times: u32) {
    let mut serial = 0;
    measured(times, &mut || {
        serial += 1;
        let admission = farm.admit(
            black_box(ticket(serial)),
            Tried::default(),
            Turn::First,
            Key::NONE,
        );
        if let Admission::Server(server) = black_box(admission) {
            black_box(farm.release(server));
        }
    });
}

fn three(times: u32) -> Outcome {
    admit_and_release(&farm(KUBESPHERE)?, times);
    Ok(())
}

fn hundred(times: u32) -> Outcome {
    let mut text = String::from("[proxy.many]\nlisten = \":6443\"\n[proxy.many.backends]\n");
    for server in 1..=100 {
        let weight = 1 + server % 7;
        text.push_str(&format!(
            "s{server} = {{ address = \"10.0.0.{server}:80\", weight = {weight} }}\n"
        ));
    }
    admit_and_release(&farm(&text)?, times);
    Ok(())
}

fn at_the_limit(times: u32) -> Outcome {
    let farm = farm(
        "[proxy.one]\nlisten = \":6443\"\nbackends = [\"10.0.0.1:80\"]\n\
         backend-defaults = { max-connections = 1 }\n",
    )?;
    let full = farm.admit(ticket(0), Tried::default(), Turn::First, Key::NONE);
    if full != Admission::Server(0) {
        return Err(format!("no first place: {full:?}").into());
    }
    let mut serial = 0;
    let mut queued = 0;
    measured(times, &mut || {
        serial += 1;
        let admission = farm.admit(ticket(serial), Tried::default(), Turn::First, Key::NONE);
        queued += u32::from(admission == Admission::Queued(0));
        // Its place goes to the one that waits.
        black_box(farm.release(0));
    });
    if queued == times {
        Ok(())
    } else {
        Err(format!("{queued} of {times} waited").into())
    }
}

fn queue(times: u32) -> Outcome {
    let mut queue = Queue::default();
    let waiter = |serial| Waiter {
        ticket: ticket(serial),
        tried: Tried::default(),
        key: Key::NONE,
    };
    for serial in 0..100 {
        let place = queue.push(waiter(serial), 1000);
        black_box(place.is_ok());
    }
    measured(times, &mut || {
        let place = queue.push(waiter(100), 1000);
        black_box(place.is_ok());
        black_box(queue.remove(ticket(100)));
    });
    Ok(())
}

fn timer(times: u32) -> Outcome {
    let mut wheel = Wheel::new(0);
    let mut due = Vec::new();
    let (mut now, mut came) = (0, 0);
    measured(times, &mut || {
        // A connect timeout of 5 s among ticks of 4 ms; four connections each tick.
        wheel.arm(1, now / 4 + 1250);
        now += 1;
        if now % 4 == 0 {
            wheel.advance(now / 4, &mut due);
            came += due.len();
            due.clear();
        }
    });
    if came > 0 {
        Ok(())
    } else {
        Err("no timer came due".into())
    }
}

/// A wheel of connections that are looked at each 7 s or so.
fn full_wheel() -> Wheel {
    let mut wheel = Wheel::new(0);
    for key in 0..10_000 {
        wheel.arm(key, 1 + u64::from(key) % 1750);
    }
    wheel
}

fn ticks(times: u32) -> Outcome {
    let mut wheel = full_wheel();
    let mut due = Vec::new();
    let mut now = 0;
    measured(times, &mut || {
        now += 1;
        wheel.advance(now, &mut due);
        // Who came due had something to do since, and arms again.
        for entry in due.drain(..) {
            wheel.arm(entry.key, now + 1750);
        }
    });
    Ok(())
}

fn next_timer(times: u32) -> Outcome {
    let wheel = full_wheel();
    measured(times, &mut || {
        black_box(black_box(&wheel).next_within(13));
    });
    Ok(())
}

fn count(times: u32) -> Outcome {
    let counters = WorkerCounters::new(3);
    measured(times, &mut || {
        let counters = black_box(&counters);
        counters.add(ProxyCount::BytesIn, 1024);
        counters.add_server(1, ServerCount::BytesIn, 1024);
        counters.add(ProxyCount::BytesOut, 2048);
        counters.add_server(1, ServerCount::BytesOut, 2048);
    });
    Ok(())
}

fn sum(times: u32) -> Outcome {
    let workers: Vec<_> = (0..8).map(|_| WorkerCounters::new(3)).collect();
    measured(times, &mut || {
        let mut proxy = ProxyTotals::default();
        let mut servers = [ServerTotals::default(); 3];
        for counters in black_box(&workers) {
            counters.sum_into(&mut proxy, &mut servers);
        }
        black_box((proxy, servers));
    });
    Ok(())
}
