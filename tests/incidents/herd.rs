//! All servers are gone for a while, 700 clients each want a connection, and the servers return.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::clock;

use super::client::{self, Outcome};
use super::measure::{Options, together};
use super::place::{LB1, PORT, Place};
use super::table::{maybe, median};
use super::targets::{Running, Target, Wish};

pub const CLIENTS: usize = 700;
/// A client that failed tries again after it.
const AGAIN: Duration = Duration::from_secs(1);
/// Who is not served by then never is.
const WAIT: Duration = Duration::from_secs(90);

#[derive(Debug, Clone)]
pub struct Seen {
    /// From the servers' return until each client was served, sorted.
    pub served: Vec<Duration>,
    /// From the servers' return until the first was marked up.
    pub up: Option<Duration>,
    /// Failed attempts since then that were begun when a server was up.
    pub failed: usize,
    /// Failed attempts since the return.
    pub failed_in_all: usize,
}

#[derive(Debug, Default)]
struct Record {
    served: Vec<Instant>,
    /// When failed attempts began and ended.
    failed: Vec<(Instant, Instant)>,
}

/// One run: every client keeps the connection it got.
pub fn measure(target: Target, clients: usize, outage: Duration) -> Seen {
    let mut place = Place::new(1);
    let running = Running::start(&place.nodes[0], target, &Wish::default());
    for server in &mut place.servers {
        server.kill();
    }
    running.until("all servers are down", |up| *up == [false; 3]);
    let record = Arc::new(Mutex::new(Record::default()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shared = Arc::clone(&record);
    let crowd = place.client.thread("herd", move || {
        client::block_on(async move {
            for number in 0..clients {
                tokio::spawn(want(number, clients, Arc::clone(&shared)));
            }
            drop(stopped.await);
        });
    });
    let crowd = crowd.unwrap();
    thread::sleep(outage);
    let at = clock::now();
    for server in &mut place.servers {
        server.start();
    }
    while record.lock().unwrap().served.len() < clients && clock::now() < at + WAIT {
        thread::sleep(Duration::from_millis(20));
    }
    drop(stop);
    crowd.join().unwrap().unwrap();
    let record = record.lock().unwrap();
    let mut served: Vec<Duration> = record.served.iter().map(|served| *served - at).collect();
    served.sort_unstable();
    let up = running.first(at, |up| up.contains(&true));
    let since = |from: Instant| record.failed.iter().filter(|one| one.0 >= from).count();
    Seen {
        served,
        up: up.map(|up| up - at),
        failed: up.map_or(0, since),
        failed_in_all: record.failed.iter().filter(|one| one.1 >= at).count(),
    }
}

/// Tries until it is served, and stays.
async fn want(number: usize, of: usize, record: Arc<Mutex<Record>>) {
    // Not all at the same moment.
    let spread = AGAIN.as_secs_f64() * number as f64 / of as f64;
    tokio::time::sleep(Duration::from_secs_f64(spread)).await;
    let target = SocketAddr::new(LB1.into(), PORT);
    loop {
        let started = clock::now();
        let tried = tokio::time::timeout(client::PATIENCE, client::first_answer(target, None));
        match tried.await.unwrap_or(Err(Outcome::GaveUp)) {
            Ok((stream, _server)) => {
                record.lock().unwrap().served.push(clock::now());
                let _kept = stream;
                return std::future::pending().await;
            }
            Err(_) => record.lock().unwrap().failed.push((started, clock::now())),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

pub fn table(options: &Options) -> String {
    let mut done = Vec::new();
    for round in 1..=options.runs {
        for (target, seen) in together(&options.targets, |target| {
            measure(target, CLIENTS, Duration::from_secs(20))
        }) {
            println!("[{round}] herd {:<15} {}", target.title(), cells(&[&seen]));
            done.push((target, seen));
        }
    }
    let mut text = String::from(
        "| 700 clients after 20 s without servers | served | half of them after | all after | \
         first server marked up after | failed attempts since it was | and since the servers \
         returned |\n|---|---|---|---|---|---|---|\n",
    );
    for target in Target::ALL {
        let seen: Vec<&Seen> = done
            .iter()
            .filter(|(of, _)| *of == target)
            .map(|(_, seen)| seen)
            .collect();
        if !seen.is_empty() {
            text.push_str(&format!("| {} | {} |\n", target.title(), cells(&seen)));
        }
    }
    text
}

fn cells(seen: &[&Seen]) -> String {
    let number = |of: fn(&Seen) -> usize| median(seen.iter().map(|one| of(one))).unwrap_or(0);
    let time = |of: fn(&Seen) -> Option<Duration>| {
        let times = seen.iter().map(|one| of(one).unwrap_or(Duration::MAX));
        maybe(median(times).filter(|one| *one < Duration::MAX), "never")
    };
    format!(
        "{} | {} | {} | {} | {} | {}",
        number(|one| one.served.len()),
        time(|one| one.served.get(CLIENTS / 2).copied()),
        time(|one| (one.served.len() >= CLIENTS)
            .then(|| one.served.last().copied())
            .flatten()),
        time(|one| one.up),
        number(|one| one.failed),
        number(|one| one.failed_in_all),
    )
}
