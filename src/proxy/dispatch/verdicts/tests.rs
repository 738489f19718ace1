//! What checks and traffic do to servers: tables, and seeded runs against the rules in words.

use super::super::*;
use super::*;
use crate::proxy::dispatch::tests::{proxy, server};

const TICKET: Ticket = Ticket {
    worker: 0,
    slot: 0,
    serial: 0,
};

fn start() -> Instant {
    crate::net::clock::now()
}

fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// `servers` servers that are up since `now`, half of which may be ejected.
fn ready(servers: usize, now: Instant) -> Dispatch {
    with(servers, now, |_| {})
}

fn with(servers: usize, now: Instant, change: impl FnOnce(&mut model::Proxy)) -> Dispatch {
    let mut config = proxy(vec![server(1, 1_000); servers], MaxQueue::Total(0));
    config.max_ejected = 50;
    change(&mut config);
    let mut dispatch = Dispatch::new(&config);
    for server in 0..servers {
        assert!(dispatch.set_health(server, READY, now));
    }
    dispatch.take_news();
    dispatch
}

fn usable(dispatch: &Dispatch) -> Vec<bool> {
    dispatch.members().map(|(_, s)| s.usable()).collect()
}

/// A check that began and ended at `now`.
fn check(dispatch: &mut Dispatch, server: usize, by_rules: Health, found: Health, now: Instant) {
    let checked = Checked {
        health: by_rules,
        found,
        began: now,
    };
    dispatch.on_check(server, checked, now);
}

fn fail_connects(dispatch: &mut Dispatch, server: usize, times: usize, now: Instant) {
    for _ in 0..times {
        dispatch.connect_failed(server, 0, now);
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn tally(asked: u64, answered: u64) -> Tally {
    Tally {
        asked,
        answered,
        ..Tally::default()
    }
}

/// Looks at `servers` servers for so many milliseconds, each 50 ms: those in `silent` take what they
/// are asked, the others answer one each time.
fn look(dispatch: &mut Dispatch, servers: usize, silent: &[usize], from: Instant, ms: u64) {
    for step in 0..=ms / 50 {
        let tallies = (0..servers).map(|place| match silent.contains(&place) {
            true => (place, tally(9, 0)),
            false => (place, tally(9, step + 1)),
        });
        let tallies: Vec<(usize, Tally)> = tallies.collect();
        dispatch.watch_answers(&tallies, at(from, step * 50));
    }
}

fn closed(dispatch: &mut Dispatch) -> Vec<usize> {
    let news = dispatch.take_news().into_iter();
    news.filter_map(|news| match news {
        News::Close(server) => Some(server),
        News::Elsewhere(_)
        | News::Check(_)
        | News::Suspect(_)
        | News::Ejected(..)
        | News::Returned(..)
        | News::Held(..)
        | News::Believed(_)
        | News::Panic(_) => None,
    })
    .collect()
}

const NOT_READY: Health = Health::NotReady;
const READY: Health = Health::Ready;
const UNRESPONSIVE: Health = Health::Unresponsive;

#[test]
fn three_failed_connects_in_a_row_eject_a_server_until_a_later_check_finds_it_well() {
    let start = start();
    let mut dispatch = ready(3, start);
    fail_connects(&mut dispatch, 0, 2, at(start, 10));
    assert_eq!(usable(&dispatch), [true, true, true]);
    assert_eq!(dispatch.take_news(), [News::Check(0), News::Check(0)]);
    fail_connects(&mut dispatch, 0, 1, at(start, 20));
    assert_eq!(usable(&dispatch), [false, true, true]);
    assert_eq!((dispatch.usable(), dispatch.able()), (2, 3));
    assert_eq!(
        dispatch.take_news(),
        [
            News::Check(0),
            News::Ejected(0, Grounds::Connects),
            News::Elsewhere(0),
            News::Check(0)
        ]
    );
    // Under way since before it was ejected.
    let old = Checked {
        health: READY,
        found: READY,
        began: at(start, 19),
    };
    dispatch.on_check(0, old, at(start, 30));
    assert_eq!(usable(&dispatch), [false, true, true]);
    check(&mut dispatch, 0, READY, READY, at(start, 40));
    assert_eq!(usable(&dispatch), [true, true, true]);
    assert_eq!(
        dispatch.take_news(),
        [News::Returned(0, Duration::from_millis(20))]
    );
}

#[test]
fn at_most_half_are_ejected_and_never_the_last() {
    // Servers, the share allowed, whose connects fail, who is usable then.
    let table: [(usize, u8, &[usize], &[bool]); 8] = [
        (1, 50, &[0], &[true]),
        (1, 100, &[0], &[true]),
        (2, 50, &[0, 1], &[false, true]),
        (2, 49, &[0, 1], &[true, true]),
        (3, 50, &[0, 1], &[false, true, true]),
        (4, 50, &[0, 1, 2], &[false, false, true, true]),
        (3, 100, &[2, 1, 0], &[true, false, false]),
        (4, 0, &[0, 1], &[true, true, true, true]),
    ];
    for (servers, percent, failing, expected) in table {
        let start = start();
        let mut dispatch = with(servers, start, |config| config.max_ejected = percent);
        for server in failing {
            fail_connects(&mut dispatch, *server, 5, start);
        }
        assert_eq!(
            usable(&dispatch),
            expected,
            "{servers} {percent} {failing:?}"
        );
    }
}

#[test]
fn a_suspicion_that_a_check_confirms_ejects_before_the_checks_have_failed_often_enough() {
    let start = start();
    let mut dispatch = ready(3, start);
    dispatch.watch_answers(&[(1, tally(3, 0))], at(start, 0));
    assert_eq!(dispatch.take_news(), []);
    dispatch.watch_answers(&[(1, tally(9, 0))], at(start, 500));
    assert_eq!(dispatch.take_news(), [News::Suspect(1), News::Check(1)]);
    assert_eq!(usable(&dispatch), [true, true, true]);
    check(&mut dispatch, 1, READY, UNRESPONSIVE, at(start, 510));
    assert_eq!(usable(&dispatch), [true, false, true]);
    // One failure without a suspicion is HAProxy's counter's business alone.
    check(&mut dispatch, 2, READY, UNRESPONSIVE, at(start, 510));
    assert_eq!(usable(&dispatch), [true, false, true]);
}

#[test]
fn a_server_that_answers_nobody_for_a_quarter_second_while_others_do_is_ejected() {
    let start = start();
    let mut dispatch = ready(3, start);
    look(&mut dispatch, 3, &[1], start, 200);
    assert_eq!(dispatch.take_news(), []);
    assert_eq!(usable(&dispatch), [true, true, true]);
    look(&mut dispatch, 3, &[1], at(start, 250), 0);
    assert_eq!(usable(&dispatch), [true, false, true]);
    assert_eq!(
        dispatch.take_news(),
        [
            News::Suspect(1),
            News::Check(1),
            News::Ejected(1, Grounds::Silence),
            News::Elsewhere(1),
            News::Check(1)
        ]
    );
    // A check lets it back, and those who had come before say nothing any more.
    check(&mut dispatch, 1, READY, READY, at(start, 300));
    assert_eq!(usable(&dispatch), [true, true, true]);
    look(&mut dispatch, 3, &[1], at(start, 350), 3_000);
    assert_eq!(usable(&dispatch), [true, true, true]);
}

#[test]
fn a_pause_of_all_servers_ejects_nobody() {
    let start = start();
    let mut dispatch = ready(3, start);
    look(&mut dispatch, 3, &[0, 1, 2], at(start, 550), 1_000);
    // One wakes up a little before the others.
    look(&mut dispatch, 3, &[0, 1], at(start, 1_600), 150);
    look(&mut dispatch, 3, &[], at(start, 1_800), 500);
    assert_eq!(usable(&dispatch), [true, true, true]);
    assert!(!dispatch.take_news().contains(&News::Elsewhere(0)));
}

#[test]
fn silence_ejects_at_most_half_and_nobody_where_nobody_may_be_ejected() {
    let start = start();
    let mut dispatch = ready(5, start);
    look(&mut dispatch, 5, &[0, 1, 2, 3], start, 1_000);
    assert_eq!(usable(&dispatch), [false, false, true, true, true]);
    let mut dispatch = with(3, start, |config| config.max_ejected = 0);
    look(&mut dispatch, 3, &[1], start, 1_000);
    assert_eq!(usable(&dispatch), [true, true, true]);
    // A check is asked all the same.
    assert!(dispatch.take_news().contains(&News::Check(1)));
}

#[test]
fn connections_ended_before_an_answer_eject_a_server_only_in_a_row_and_while_others_answer() {
    let start = start();
    let cases = [
        // Three in a row while others answered.
        ([(7, 10, 0), (7, 11, 30), (7, 12, 60)], false),
        // One was answered in between.
        ([(7, 10, 0), (7, 11, 30), (8, 12, 60)], true),
        // Nobody was answered anywhere: perhaps it is what they all do.
        ([(7, 10, 0), (7, 10, 30), (7, 10, 60)], true),
        // Too far apart.
        ([(7, 10, 0), (7, 11, 30), (7, 12, 1_030)], true),
    ];
    for (ends, expected) in cases {
        let mut dispatch = ready(3, start);
        for (answered, elsewhere, ms) in ends {
            assert_eq!(usable(&dispatch), [true, true, true]);
            dispatch.broke_off(1, answered, elsewhere, at(start, ms));
            assert!(dispatch.take_news().contains(&News::Check(1)));
        }
        assert_eq!(usable(&dispatch), [true, expected, true], "{ends:?}");
    }
}

#[test]
fn three_connects_without_an_answer_eject_a_server_once_a_quarter_second_has_passed() {
    let start = start();
    // Connected so far, began, now.
    let cases = [
        ([(7, 0, 50), (7, 10, 60), (7, 300, 350)], false),
        ([(7, 0, 50), (7, 10, 60), (7, 20, 70)], true),
        ([(7, 0, 50), (7, 10, 60), (8, 300, 350)], true),
    ];
    for (connects, expected) in cases {
        let mut dispatch = ready(3, start);
        for (connected, began, now) in connects {
            dispatch.connect_silent(1, connected, at(start, began), at(start, now));
        }
        assert_eq!(usable(&dispatch), [true, expected, true], "{connects:?}");
    }
}

#[test]
fn when_only_ejected_servers_could_serve_they_are_used() {
    let start = start();
    let mut dispatch = ready(2, start);
    fail_connects(&mut dispatch, 0, 3, start);
    assert_eq!(usable(&dispatch), [false, true]);
    dispatch.take_news();
    dispatch.set_health(1, NOT_READY, at(start, 10));
    assert_eq!(usable(&dispatch), [true, false]);
    assert!(dispatch.panics() && dispatch.server(0).unwrap().spared());
    assert_eq!(
        dispatch.admit(TICKET, Tried::NONE, Turn::First, Key::NONE),
        Admission::Server(0)
    );
    assert_eq!(
        dispatch.take_news(),
        [News::Elsewhere(1), News::Panic(true)]
    );
    dispatch.set_health(1, READY, at(start, 20));
    assert_eq!(usable(&dispatch), [false, true]);
    assert!(!dispatch.panics());
}

#[test]
fn a_server_that_flaps_is_held_back_while_there_is_another_and_never_when_it_is_the_only_one() {
    let start = start();
    let mut dispatch = ready(2, start);
    for second in [1, 3, 5] {
        dispatch.set_health(0, NOT_READY, at(start, second * 1_000));
        dispatch.set_health(0, READY, at(start, second * 1_000 + 500));
    }
    // A rise of 2 has become one of 4.
    assert_eq!(usable(&dispatch), [false, true]);
    assert!(dispatch.take_news().contains(&News::Held(0, 2)));
    dispatch.set_health(1, NOT_READY, at(start, 6_000));
    assert_eq!(usable(&dispatch), [true, false]);
    dispatch.set_health(1, READY, at(start, 6_100));
    assert_eq!(usable(&dispatch), [false, true]);
    check(&mut dispatch, 0, READY, READY, at(start, 7_000));
    assert_eq!(usable(&dispatch), [false, true]);
    check(&mut dispatch, 0, READY, READY, at(start, 8_000));
    assert_eq!(usable(&dispatch), [true, true]);
    assert!(dispatch.take_news().contains(&News::Believed(0)));
    assert!(
        dispatch.server(0).unwrap().ramping(),
        "slowstart begins then"
    );
}

/// Checks in order: milliseconds, server, what the rules make of it, what it found; then the
/// servers whose connections were closed by it.
type Step = (u64, usize, Health, Health, &'static [usize]);

fn walk(dispatch: &mut Dispatch, start: Instant, steps: &[Step]) {
    for (ms, server, by_rules, found, expected) in steps {
        check(dispatch, *server, *by_rules, *found, at(start, *ms));
        assert_eq!(closed(dispatch), *expected, "at {ms} ms");
    }
}

#[test]
fn connections_of_an_unresponsive_server_are_closed_once_another_was_well_meanwhile() {
    let start = start();
    let mut dispatch = ready(3, start);
    walk(
        &mut dispatch,
        start,
        &[
            (1_000, 0, READY, UNRESPONSIVE, &[]),
            // Down by the rules; nobody is known to have been well since the first failure.
            (1_500, 0, UNRESPONSIVE, UNRESPONSIVE, &[]),
            (1_500, 2, READY, UNRESPONSIVE, &[]),
            // This one has been since before that failure, and still is.
            (1_600, 1, READY, READY, &[0]),
            // Told once.
            (2_500, 0, UNRESPONSIVE, UNRESPONSIVE, &[]),
            (3_500, 0, UNRESPONSIVE, UNRESPONSIVE, &[]),
        ],
    );
    assert!(dispatch.closes(0) && !dispatch.closes(1));
    // A sign of life.
    check(&mut dispatch, 0, NOT_READY, NOT_READY, at(start, 4_000));
    assert!(!dispatch.closes(0));
}

#[test]
fn they_are_closed_at_once_when_another_is_known_to_be_well() {
    let start = start();
    let mut dispatch = ready(2, start);
    walk(
        &mut dispatch,
        start,
        &[
            (900, 1, READY, READY, &[]),
            (1_000, 0, READY, UNRESPONSIVE, &[]),
            (1_400, 1, READY, READY, &[]),
            (1_500, 0, UNRESPONSIVE, UNRESPONSIVE, &[0]),
        ],
    );
}

#[test]
fn a_lost_server_has_itself_and_a_few_others_checked() {
    let start = start();
    let mut dispatch = ready(6, start);
    check(&mut dispatch, 0, UNRESPONSIVE, UNRESPONSIVE, at(start, 100));
    let expected = [
        News::Elsewhere(0),
        News::Check(0),
        News::Check(1),
        News::Check(2),
        News::Check(3),
    ];
    assert_eq!(dispatch.take_news(), expected);
}

#[test]
fn when_all_are_unresponsive_nobody_is_closed_until_one_is_back_and_another_fails_again() {
    let start = start();
    let mut dispatch = ready(3, start);
    walk(
        &mut dispatch,
        start,
        &[
            (1_000, 0, READY, UNRESPONSIVE, &[]),
            (1_010, 1, READY, UNRESPONSIVE, &[]),
            (1_020, 2, READY, UNRESPONSIVE, &[]),
            // The first is down while the others are still up by the rules.
            (1_750, 0, UNRESPONSIVE, UNRESPONSIVE, &[]),
            (1_760, 1, UNRESPONSIVE, UNRESPONSIVE, &[]),
            (1_770, 2, UNRESPONSIVE, UNRESPONSIVE, &[]),
            (2_750, 0, UNRESPONSIVE, UNRESPONSIVE, &[]),
            // One is back. The others may be, too.
            (3_000, 1, NOT_READY, READY, &[]),
            (3_250, 1, READY, READY, &[]),
            // This one is, this one is not.
            (3_300, 0, NOT_READY, READY, &[]),
            (3_310, 2, UNRESPONSIVE, UNRESPONSIVE, &[2]),
        ],
    );
}

#[test]
fn what_becomes_of_connections_is_as_configured() {
    let start = start();
    let table = [
        (OnUnresponsive::Reset, OnNotReady::Drain, UNRESPONSIVE, true),
        (OnUnresponsive::Reset, OnNotReady::Drain, NOT_READY, false),
        (OnUnresponsive::Keep, OnNotReady::Drain, UNRESPONSIVE, false),
        (OnUnresponsive::Keep, OnNotReady::Reset, NOT_READY, true),
        (OnUnresponsive::Keep, OnNotReady::Reset, UNRESPONSIVE, false),
    ];
    for (on_unresponsive, on_not_ready, health, expected) in table {
        let mut dispatch = with(2, start, |config| {
            config.on_unresponsive = on_unresponsive;
            config.on_not_ready = on_not_ready;
        });
        check(&mut dispatch, 0, health, health, at(start, 100));
        check(&mut dispatch, 1, READY, READY, at(start, 110));
        check(&mut dispatch, 0, health, health, at(start, 120));
        assert_eq!(dispatch.closes(0), expected, "{health:?}");
        // Nobody else takes new connections.
        dispatch.set_admin(1, AdminState::Drain, at(start, 130));
        assert!(!dispatch.closes(0));
    }
}

#[test]
fn random_histories_keep_the_rules() {
    for seed in 1..=200_u64 {
        let mut random = seed;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 33) % below
        };
        let mut now = start();
        let servers = usize::try_from(1 + next(5)).unwrap();
        let mut dispatch = ready(servers, now);
        for step in 0..400 {
            now += Duration::from_millis(next(400));
            let server = usize::try_from(next(5)).unwrap();
            match next(5) {
                0 => dispatch.connect_failed(server, next(3), now),
                1 => {
                    let other = (server + 1) % 5;
                    let tallies = [(server, tally(step, 0)), (other, tally(step, step))];
                    dispatch.watch_answers(&tallies, now);
                }
                2 => {
                    dispatch.broke_off(server, next(2), step, now);
                    dispatch.connect_silent(server, next(2), now - SECOND, now);
                }
                _ => {
                    let kinds = [READY, NOT_READY, UNRESPONSIVE];
                    let found = kinds[usize::try_from(next(3)).unwrap()];
                    let by_rules = kinds[usize::try_from(next(3)).unwrap()];
                    check(&mut dispatch, server, by_rules, found, now);
                }
            }
            let servers: Vec<&Server> = dispatch.members().map(|(_, s)| s).collect();
            let context = format!("seed {seed} step {step}");
            // Whoever could serve is not kept from it by what is held against it, if all are.
            assert_eq!(dispatch.usable() > 0, dispatch.able() > 0, "{context}");
            for (place, server) in servers.iter().enumerate() {
                assert!(!server.usable() || server.able(), "{context}");
                if dispatch.closes(place) {
                    assert!(!server.able(), "{context}");
                    let others = servers.iter().enumerate();
                    let mut others = others.filter(|(at, _)| *at != place);
                    assert!(others.any(|(_, other)| other.able()), "{context}");
                }
                let ejected = server.evidence.ejected().is_some();
                assert!(
                    !ejected || server.operational() == Operational::Up,
                    "{context}"
                );
            }
            for news in dispatch.take_news() {
                if let News::Ejected(..) = news {
                    let able = servers_able(&dispatch);
                    let ejected = dispatch.members().map(|(_, s)| s).filter(|s| s.able());
                    let ejected = ejected.filter(|s| s.evidence.ejected().is_some()).count();
                    assert!(ejected * 2 <= able && ejected < able, "{context}");
                }
            }
        }
    }
}

fn servers_able(dispatch: &Dispatch) -> usize {
    dispatch
        .members()
        .map(|(_, s)| s)
        .filter(|s| s.able())
        .count()
}

#[test]
fn many_servers_that_are_all_lost_cost_a_check_no_more_than_a_look_at_each() {
    let start = start();
    let mut dispatch = with(1_000, start, |config| {
        config.balance = Balance::First;
    });
    // This thread's own time: others may have the machine.
    let spent = || {
        let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
        Duration::from(nix::time::clock_gettime(clock).unwrap())
    };
    let before = spent();
    for server in 0..1_000 {
        dispatch.set_health(server, UNRESPONSIVE, start);
    }
    for server in 0..1_000 {
        check(
            &mut dispatch,
            server,
            UNRESPONSIVE,
            UNRESPONSIVE,
            at(start, 1),
        );
    }
    let took = spent() - before;
    assert_eq!(
        closed(&mut dispatch).len(),
        999,
        "all but the last that was well"
    );
    // Each looking at each other takes half a minute.
    assert!(took < Duration::from_secs(6), "{took:?}");
}
