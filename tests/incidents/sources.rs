//! Balancing by the client's address: the same server on both nodes, and few moves when one
//! leaves.

use std::net::{Ipv4Addr, SocketAddr};

use super::client;
use super::measure::{Options, together};
use super::place::{LB1, PORT, Place};
use super::targets::{Running, Target, Wish};

pub const CLIENTS: u16 = 1_000;
/// The server that leaves.
const LEAVES: usize = 1;

#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub clients: usize,
    /// Clients that have another server on the second node.
    pub different: usize,
    /// Clients that another server had than at first, after one had left; of those who were on
    /// the others.
    pub moved: usize,
    pub stayed_on_others: usize,
    /// The most and the fewest clients of a server.
    pub most: usize,
    pub fewest: usize,
}

/// One run.
pub fn measure(target: Target, clients: u16) -> Seen {
    let mut place = Place::new(2);
    let wish = Wish {
        by_source: true,
        limits: false,
        ..Wish::default()
    };
    let running: Vec<Running> = place
        .nodes
        .iter()
        .map(|node| Running::start(node, target, &wish))
        .collect();
    let lb2 = Ipv4Addr::new(172, 16, 0, 3);
    let first = ask(&place, LB1, clients);
    let second = ask(&place, lb2, clients);
    place.servers[LEAVES].kill();
    for running in &running {
        running.until("it is down", |up| !up[LEAVES]);
    }
    let after = ask(&place, LB1, clients);
    let count = |server: usize| first.iter().filter(|had| **had == Some(server)).count();
    let others: Vec<_> = first
        .iter()
        .zip(&after)
        .filter(|(had, _)| had.is_some() && **had != Some(LEAVES))
        .collect();
    Seen {
        clients: first.iter().flatten().count(),
        different: first.iter().zip(&second).filter(|(a, b)| a != b).count(),
        moved: others.iter().filter(|(had, has)| had != has).count(),
        stayed_on_others: others.len(),
        most: (0..3).map(count).max().unwrap_or(0),
        fewest: (0..3).map(count).min().unwrap_or(0),
    }
}

/// Which server each of so many clients gets from a node, one after the other.
fn ask(place: &Place, node: Ipv4Addr, clients: u16) -> Vec<Option<usize>> {
    let run = || {
        client::block_on(async {
            let mut servers = Vec::new();
            for number in 0..clients {
                let [high, low] = (number * 7 + 1).to_be_bytes();
                let source = Ipv4Addr::new(10, 77, high, low);
                let target = SocketAddr::new(node.into(), PORT);
                let attempt = client::attempt(target, Some(source)).await;
                servers.push(attempt.served_by());
            }
            servers
        })
    };
    place.client.run(run).unwrap()
}

pub fn table(options: &Options) -> String {
    let targets: Vec<Target> = options
        .targets
        .iter()
        .copied()
        .filter(|target| *target != Target::Seed)
        .collect();
    let mut text = String::from(
        "| 1,000 clients by address | most and fewest clients of a server | different on the \
         other node | one of three servers leaves: moved of those it did not have |\n\
         |---|---|---|---|\n",
    );
    for (target, seen) in together(&targets, |target| measure(target, CLIENTS)) {
        println!("source-hash {}: {seen:?}", target.title());
        let title = match target {
            Target::Lbd => "lbd, source-hash",
            Target::Seed | Target::Tuned => "HAProxy, source, consistent",
        };
        text.push_str(&format!(
            "| {title} | {}, {} | {} of {} | {} of {} |\n",
            seen.most, seen.fewest, seen.different, seen.clients, seen.moved, seen.stayed_on_others
        ));
    }
    text
}
