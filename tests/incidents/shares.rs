//! Shares: weights that the servers get exactly, and the ramp of one that has returned.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::clock;

use super::client::{self, Clients, Habits, Outcome};
use super::measure::{Options, together};
use super::place::{LB1, PORT, Place, SERVERS};
use super::targets::{Running, Target, Wish};

const WEIGHTS: [[u16; SERVERS]; 3] = [[1, 2, 3], [100, 50, 10], [256, 1, 0]];
const RATE: u32 = 300;
/// The server that returns.
const RETURNS: usize = 2;

/// How many of so many connections, one after the other, went to each server.
pub fn weighted(target: Target, weights: [u16; SERVERS], count: usize) -> [usize; SERVERS] {
    let place = Place::new(1);
    let wish = Wish {
        weights,
        limits: false,
        ..Wish::default()
    };
    let running = Running::start_anyhow(&place.nodes[0], target, &wish);
    running.until("it serves", |up| {
        up.iter()
            .zip(weights)
            .all(|(up, weight)| *up || weight == 0)
    });
    let run = || {
        client::block_on(async {
            let mut counts = [0; SERVERS];
            for _ in 0..count {
                let attempt = client::attempt(SocketAddr::new(LB1.into(), PORT), None).await;
                if let Outcome::Served(server) = attempt.outcome {
                    counts[server] += 1;
                }
            }
            counts
        })
    };
    place.client.run(run).unwrap()
}

/// A bucket of the ramp: the server's share, and the formula's.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub share: f64,
    pub formula: f64,
}

/// The share of a server that was killed and has returned, while it ramps.
pub fn ramp(target: Target, slowstart: u64, bucket: Duration) -> Vec<Point> {
    let mut place = Place::new(1);
    let wish = Wish {
        slowstart,
        limits: false,
        ..Wish::default()
    };
    let running = Running::start(&place.nodes[0], target, &wish);
    let habits = Habits {
        target: SocketAddr::new(LB1.into(), PORT),
        rate: RATE,
        held: 0,
    };
    place.servers[RETURNS].kill();
    running.until("it is down", |up| !up[RETURNS]);
    let clients = Clients::start(&place.client, habits);
    place.servers[RETURNS].start();
    let up = running.until("it is up", |up| up[RETURNS]);
    let ramp = Duration::from_secs(slowstart);
    thread::sleep((up + ramp + bucket).saturating_duration_since(clock::now()));
    let record = clients.finish();
    let mut points = Vec::new();
    let mut from = up;
    while from + bucket <= up + ramp {
        points.push(point(target, &record, up, from, bucket, ramp));
        from += bucket;
    }
    points
}

fn point(
    target: Target,
    record: &client::Record,
    up: Instant,
    from: Instant,
    bucket: Duration,
    ramp: Duration,
) -> Point {
    let within = record
        .attempts
        .iter()
        .filter(|attempt| attempt.started >= from && attempt.started < from + bucket);
    let (mut own, mut all) = (0.0, 0.0);
    for attempt in within {
        if let Outcome::Served(server) = attempt.outcome {
            all += 1.0;
            own += f64::from(u8::from(server == RETURNS));
        }
    }
    // The formula's mean over the bucket.
    const STEPS: u32 = 200;
    let sum: f64 = (0..STEPS)
        .map(|step| {
            let at = from - up + bucket * step / STEPS;
            let weight = formula(target, at, ramp);
            weight / (2.0 + weight)
        })
        .sum();
    Point {
        share: own / f64::max(all, 1.0),
        formula: sum / f64::from(STEPS),
    }
}

/// The part of its weight that a server has so long after its return.
fn formula(target: Target, at: Duration, ramp: Duration) -> f64 {
    match target {
        Target::Lbd => (at.as_secs_f64() / ramp.as_secs_f64()).max(1.0 / 16.0),
        // In whole seconds and sixteenths.
        Target::Seed | Target::Tuned => {
            let (at, ramp) = (at.as_secs(), ramp.as_secs());
            let sixteenths = (16 * at + ramp) / ramp;
            sixteenths.min(16) as f64 / 16.0
        }
    }
}

/// The largest distance from the formula, in hundredths of all connections.
pub fn worst(points: &[Point]) -> f64 {
    let off = points
        .iter()
        .map(|point| (point.share - point.formula).abs());
    off.fold(0.0, f64::max) * 100.0
}

pub fn table(options: &Options) -> String {
    let mut text = String::from(
        "| weights | exact for 1,000 connections, one after the other | lbd | HAProxy |\n\
         |---|---|---|---|\n",
    );
    for weights in WEIGHTS {
        let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let exact = weights.map(|weight| format!("{:.1}", 1000.0 * f64::from(weight) / sum as f64));
        let counts = together(&without_the_guide(options), |target| {
            weighted(target, weights, 1_000)
        });
        println!("shares {weights:?}: {counts:?}");
        let of = |target: Target| {
            let found = counts.iter().find(|(of, _)| *of == target);
            found.map_or("–".to_owned(), |(_, counts)| join(counts))
        };
        text.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            join(&weights),
            exact.join(" : "),
            of(Target::Lbd),
            of(Target::Tuned)
        ));
    }
    text
}

fn join<T: ToString>(values: &[T]) -> String {
    let words: Vec<String> = values.iter().map(ToString::to_string).collect();
    words.join(" : ")
}

/// Weights and ramp are the wish's, which the guide's file doesn't know.
fn without_the_guide(options: &Options) -> Vec<Target> {
    let targets = options.targets.iter().copied();
    targets.filter(|target| *target != Target::Seed).collect()
}

pub fn slowstart_table(options: &Options) -> String {
    let mut text = String::from(
        "| slowstart 20 s, seconds since the return | lbd: share | its formula | HAProxy: share | \
         its formula |\n|---|---|---|---|---|\n",
    );
    let bucket = Duration::from_secs(2);
    let done = together(&without_the_guide(options), |target| {
        ramp(target, 20, bucket)
    });
    let of = |target: Target| {
        done.iter()
            .find(|(of, _)| *of == target)
            .map(|(_, points)| points)
    };
    let cells = |target: Target, index: usize| {
        of(target)
            .and_then(|points| points.get(index))
            .map_or("– | –".to_owned(), |point| {
                format!(
                    "{:.1} % | {:.1} %",
                    point.share * 100.0,
                    point.formula * 100.0
                )
            })
    };
    for index in 0..10_usize {
        text.push_str(&format!(
            "| {}–{} | {} | {} |\n",
            index * 2,
            index * 2 + 2,
            cells(Target::Lbd, index),
            cells(Target::Tuned, index)
        ));
    }
    let off = |target: Target| {
        of(target).map_or("–".to_owned(), |points| {
            format!("{:.1} points", worst(points))
        })
    };
    text.push_str(&format!(
        "| farthest from it | {} | | {} | |\n",
        off(Target::Lbd),
        off(Target::Tuned)
    ));
    println!("slowstart: {done:?}");
    text
}
