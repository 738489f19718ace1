//! The queue, its outlook and the pace of servers, as [`super::Dispatch`] puts them together: on a
//! simulated clock.

use std::num::NonZeroU32;

use super::tests::{proxy, server};
use super::*;

fn paced(rate: u32, max: u32) -> model::Server {
    model::Server {
        connects_per_second: NonZeroU32::new(rate),
        ..server(1, max)
    }
}

fn start(servers: Vec<model::Server>, max_queue: u32) -> (Dispatch, Instant) {
    let now = crate::net::clock::now();
    let count = servers.len();
    let mut dispatch = Dispatch::new(&proxy(servers, MaxQueue::Total(max_queue)));
    dispatch.at(now);
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
    dispatch.admit(ticket(slot), Tried::NONE, Turn::First, Key::NONE)
}

/// Who was served since the last look: slot and server.
fn granted(dispatch: &mut Dispatch) -> Vec<(u32, usize)> {
    let notices = dispatch.take_notices().into_iter();
    let granted = notices.map(|notice| match notice {
        Notice::Granted(ticket, server) => (ticket.slot, server),
        Notice::NoServer(_) => panic!("{notice:?}"),
    });
    granted.collect()
}

#[test]
fn paced_servers_take_a_herd_at_their_rates_in_order_and_nobody_slips_past_the_lock() {
    let (mut dispatch, begin) = start(vec![paced(50, 0), paced(20, 0)], 5000);
    let mut served = Vec::new();
    for slot in 0..1000 {
        assert_eq!(dispatch.board().take(Key::NONE), None);
        if let Admission::Server(server) = admit(&mut dispatch, slot) {
            served.push((slot, server));
        }
    }
    assert_eq!(served.len(), 2);
    // Looked at only when the dispatcher says so, and each time half a millisecond late.
    let mut looks = 0;
    while let Some(wake) = dispatch.wake()
        && wake < begin + Duration::from_secs(10)
    {
        dispatch.at(wake + Duration::from_micros(500));
        dispatch.pump();
        served.extend(granted(&mut dispatch));
        looks += 1;
    }
    assert!(looks <= 700, "{looks}");
    let count = |which| served.iter().filter(|(_, server)| *server == which).count();
    assert!((499..=501).contains(&count(0)), "{}", count(0));
    assert!((199..=201).contains(&count(1)), "{}", count(1));
    assert!(served.iter().map(|(slot, _)| *slot).is_sorted());
}

#[test]
fn the_unpaced_takes_what_the_paced_may_not_and_nobody_waits_for_nothing() {
    let (mut dispatch, _) = start(vec![paced(1, 0), server(1, 0)], 5);
    let picks: Vec<_> = (0..4).map(|slot| admit(&mut dispatch, slot)).collect();
    assert_eq!(
        picks,
        [0, 1, 1, 1].map(Admission::Server),
        "one a second, and the rest elsewhere"
    );
    assert_eq!(dispatch.wake(), None);
}

#[test]
fn a_paced_server_keeps_its_limit_and_shows_it() {
    let (mut dispatch, begin) = start(vec![paced(10, 2)], 5);
    let second = begin + Duration::from_millis(100);
    assert_eq!(admit(&mut dispatch, 0), Admission::Server(0));
    assert_eq!(admit(&mut dispatch, 1), Admission::Queued(0));
    assert_eq!(
        (dispatch.wake(), dispatch.limit(0)),
        (Some(second), Some(2))
    );
    dispatch.at(second);
    dispatch.pump();
    assert_eq!(granted(&mut dispatch), [(1, 0)]);
    // Now it is full: time alone brings nothing, and somebody who leaves does.
    assert_eq!(admit(&mut dispatch, 2), Admission::Queued(0));
    dispatch.at(begin + Duration::from_secs(1));
    dispatch.pump();
    assert_eq!((granted(&mut dispatch), dispatch.wake()), (vec![], None));
    dispatch.release(0);
    assert_eq!(granted(&mut dispatch), [(2, 0)]);
}

#[test]
fn when_the_last_waiter_leaves_nobody_is_woken_and_idle_time_is_not_saved_up() {
    let (mut dispatch, begin) = start(vec![paced(10, 0)], 5);
    assert_eq!(admit(&mut dispatch, 0), Admission::Server(0));
    assert_eq!(admit(&mut dispatch, 1), Admission::Queued(0));
    assert!(dispatch.leave(ticket(1)));
    assert_eq!(dispatch.wake(), None);
    dispatch.at(begin + Duration::from_secs(60));
    assert_eq!(admit(&mut dispatch, 2), Admission::Server(0));
    assert_eq!(admit(&mut dispatch, 3), Admission::Queued(0));
}

#[test]
fn a_proxy_whose_paced_servers_left_service_and_came_back_is_still_paced() {
    let (mut dispatch, begin) = start(vec![paced(10, 0), paced(10, 0)], 5);
    for server in [0, 1] {
        dispatch.set_admin(server, AdminState::Drain, begin);
    }
    assert_eq!(admit(&mut dispatch, 0), Admission::NoServer);
    dispatch.set_admin(1, AdminState::Ready, begin);
    assert_eq!(dispatch.board().take(Key::NONE), None);
    assert_eq!(admit(&mut dispatch, 0), Admission::Server(1));
    assert_eq!(admit(&mut dispatch, 1), Admission::Queued(0));
}

#[test]
fn who_cannot_be_served_in_time_is_refused_early_but_never_before_that_is_known() {
    // One slot, given back each 100 ms, and 5 s of patience: 50 are served in that time.
    let (mut dispatch, begin) = start(vec![server(1, 1)], 1000);
    assert_eq!(admit(&mut dispatch, 0), Admission::Server(0));
    for slot in 1..=400 {
        assert!(matches!(admit(&mut dispatch, slot), Admission::Queued(_)));
    }
    for step in 1..=49 {
        dispatch.at(begin + Duration::from_millis(100 * step));
        dispatch.release(0);
    }
    assert!(matches!(admit(&mut dispatch, 401), Admission::Queued(_)));
    dispatch.at(begin + Duration::from_secs(5));
    dispatch.release(0);
    assert_eq!(admit(&mut dispatch, 402), Admission::NotInTime);
    // Once nobody waits, nothing is known any more.
    for slot in 51..=401 {
        assert!(dispatch.leave(ticket(slot)));
    }
    assert_eq!(dispatch.queue().len(), 0);
    for slot in 500..1000 {
        assert!(
            matches!(admit(&mut dispatch, slot), Admission::Queued(_)),
            "nothing is known again"
        );
    }
}

#[test]
fn a_steady_overload_is_held_to_what_can_be_served() {
    // 10 a second are served and 20 a second come; each waits for 5 s at most.
    let (mut dispatch, begin) = start(vec![server(1, 1)], 1000);
    admit(&mut dispatch, 0);
    let (mut refused, mut too_late, mut waiting) = (0, 0, std::collections::VecDeque::new());
    for step in 1..=1200_u32 {
        let now = begin + Duration::from_millis(50) * step;
        dispatch.at(now);
        if step % 2 == 0 {
            dispatch.release(0);
        }
        for (slot, _) in granted(&mut dispatch) {
            assert_eq!(waiting.pop_front().map(|(slot, _)| slot), Some(slot));
        }
        while let Some((slot, since)) = waiting.front().copied()
            && now.saturating_duration_since(since) >= Duration::from_secs(5)
        {
            assert!(dispatch.leave(ticket(slot)));
            waiting.pop_front();
            too_late += 1;
        }
        match admit(&mut dispatch, step) {
            Admission::Queued(_) => waiting.push_back((step, now)),
            Admission::NotInTime => refused += 1,
            other @ (Admission::Server(_) | Admission::NoServer | Admission::QueueFull) => {
                panic!("{other:?}")
            }
        }
        assert!(waiting.len() <= 101, "{}", waiting.len());
    }
    // Of 1,200 that came in a minute 600 could be served; nearly all others heard so at once.
    assert!((500..=600).contains(&refused), "{refused}");
    assert!(too_late <= 50, "{too_late}");
}

#[test]
fn a_server_that_comes_back_brings_hope() {
    let (mut dispatch, begin) = start(vec![server(1, 1), server(1, 1)], 1000);
    dispatch.set_admin(1, AdminState::Drain, begin);
    admit(&mut dispatch, 0);
    for slot in 1..=10 {
        admit(&mut dispatch, slot);
    }
    dispatch.at(begin + Duration::from_secs(5));
    assert_eq!(admit(&mut dispatch, 11), Admission::NotInTime);
    dispatch.set_admin(1, AdminState::Ready, begin + Duration::from_secs(5));
    assert_eq!(granted(&mut dispatch), [(1, 1)]);
    assert_eq!(admit(&mut dispatch, 12), Admission::Queued(9));
}

fn limits_hold(dispatch: &Dispatch, limits: [u32; 3], held: &[usize]) {
    for (server, limit) in limits.into_iter().enumerate() {
        let used = dispatch.board().slots(server).unwrap().used();
        assert!(used <= limit);
        assert_eq!(used as usize, held.iter().filter(|s| **s == server).count());
    }
}

fn kept_pace(times: &[Instant], rate: u32) {
    if rate == 0 {
        return;
    }
    for window in times.windows(9) {
        // Nine connects are eight gaps, less what a wake-up 1 ms late may make up for.
        let least = Duration::from_secs(8) / rate - Duration::from_millis(101);
        assert!(window[8] - window[0] >= least, "{rate}");
    }
}

/// Any mixture of events before paced and unpaced servers: limits and paces hold, order is kept,
/// nobody waits beside an open server, and whoever waits for a pace is woken for it.
#[test]
fn seeded_runs_keep_every_pace() {
    const RATES: [u32; 3] = [40, 0, 7];
    const LIMITS: [u32; 3] = [6, 2, 9];
    for seed in 1..=40_u64 {
        let mut state = seed;
        let mut next = move |limit: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % limit
        };
        let servers = RATES
            .iter()
            .zip(LIMITS)
            .map(|(r, l)| paced(*r, l))
            .collect();
        let (mut dispatch, mut now) = start(servers, 12);
        let mut begun: [Vec<Instant>; 3] = Default::default();
        let (mut held, mut waiting): (Vec<usize>, Vec<Ticket>) = (Vec::new(), Vec::new());
        for step in 0..3000_u32 {
            now += Duration::from_millis(next(30));
            if let Some(wake) = dispatch.wake() {
                assert!(!waiting.is_empty());
                now = now.min(wake + Duration::from_millis(1));
            }
            dispatch.at(now);
            dispatch.pump();
            let which = usize::try_from(next(3)).unwrap();
            match next(12) {
                0 => {
                    dispatch.set_up(which, next(4) > 0, now);
                }
                1 if !waiting.is_empty() => {
                    let leaver = usize::try_from(next(waiting.len() as u64)).unwrap();
                    // It may have been served by the pump.
                    if dispatch.leave(waiting[leaver]) {
                        waiting.remove(leaver);
                    }
                }
                2..=5 if !held.is_empty() => {
                    let index = usize::try_from(next(held.len() as u64)).unwrap();
                    dispatch.release(held.swap_remove(index));
                }
                _ => match admit(&mut dispatch, step) {
                    Admission::Server(server) => {
                        held.push(server);
                        begun[server].push(now);
                    }
                    Admission::Queued(_) => waiting.push(ticket(step)),
                    Admission::NoServer => assert_eq!(dispatch.usable(), 0),
                    Admission::QueueFull => assert!(dispatch.queue().len() >= 12),
                    Admission::NotInTime => assert!(!dispatch.queue().is_empty()),
                },
            }
            for notice in dispatch.take_notices() {
                match notice {
                    Notice::Granted(ticket, server) => {
                        assert_eq!(waiting.remove(0), ticket, "out of order");
                        held.push(server);
                        begun[server].push(now);
                    }
                    Notice::NoServer(ticket) => assert_eq!(waiting.remove(0), ticket),
                }
            }
            assert_eq!(dispatch.queue().len(), waiting.len());
            assert!(waiting.is_empty() || !tests::room_for_newcomers(&dispatch));
            limits_hold(&dispatch, LIMITS, &held);
        }
        for (times, rate) in begun.iter().zip(RATES) {
            kept_pace(times, rate);
        }
    }
}

#[test]
fn a_slot_beside_another_counts_towards_the_pace_as_well() {
    let (mut dispatch, begin) = start(vec![server(1, 0), paced(10, 0)], 5);
    let mut taken = 0;
    for ms in 0..1000 {
        dispatch.at(begin + Duration::from_millis(ms));
        for _ in 0..3 {
            taken += usize::from(dispatch.take_beside(|place| place == 1).is_some());
        }
    }
    assert_eq!(taken, 10);
}

#[test]
fn one_that_failed_on_all_in_force_gets_a_backup_although_others_wait_for_those() {
    let backup = model::Server {
        backup: true,
        ..server(1, 1)
    };
    let (mut dispatch, _) = start(vec![server(1, 1), backup], 5);
    let mut failed = Tried::default();
    failed.mark(0);
    let again = |dispatch: &mut Dispatch, slot| {
        dispatch.admit(ticket(slot), failed, Turn::Again, Key::NONE)
    };
    assert_eq!(admit(&mut dispatch, 0), Admission::Server(0));
    assert_eq!(admit(&mut dispatch, 1), Admission::Queued(0));
    assert_eq!(again(&mut dispatch, 2), Admission::Queued(0));
    assert_eq!(granted(&mut dispatch), [(2, 1)]);
    // It is full now; the next waits for it, and does not ask the one it failed on.
    assert_eq!(again(&mut dispatch, 3), Admission::Queued(0));
    dispatch.release(0);
    assert_eq!(granted(&mut dispatch), [(1, 0)]);
    dispatch.release(0);
    assert_eq!(granted(&mut dispatch), []);
    dispatch.release(1);
    assert_eq!(granted(&mut dispatch), [(3, 1)]);
}
