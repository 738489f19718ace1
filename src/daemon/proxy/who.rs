//! Finds the connection behind an address: asks the workers and waits for their answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::orders::reply;
use super::report::Shared;
use crate::admin::who::{Connection, Who};
use crate::proxy::engine::Engine;
use crate::proxy::lookup::{Found, Lookup};

/// Workers with many connections answer in several rounds; who asks is told what is known by then.
const WITHIN: Duration = Duration::from_millis(1_500);
/// Between two looks whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Asks, and answers when all have answered or the time is over.
pub(super) fn ask(shared: &Arc<Shared>, wanted: SocketAddr, answer: oneshot::Sender<Who>) {
    let Some(engine) = shared.engine.get() else {
        let complete = true;
        let none = Who {
            connections: Vec::new(),
            complete,
        };
        return reply(answer, none);
    };
    let (engine, shared) = (Arc::clone(engine), Arc::clone(shared));
    tokio::spawn(async move {
        let (found, complete) = wait(&engine, wanted).await;
        let connections = found.into_iter();
        let connections = connections.filter_map(|found| connection(&shared, &found));
        let who = Who {
            connections: connections.collect(),
            complete,
        };
        reply(answer, who);
    });
}

async fn wait(engine: &Engine, wanted: SocketAddr) -> (Vec<Found>, bool) {
    let mut asked: Option<Arc<Lookup>> = None;
    let answered = async {
        loop {
            // Others may have asked before.
            asked = asked.take().or_else(|| engine.lookup(wanted));
            if asked.as_ref().is_some_and(|lookup| lookup.answer().1) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let late = tokio::time::timeout(WITHIN, answered).await.is_err();
    let Some(lookup) = asked else {
        return (Vec::new(), false);
    };
    if late {
        lookup.give_up();
    }
    lookup.answer()
}

fn connection(shared: &Shared, found: &Found) -> Option<Connection> {
    let in_force = shared.in_force();
    let farm = in_force.farms.get(found.proxy)?;
    let server = found.server.and_then(|place| farm.member(place));
    Some(Connection {
        proxy: farm.name().to_owned(),
        server: server.as_ref().map(|server| server.name.clone()),
        client: found.client,
        via: found.via,
        local: found.local,
        source: found.source,
        server_address: server.map(|server| server.address),
        state: found.state.to_owned(),
        age_ms: found.age / 1_000,
        idle_ms: found.idle / 1_000,
        bytes_in: found.bytes_in,
        bytes_out: found.bytes_out,
    })
}
