//! 3,000 clients against 250 connections for each of three servers and 256 that may wait.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::{self, Outcome};
use super::measure::{Options, together};
use super::place::{LB1, PORT, Place, SERVERS};
use super::table::{maybe, median};
use super::targets::{Running, Target, Wish};

const LIMIT: usize = 250;
const QUEUE: usize = 256;
const CLIENTS: usize = 3_000;
/// Between two arrivals, and between two that leave.
const APART: Duration = Duration::from_millis(2);
/// Clients that came at least so much later than another must not be served before it.
const CLEARLY: Duration = Duration::from_millis(25);

#[derive(Debug, Clone)]
pub struct Seen {
    /// The most clients that each server had at once.
    pub most: [usize; SERVERS],
    /// Who came when everything was full: served in the end, refused, and left waiting until they
    /// were sent away or gave up.
    pub served: usize,
    pub refused: usize,
    /// How long the refusals took; half of them, and the longest.
    pub refusal: Option<(Duration, Duration)>,
    /// Pairs of waiting clients that were served in the other order.
    pub disorder: usize,
}

/// Who is served stays.
type Client = JoinHandle<(client::Attempt, Option<TcpStream>)>;

/// One run.
pub fn measure(target: Target) -> Seen {
    let mut place = Place::new(1);
    let _running = Running::start(&place.nodes[0], target, &Wish::default());
    let run = || client::block_on(fill());
    let (waited, rest) = place.client.run(run).unwrap();
    let most = [0, 1, 2].map(|server: usize| place.servers[server].most());
    let outcome = |attempt: &client::Attempt| match attempt.outcome {
        Outcome::Served(_) => 0,
        Outcome::Refused | Outcome::Reset | Outcome::Closed => 1,
        Outcome::GaveUp => 2,
    };
    let everybody = || waited.iter().chain(&rest);
    let mut refusals: Vec<Duration> = everybody()
        .filter(|attempt| outcome(attempt) == 1)
        .map(client::Attempt::took)
        .collect();
    refusals.sort_unstable();
    Seen {
        most,
        served: everybody().filter(|attempt| outcome(attempt) == 0).count(),
        refused: refusals.len(),
        refusal: refusals
            .get(refusals.len() / 2)
            .copied()
            .zip(refusals.last().copied()),
        disorder: disorder(&waited),
    }
}

/// Fills the servers, then the queue, then comes the rest; then the first ones leave one by one.
/// Those that came for the queue, and the rest.
async fn fill() -> (Vec<client::Attempt>, Vec<client::Attempt>) {
    let target = SocketAddr::new(LB1.into(), PORT);
    let mut guests = Vec::new();
    for _ in 0..LIMIT * SERVERS {
        guests.push(
            client::first_answer(target, None)
                .await
                .expect("there is room"),
        );
    }
    let arrive = |count: usize| async move {
        let mut clients: Vec<Client> = Vec::new();
        let mut ticks = tokio::time::interval(APART);
        for _ in 0..count {
            ticks.tick().await;
            clients.push(tokio::spawn(client::attempt_to_stay(target, None)));
        }
        clients
    };
    let waiting = arrive(QUEUE).await;
    let mut rest: Vec<Client> = Vec::new();
    for _ in 0..CLIENTS - LIMIT * SERVERS - QUEUE {
        rest.push(tokio::spawn(client::attempt_to_stay(target, None)));
        tokio::task::yield_now().await;
    }
    // The refused ones are refused while everything is full.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut ticks = tokio::time::interval(APART);
    for guest in guests.drain(..QUEUE) {
        ticks.tick().await;
        drop(guest);
    }
    let ((waited, _guests), (rest, _more)) = (all(waiting).await, all(rest).await);
    (waited, rest)
}

async fn all(clients: Vec<Client>) -> (Vec<client::Attempt>, Vec<TcpStream>) {
    let (mut attempts, mut guests) = (Vec::new(), Vec::new());
    for client in clients {
        let (attempt, guest) = client.await.unwrap();
        attempts.push(attempt);
        guests.extend(guest);
    }
    (attempts, guests)
}

/// In the order of their arrival: how many were served clearly before one that had come clearly
/// before them.
fn disorder(waited: &[client::Attempt]) -> usize {
    let served: Vec<_> = waited.iter().filter(|attempt| !attempt.is_lost()).collect();
    let mut pairs = 0;
    for (index, earlier) in served.iter().enumerate() {
        let later = &served[index + 1..];
        pairs += later
            .iter()
            .filter(|later| {
                later.started >= earlier.started + CLEARLY && earlier.ended >= later.ended + CLEARLY
            })
            .count();
    }
    pairs
}

pub fn table(options: &Options) -> String {
    let mut done = Vec::new();
    for round in 1..=options.runs {
        for (target, seen) in together(&options.targets, measure) {
            println!("[{round}] capacity {:<15} {seen:?}", target.title());
            done.push((target, seen));
        }
    }
    let mut text = String::from(
        "| 3,000 clients against 250 × 3 and 256 | most at once on each server | of 2,250 above \
         the limits: served | refused | refused after (half, longest) | pairs served in the other \
         order |\n|---|---|---|---|---|---|\n",
    );
    for target in &options.targets {
        let seen = || {
            done.iter()
                .filter(|(of, _)| of == target)
                .map(|(_, seen)| seen)
        };
        let number = |of: fn(&Seen) -> usize| median(seen().map(of)).unwrap_or(0);
        let most = seen().flat_map(|one| one.most).max().unwrap_or(0);
        let half = median(seen().filter_map(|one| one.refusal.map(|refusal| refusal.0)));
        let longest = median(seen().filter_map(|one| one.refusal.map(|refusal| refusal.1)));
        text.push_str(&format!(
            "| {} | {most} | {} | {} | {}, {} | {} |\n",
            target.title(),
            number(|one| one.served),
            number(|one| one.refused),
            maybe(half, "–"),
            maybe(longest, "–"),
            number(|one| one.disorder),
        ));
    }
    text
}

/// Whether no limit was passed, and each was reached; used by the gate.
pub fn within_limits(seen: &Seen) -> bool {
    seen.most.iter().all(|most| *most == LIMIT) && seen.served == QUEUE
}
