//! Tables and seeded runs of [`super::Dispatch`].

use std::time::{Duration, Instant};

use super::*;
use crate::config::model;
use crate::units::{Count, Weight};

pub(in crate::proxy) fn server(weight: i64, max: u32) -> model::Server {
    model::Server {
        name: "s".into(),
        address: "127.0.0.1:1".parse().unwrap(),
        check_address: "127.0.0.1:1".parse().unwrap(),
        weight: Weight::try_from(weight).unwrap(),
        max_connections: std::num::NonZeroU32::new(max),
        connects_per_second: None,
        disabled: false,
        backup: false,
    }
}

pub(in crate::proxy) fn proxy(servers: Vec<model::Server>, max_queue: MaxQueue) -> model::Proxy {
    model::Proxy {
        name: "p".into(),
        listen: vec![model::Listen::Any(1)],
        balance: Balance::RoundRobin,
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(3600),
        half_close_timeout: Duration::from_secs(30),
        queue_timeout: Duration::from_secs(5),
        max_connections: None,
        max_queue,
        client_first: false,
        first_byte_timeout: None,
        on_unresponsive: model::OnUnresponsive::Reset,
        on_not_ready: model::OnNotReady::Drain,
        max_ejected: 0,
        retries: 3,
        hedge_after: model::HedgeAfter::Never,
        slowstart: Duration::from_secs(60),
        keepalive: None,
        user_timeout: None,
        proxy_protocol: None,
        source: model::Source::Any,
        guard: model::Guard::default(),
        max_age: None,
        rebalance: None,
        check: model::Check {
            kind: model::CheckKind::Tcp,
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_secs(1),
            down_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            rise: Count::TWO,
            fall: Count::TWO,
        },
        discovery: model::Discovery::default(),
        servers,
    }
}

/// A file with only this proxy.
pub(in crate::proxy) fn config(proxy: model::Proxy) -> model::Config {
    model::Config {
        log: model::Log {
            level: model::Level::Info,
            target: model::LogTarget::Stderr,
            format: model::LogFormat::Text,
            facility: model::Facility(3),
        },
        access_log: None,
        admin: model::Admin { socket: None },
        metrics: model::Metrics {
            listen: None,
            compat: true,
            names: Vec::new(),
        },
        limits: model::Limits {
            max_connections: None,
            workers: None,
            pin_workers: false,
        },
        reload: model::Reload { watch: false },
        peer: None,
        state_dir: None,
        user: None,
        writable: Vec::new(),
        vips: Vec::new(),
        routes: Vec::new(),
        proxies: vec![proxy],
        scripts: Vec::new(),
        track_files: Vec::new(),
        track_interfaces: Vec::new(),
    }
}

/// All servers up, as first verdicts.
fn dispatch(servers: Vec<model::Server>, max_queue: u32) -> (Dispatch, Instant) {
    let now = crate::net::clock::now();
    let count = servers.len();
    let mut dispatch = Dispatch::new(&proxy(servers, MaxQueue::Total(max_queue)));
    for server in 0..count {
        assert!(dispatch.set_up(server, true, now));
    }
    (dispatch, now)
}

fn ticket(slot: u32) -> Ticket {
    Ticket {
        worker: 0,
        slot,
        serial: 0,
    }
}

fn admit(dispatch: &mut Dispatch, slot: u32) -> Admission {
    dispatch.admit(ticket(slot), Tried::default(), Turn::First, Key::NONE)
}

#[test]
fn a_server_that_was_never_probed_gets_nothing() {
    let mut dispatch = Dispatch::new(&proxy(vec![server(1, 0)], MaxQueue::Total(9)));
    assert_eq!(admit(&mut dispatch, 1), Admission::NoServer);
}

#[test]
fn shares_follow_the_weights_exactly() {
    let (mut dispatch, _) = dispatch(vec![server(1, 0), server(2, 0), server(3, 0)], 0);
    let mut got = [0; 3];
    for slot in 0..6000 {
        let Admission::Server(server) = admit(&mut dispatch, slot) else {
            panic!("refused");
        };
        got[server] += 1;
    }
    assert_eq!(got, [1000, 2000, 3000]);
}

#[test]
fn shares_of_a_turn_too_long_for_a_plan_are_exact_too() {
    // One whole share and two of a sixteenth: 251 × 16 + 241 + 239 picks a turn.
    let (mut dispatch, now) = dispatch(vec![server(251, 0), server(241, 0), server(239, 0)], 0);
    for index in [1, 2] {
        dispatch.set_up(index, false, now);
        dispatch.set_up(index, true, now);
    }
    let turn = 251 * 16 + 241 + 239;
    let mut got = [0; 3];
    for slot in 0..turn {
        assert_eq!(dispatch.board().take(Key::NONE), None);
        let Admission::Server(server) = admit(&mut dispatch, slot) else {
            panic!("refused");
        };
        got[server] += 1;
    }
    assert_eq!(got, [4016, 241, 239]);
    // Warm again, there is a plan.
    dispatch.advance(now + Duration::from_secs(60));
    assert!(dispatch.board().take(Key::NONE).is_some());
}

#[test]
fn the_excess_waits_in_order_and_the_next_is_refused() {
    let (mut dispatch, _) = dispatch(vec![server(1, 1)], 2);
    assert_eq!(admit(&mut dispatch, 1), Admission::Server(0));
    assert_eq!(admit(&mut dispatch, 2), Admission::Queued(0));
    assert_eq!(admit(&mut dispatch, 3), Admission::Queued(1));
    assert_eq!(admit(&mut dispatch, 4), Admission::QueueFull);
    assert_eq!(dispatch.release(0), 0);
    assert_eq!(dispatch.take_notices(), [Notice::Granted(ticket(2), 0)]);
    assert!(!dispatch.leave(ticket(2)));
    assert!(dispatch.leave(ticket(3)));
    dispatch.release(0);
    assert!(!dispatch.has_notices());
}

#[test]
fn a_queue_per_server_counts_the_usable_ones() {
    let now = crate::net::clock::now();
    let servers = vec![server(1, 1), server(1, 1)];
    let mut dispatch = Dispatch::new(&proxy(servers, MaxQueue::PerServer(3)));
    assert_eq!(dispatch.queue_limit(), 0);
    dispatch.set_up(0, true, now);
    assert_eq!(dispatch.queue_limit(), 3);
    dispatch.set_up(1, true, now);
    assert_eq!(dispatch.queue_limit(), 6);
    dispatch.set_admin(1, AdminState::Drain, now);
    assert_eq!(dispatch.queue_limit(), 3);
}

#[test]
fn when_the_last_server_goes_the_queue_is_told() {
    let (mut dispatch, now) = dispatch(vec![server(1, 1)], 9);
    admit(&mut dispatch, 1);
    admit(&mut dispatch, 2);
    dispatch.set_up(0, false, now);
    assert_eq!(dispatch.take_notices(), [Notice::NoServer(ticket(2))]);
    assert_eq!(admit(&mut dispatch, 3), Admission::NoServer);
}

#[test]
fn a_server_that_comes_up_serves_the_queue_at_once() {
    let (mut dispatch, now) = dispatch(vec![server(1, 1), server(1, 1)], 9);
    dispatch.set_admin(1, AdminState::Maint, now);
    admit(&mut dispatch, 1);
    admit(&mut dispatch, 2);
    dispatch.set_admin(1, AdminState::Ready, now);
    assert_eq!(dispatch.take_notices(), [Notice::Granted(ticket(2), 1)]);
}

#[test]
fn a_retry_goes_to_another_server_while_there_is_one() {
    let (mut dispatch, _) = dispatch(vec![server(200, 0), server(1, 1)], 9);
    let mut tried = Tried::default();
    tried.mark(0);
    let again = |dispatch: &mut Dispatch| dispatch.admit(ticket(1), tried, Turn::Again, Key::NONE);
    assert_eq!(again(&mut dispatch), Admission::Server(1));
    // The other one is full: it waits for that rather than go back.
    assert_eq!(again(&mut dispatch), Admission::Queued(0));
    assert!(!dispatch.has_notices());
    dispatch.release(1);
    assert_eq!(dispatch.take_notices(), [Notice::Granted(ticket(1), 1)]);
}

#[test]
fn a_retry_with_nowhere_else_to_go_returns_to_the_same_server() {
    let (mut dispatch, _) = dispatch(vec![server(1, 0)], 9);
    let mut tried = Tried::default();
    tried.mark(0);
    assert_eq!(
        dispatch.admit(ticket(1), tried, Turn::Again, Key::NONE),
        Admission::Server(0)
    );
}

#[test]
fn the_first_verdict_starts_no_slowstart_and_a_return_does() {
    let (mut dispatch, now) = dispatch(vec![server(100, 160), server(100, 160)], 9);
    assert_eq!(dispatch.limit(0), Some(160));
    dispatch.set_up(0, false, now);
    dispatch.set_up(0, true, now);
    assert_eq!(
        (dispatch.server(0).unwrap().share(), dispatch.limit(0)),
        (16, Some(10))
    );
    let half = now + Duration::from_secs(30);
    dispatch.advance(half);
    assert_eq!(
        (dispatch.server(0).unwrap().share(), dispatch.limit(0)),
        (128, Some(80))
    );
    dispatch.advance(now + Duration::from_secs(60));
    assert_eq!(dispatch.limit(0), Some(160));
    assert!(!dispatch.server(0).unwrap().ramping());
}

#[test]
fn shares_during_slowstart_follow_its_progress() {
    let (mut dispatch, now) = dispatch(vec![server(100, 0), server(100, 0)], 9);
    dispatch.set_up(0, false, now);
    dispatch.set_up(0, true, now);
    // Shares of 1/16, 1/4, 1/2 and 1 against one whole server.
    for (seconds, expected) in [(0, 58), (15, 200), (30, 333), (60, 500)] {
        dispatch.advance(now + Duration::from_secs(seconds));
        let mut warm = 0_i32;
        for slot in 0..1000 {
            warm += i32::from(admit(&mut dispatch, slot) == Admission::Server(0));
        }
        assert!((warm - expected).abs() <= 2, "{seconds}s: {warm}");
    }
}

#[test]
fn a_cold_farm_is_not_throttled() {
    let (mut dispatch, now) = dispatch(vec![server(1, 100), server(1, 100)], 9);
    for up in [false, true] {
        dispatch.set_up(0, up, now);
        dispatch.set_up(1, up, now);
    }
    assert!(dispatch.members().all(|(_, s)| s.ramping()));
    assert_eq!(
        (dispatch.limit(0), dispatch.limit(1)),
        (Some(100), Some(100))
    );
}

#[test]
fn the_queue_obeys_the_ramp() {
    let (mut dispatch, now) = dispatch(vec![server(1, 160), server(1, 1)], 999);
    dispatch.set_up(0, false, now);
    for slot in 0..100 {
        admit(&mut dispatch, slot);
    }
    dispatch.take_notices();
    dispatch.set_up(0, true, now);
    assert_eq!(dispatch.take_notices().len(), 10);
    dispatch.advance(now + Duration::from_secs(15));
    assert_eq!(dispatch.take_notices().len(), 30);
}

#[test]
fn a_restored_slowstart_goes_on_where_it_was() {
    let now = crate::net::clock::now() + Duration::from_secs(3600);
    let servers = vec![server(1, 0), server(1, 0)];
    let mut dispatch = Dispatch::new(&proxy(servers, MaxQueue::Total(1)));
    dispatch.restore(0, true, Some(Duration::from_secs(30)), now);
    dispatch.restore(1, true, None, now);
    assert_eq!(dispatch.server(0).unwrap().share(), 128);
    assert_eq!(dispatch.server(1).unwrap().share(), 256);
    assert_eq!(
        dispatch.server(0).unwrap().ramp_elapsed(now),
        Some(Duration::from_secs(30))
    );
}

/// Those that are held back have none.
pub(super) fn room_for_newcomers(dispatch: &Dispatch) -> bool {
    let mut usable = dispatch.members().filter(|(_, server)| server.usable());
    usable.any(|(place, _)| dispatch.board.slots(place).is_some_and(Slots::has_room))
}

/// Any mixture of events: limits hold, nobody is lost, nobody waits beside a free slot.
#[test]
fn seeded_runs_keep_every_invariant() {
    for seed in 1..=40_u64 {
        let mut state = seed;
        let mut next = move |limit: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % limit
        };
        let servers = vec![server(1, 3), server(2, 5), server(3, 4)];
        let limits = [3_u32, 5, 4];
        let (mut dispatch, mut now) = dispatch(servers, 10);
        let (mut held, mut waiting): (Vec<usize>, Vec<Ticket>) = (Vec::new(), Vec::new());
        for step in 0..4000_u32 {
            now += Duration::from_millis(next(400));
            let which = usize::try_from(next(3)).unwrap();
            match next(12) {
                0 => {
                    dispatch.set_up(which, next(3) > 0, now);
                }
                1 => {
                    let admin = [AdminState::Ready, AdminState::Drain, AdminState::Maint];
                    dispatch.set_admin(which, admin[usize::try_from(next(3)).unwrap()], now);
                }
                2 => dispatch.advance(now),
                3 if !waiting.is_empty() => {
                    let leaver = waiting.remove(0);
                    assert!(dispatch.leave(leaver));
                }
                4..=7 if !held.is_empty() => {
                    let index = usize::try_from(next(held.len() as u64)).unwrap();
                    dispatch.release(held.swap_remove(index));
                }
                _ => match admit(&mut dispatch, step) {
                    Admission::Server(server) => {
                        assert!(waiting.is_empty(), "overtook the queue");
                        held.push(server);
                    }
                    Admission::Queued(before) => {
                        assert_eq!(before, waiting.len());
                        waiting.push(ticket(step));
                    }
                    Admission::NoServer => assert_eq!(dispatch.usable(), 0),
                    Admission::QueueFull => assert!(waiting.len() >= 10),
                    Admission::NotInTime => panic!("nobody said what time it is"),
                },
            }
            for notice in dispatch.take_notices() {
                match notice {
                    Notice::Granted(ticket, server) => {
                        assert_eq!(waiting.remove(0), ticket, "out of order");
                        held.push(server);
                    }
                    Notice::NoServer(ticket) => assert_eq!(waiting.remove(0), ticket),
                }
            }
            assert_eq!(dispatch.queue().len(), waiting.len());
            for (index, limit) in limits.into_iter().enumerate() {
                let used = dispatch.board().slots(index).unwrap().used();
                assert!(used <= limit);
                assert_eq!(used as usize, held.iter().filter(|s| **s == index).count());
            }
            assert!(waiting.is_empty() || !room_for_newcomers(&dispatch));
            assert!(waiting.is_empty() || dispatch.usable() > 0);
        }
    }
}

fn backup(max: u32) -> model::Server {
    model::Server {
        backup: true,
        ..server(1, max)
    }
}

/// Where each of `count` new connections goes.
fn placed(dispatch: &mut Dispatch, count: u32) -> Vec<Admission> {
    (0..count).map(|slot| admit(dispatch, slot)).collect()
}

#[test]
fn backups_stand_in_together_when_no_other_server_is_usable_and_for_as_long() {
    let servers = vec![backup(0), server(1, 0), backup(0), server(1, 0)];
    let (mut dispatch, now) = dispatch(servers, 9);
    let on = Admission::Server;
    assert_eq!(placed(&mut dispatch, 4), [on(1), on(3), on(1), on(3)]);
    dispatch.set_up(1, false, now);
    assert_eq!(placed(&mut dispatch, 2), [on(3); 2]);
    dispatch.set_admin(3, AdminState::Drain, now);
    assert_eq!(placed(&mut dispatch, 4), [on(0), on(2), on(0), on(2)]);
    assert_eq!(dispatch.usable(), 2);
    dispatch.set_admin(3, AdminState::Ready, now);
    assert_eq!(placed(&mut dispatch, 2), [on(3); 2]);
}

#[test]
fn a_backup_with_room_is_no_reason_not_to_wait() {
    let (mut dispatch, now) = dispatch(vec![server(1, 1), backup(0)], 9);
    assert_eq!(admit(&mut dispatch, 1), Admission::Server(0));
    assert_eq!(admit(&mut dispatch, 2), Admission::Queued(0));
    // It is one when there is nothing left to wait for.
    dispatch.set_up(0, false, now);
    assert_eq!(dispatch.take_notices(), [Notice::Granted(ticket(2), 1)]);
}

#[test]
fn who_has_failed_on_every_server_tries_a_backup_before_checks_know() {
    for balance in [Balance::RoundRobin, Balance::SourceHash] {
        let mut config = proxy(
            vec![server(1, 0), server(1, 0), backup(0)],
            MaxQueue::Total(9),
        );
        config.balance = balance;
        let mut dispatch = Dispatch::new(&config);
        let now = crate::net::clock::now();
        (0..3).for_each(|server| assert!(dispatch.set_up(server, true, now)));
        let mut tried = Tried::default();
        let mut again = |tried| dispatch.admit(ticket(1), tried, Turn::Again, Key::NONE);
        tried.mark(0);
        assert_eq!(again(tried), Admission::Server(1));
        tried.mark(1);
        assert_eq!(again(tried), Admission::Server(2));
        tried.mark(2);
        assert!(matches!(again(tried), Admission::Server(0 | 1)));
    }
}

#[test]
fn who_has_failed_on_every_server_tries_those_that_are_held_back_last() {
    let servers = vec![server(1, 0), server(1, 0), backup(0)];
    let (mut dispatch, now) = dispatch(servers, 9);
    for _ in 0..3 {
        dispatch.set_up(0, false, now);
        dispatch.set_up(0, true, now);
    }
    assert!(!dispatch.server(0).unwrap().usable());
    let mut tried = Tried::default();
    let mut again = |tried| dispatch.admit(ticket(1), tried, Turn::Again, Key::NONE);
    for expected in [1, 2, 0] {
        assert_eq!(again(tried), Admission::Server(expected));
        tried.mark(expected);
    }
}

#[test]
fn servers_without_backups_beside_them_warm_up_unthrottled_though_a_backup_is_warm() {
    let (mut dispatch, now) = dispatch(vec![server(1, 100), backup(0)], 9);
    dispatch.set_up(0, false, now);
    dispatch.set_up(0, true, now);
    assert!(dispatch.server(0).unwrap().ramping());
    assert_eq!(dispatch.limit(0), Some(100));
}

#[test]
fn weights_change_at_run_time_and_the_shares_with_them_to_the_pick() {
    let (mut dispatch, _) = dispatch(vec![server(1, 0), server(1, 0)], 9);
    let mut got = [0; 2];
    for (weight, picks) in [(1, 50), (256, 2_570), (0, 100), (3, 400)] {
        dispatch.update(1, &server(weight, 0));
        for admission in placed(&mut dispatch, picks) {
            let Admission::Server(server) = admission else {
                panic!("refused");
            };
            got[server] += 1;
        }
    }
    // 25 + 10 + 100 + 100, and 25 + 2,560 + 0 + 300.
    assert_eq!(got, [235, 2_885]);
}

#[test]
fn over_a_whole_slowstart_a_server_gets_the_sum_of_its_shares_to_two_connections() {
    // 20 connections a second, a tick each 250 ms, 60 s: shares t/60 s, at least 1/16, of two
    // servers, weights 100 and 1 too. By the formula, summed up in floating point elsewhere:
    for (weights, expected) in [([1, 1], 369.3), ([100, 1], 1_157.7), ([1, 100], 6.0)] {
        let servers = weights.map(|weight| server(weight, 0)).to_vec();
        let (mut dispatch, now) = dispatch(servers, 9);
        dispatch.set_up(0, false, now);
        dispatch.set_up(0, true, now);
        let mut got = 0;
        for tick in 0..240 {
            dispatch.advance(now + Duration::from_millis(250 * tick));
            let five = placed(&mut dispatch, 5);
            got += five.iter().filter(|a| **a == Admission::Server(0)).count();
        }
        let off = f64::from(u32::try_from(got).unwrap()) - expected;
        assert!(off.abs() <= 2.0, "{weights:?}: {got}");
    }
}

#[test]
fn each_strategy_serves_newcomers_retries_and_the_queue() {
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::Random,
        Balance::SourceHash,
        Balance::First,
    ] {
        let mut config = proxy(vec![server(1, 2), server(2, 1)], MaxQueue::Total(2));
        config.balance = balance;
        let mut dispatch = Dispatch::new(&config);
        let now = crate::net::clock::now();
        (0..2).for_each(|server| assert!(dispatch.set_up(server, true, now)));
        let mut tried = Tried::default();
        tried.mark(0);
        let retry = dispatch.admit(ticket(1), tried, Turn::Again, Key::NONE);
        assert_eq!(retry, Admission::Server(1), "{balance:?}");
        let on = Admission::Server(0);
        let queued = Admission::Queued;
        assert_eq!(
            placed(&mut dispatch, 5),
            [on, on, queued(0), queued(1), Admission::QueueFull],
            "{balance:?}"
        );
        dispatch.release(1);
        dispatch.release(0);
        let granted = [Notice::Granted(ticket(2), 1), Notice::Granted(ticket(3), 0)];
        assert_eq!(dispatch.take_notices(), granted, "{balance:?}");
    }
}
