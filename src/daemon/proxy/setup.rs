//! What the control loop is set up with: machines and farms, and what the previous process
//! knew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::model::Config;
use crate::health::board::Board;
use crate::health::fsm::Machine;
use crate::health::task::stagger;
use crate::ipc::message::Welcome;
use crate::proxy::farm::Farm;
use crate::proxy::roster::Origin;
use crate::proxy::server::AdminState;

/// A probe that runs into its timeout needs a moment more to be heard of.
const SLACK: Duration = Duration::from_millis(250);
/// Serving begins at the latest after this long, probed or not.
const FIRST_VERDICTS_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn machines(config: &Config, now: Instant) -> Vec<Vec<Machine>> {
    let total = config.proxies.iter().map(|proxy| proxy.servers.len()).sum();
    let mut number = 0;
    let mut all = Vec::with_capacity(config.proxies.len());
    for proxy in &config.proxies {
        let mut of_proxy = Vec::with_capacity(proxy.servers.len());
        for _server in &proxy.servers {
            let earlier = stagger(proxy.check.interval, number, total);
            of_proxy.push(Machine::new(&proxy.check, now).staggered(earlier));
            number += 1;
        }
        all.push(of_proxy);
    }
    all
}

/// What wakes the control loop when any of the farms has news for it.
pub(super) fn alarm(farms: &[Arc<Farm>]) -> Arc<Notify> {
    let alarm = Arc::new(Notify::new());
    for farm in farms {
        rings(farm, &alarm);
    }
    alarm
}

/// Has this farm wake the control loop, too.
pub(super) fn rings(farm: &Farm, alarm: &Arc<Notify>) {
    let alarm = Arc::clone(alarm);
    farm.set_alarm(Arc::new(move || alarm.notify_one()));
}

/// Has the board know of servers that operators added, removed, or took out of service.
pub(super) fn as_operators_left_it(farms: &[Arc<Farm>], board: &mut Board, now: Instant) {
    for (proxy, farm) in farms.iter().enumerate() {
        for (place, member) in farm.roster().all() {
            let in_service = farm.admin(place) != Some(AdminState::Maint);
            if member.leaving {
                board.remove(proxy, place);
            } else if member.origin == Origin::File {
                board.watch(proxy, place, in_service);
            } else {
                board.add(proxy, place, &member.name, in_service, now);
            }
        }
    }
}

/// Takes over what the previous process knew, where it is young enough.
pub(super) fn restore(
    welcome: &Welcome,
    board: &mut Board,
    farms: &[Arc<Farm>],
    machines: &mut [Vec<Machine>],
    now: Instant,
) {
    for old in &welcome.snapshot {
        let Some((proxy, server)) = board.restore(old, now) else {
            continue;
        };
        if let Some(farm) = farms.get(proxy) {
            farm.restore(server, old.up, old.ramp_ms.map(Duration::from_millis), now);
        }
        let machine = machines.get_mut(proxy).and_then(|m| m.get_mut(server));
        if let Some(machine) = machine {
            machine.restore(old.up);
        }
    }
}

pub(super) fn first_verdicts_within(config: &Config) -> Duration {
    let slowest = config.proxies.iter().map(|proxy| proxy.check.timeout).max();
    slowest
        .map_or(Duration::ZERO, |slowest| slowest + SLACK)
        .min(FIRST_VERDICTS_WITHIN)
}
