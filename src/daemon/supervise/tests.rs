//! The supervisor, state by input.

use super::*;

fn at(base: Instant, ms: u64) -> Instant {
    base + Duration::from_millis(ms)
}

/// One worker (thread 7), alive and serving, last heard at `base`.
fn serving(base: Instant) -> Supervisor {
    let mut machine = Supervisor::new(base);
    assert_eq!(machine.handle(base, Input::Tick), [Action::Start]);
    assert_eq!(machine.handle(base, Input::Heartbeat(&[(7, 0)])), []);
    assert_eq!(machine.handle(base, Input::Served), []);
    machine
}

/// The next deadline, asked for before any verdict deadline of these tests has passed.
fn due(machine: &Supervisor) -> Option<Instant> {
    machine.deadline(machine.began)
}

fn control(state: char, run_ms: u64, wait_ms: u64) -> Finding {
    Finding {
        thread: Thread::Control,
        state,
        run_ns: run_ms * 1_000_000,
        wait_ns: wait_ms * 1_000_000,
    }
}

/// Silence with these two looks at the control thread, at 150 ms and at 250 ms.
fn silence(first: Finding, second: Finding) -> (Supervisor, Vec<Action>, Instant) {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    assert_eq!(due(&machine), Some(at(base, 150)));
    let look = Action::Examine(vec![Thread::Control]);
    assert_eq!(
        machine.handle(at(base, 150), Input::Tick),
        std::slice::from_ref(&look)
    );
    assert_eq!(machine.handle(at(base, 150), Input::Examined(&[first])), []);
    assert_eq!(due(&machine), Some(at(base, 250)));
    assert_eq!(machine.handle(at(base, 250), Input::Tick), [look]);
    let actions = machine.handle(at(base, 250), Input::Examined(&[second]));
    (machine, actions, base)
}

#[test]
fn the_first_start_is_due_at_once_and_nothing_is_known_for_five_seconds() {
    let base = crate::net::clock::now();
    let mut machine = Supervisor::new(base);
    assert_eq!(due(&machine), Some(base));
    assert_eq!(machine.handle(base, Input::Tick), [Action::Start]);
    assert_eq!(machine.standing(at(base, 4_999)), Standing::Unknown);
    assert_eq!(machine.standing(at(base, 5_000)), Standing::Lost);
    assert_eq!(due(&machine), Some(at(base, 3_000)));
}

#[test]
fn heartbeats_alone_do_not_make_a_node_that_serves() {
    let base = crate::net::clock::now();
    let mut machine = Supervisor::new(base);
    machine.handle(base, Input::Tick);
    machine.handle(base, Input::Heartbeat(&[]));
    assert_eq!(machine.standing(base), Standing::Unknown);
    machine.handle(base, Input::Served);
    assert_eq!(machine.standing(at(base, 60_000)), Standing::Fine);
}

#[test]
fn a_stopped_proxy_is_hung_after_250_ms_and_killed_after_two_more_seconds() {
    let (mut machine, actions, base) = silence(control('T', 10, 0), control('T', 10, 0));
    assert_eq!(actions, [Action::Hung("stopped")]);
    assert_eq!(machine.standing(at(base, 250)), Standing::Lost);
    assert_eq!(due(&machine), Some(at(base, 2_250)));
    assert_eq!(machine.handle(at(base, 2_249), Input::Tick), []);
    assert_eq!(machine.handle(at(base, 2_250), Input::Tick), [Action::Kill]);
    assert_eq!(machine.handle(at(base, 2_260), Input::Tick), []);
    assert_eq!(
        machine.handle(at(base, 2_270), Input::Ended),
        [Action::Start]
    );
}

#[test]
fn each_way_to_hang_has_its_name() {
    let cases = [
        (
            control('D', 10, 0),
            control('D', 10, 0),
            "blocked in the kernel",
        ),
        (
            control('R', 10, 0),
            control('R', 90, 5),
            "busy without progress",
        ),
        (
            control('S', 10, 0),
            control('S', 10, 0),
            "asleep without progress",
        ),
        (control('S', 10, 0), control('Z', 10, 0), "ended"),
    ];
    for (first, second, reason) in cases {
        let (_, actions, _) = silence(first, second);
        assert_eq!(actions, [Action::Hung(reason)]);
    }
}

#[test]
fn a_starved_proxy_is_warned_about_once_and_never_killed() {
    let cases = [
        (control('R', 10, 0), control('R', 12, 98)),
        (control('R', 10, 0), control('R', 10, 0)),
        (control('S', 10, 0), control('S', 12, 90)),
        (control('R', 10, 0), control('D', 12, 90)),
    ];
    for (first, second) in cases {
        let (mut machine, actions, base) = silence(first, second);
        assert_eq!(actions, [Action::Starved]);
        assert_eq!(machine.standing(at(base, 250)), Standing::Fine);
        assert_eq!(due(&machine), Some(at(base, 350)));
        let mut wait = second;
        for step in 1..50 {
            let now = at(base, 250 + step * 100);
            assert_eq!(machine.handle(now, Input::Tick).len(), 1);
            wait.wait_ns += 99_000_000;
            assert_eq!(machine.handle(now, Input::Examined(&[wait])), []);
            assert_eq!(machine.standing(now), Standing::Fine);
        }
        assert_eq!(machine.starved, 1);
    }
}

#[test]
fn a_worker_that_stopped_ticking_is_judged_although_heartbeats_come() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    let stuck = |run_ms| Finding {
        thread: Thread::Worker(7),
        ..control('R', run_ms, 0)
    };
    let look = || vec![Action::Examine(vec![Thread::Worker(7)])];
    for (ms, expected) in [(50, Vec::new()), (100, Vec::new()), (150, look())] {
        let age = u32::try_from(ms).unwrap();
        let ticks = [(7, age), (8, 3)];
        let actions = machine.handle(at(base, ms), Input::Heartbeat(&ticks));
        assert_eq!(actions, expected, "{ms}");
    }
    machine.handle(at(base, 150), Input::Examined(&[stuck(10)]));
    assert_eq!(due(&machine), Some(at(base, 300)));
    let actions = machine.handle(at(base, 200), Input::Heartbeat(&[(7, 200), (8, 3)]));
    assert_eq!(actions, look());
    machine.handle(at(base, 200), Input::Examined(&[stuck(60)]));
    let actions = machine.handle(at(base, 250), Input::Heartbeat(&[(7, 250), (8, 3)]));
    assert_eq!(actions, look());
    assert_eq!(
        machine.handle(at(base, 250), Input::Examined(&[stuck(110)])),
        [Action::Hung("busy without progress")]
    );
    machine.handle(at(base, 300), Input::Heartbeat(&[(7, 300), (8, 3)]));
    assert_eq!(machine.standing(at(base, 300)), Standing::Lost);
    assert_eq!(
        machine.handle(at(base, 350), Input::Heartbeat(&[(7, 0), (8, 3)])),
        [Action::Recovered]
    );
    assert_eq!(machine.standing(at(base, 350)), Standing::Fine);
}

#[test]
fn a_heartbeat_between_the_looks_clears_the_suspicion() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    machine.handle(at(base, 150), Input::Tick);
    machine.handle(at(base, 150), Input::Examined(&[control('R', 1, 1)]));
    machine.handle(at(base, 200), Input::Heartbeat(&[(7, 10)]));
    assert_eq!(due(&machine), Some(at(base, 350)));
    assert_eq!(machine.handle(at(base, 250), Input::Tick), []);
}

#[test]
fn a_keeper_that_was_late_itself_reads_before_it_judges() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    assert_eq!(machine.handle(at(base, 3_000), Input::Tick), []);
    assert_eq!(due(&machine), Some(at(base, 3_050)));
    machine.handle(at(base, 3_001), Input::Heartbeat(&[(7, 20)]));
    assert_eq!(machine.standing(at(base, 3_001)), Standing::Fine);
    assert_eq!(due(&machine), Some(at(base, 3_151)));
}

#[test]
fn a_dead_proxy_is_replaced_at_once_and_has_250_ms() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    assert_eq!(
        machine.handle(at(base, 1_000), Input::Ended),
        [Action::Start]
    );
    assert_eq!(
        machine.handle(at(base, 1_000), Input::Ended),
        [Action::Start]
    );
    assert_eq!(machine.standing(at(base, 1_249)), Standing::Fine);
    assert_eq!(machine.standing(at(base, 1_250)), Standing::Lost);
    assert_eq!(due(&machine), Some(at(base, 1_250)));
    // What has passed is no deadline any more: a loop that waits for it would spin.
    let next = machine.deadline(at(base, 1_250));
    assert_eq!(next, Some(at(base, 4_000)));
    machine.handle(at(base, 1_260), Input::Heartbeat(&[]));
    machine.handle(at(base, 1_260), Input::Served);
    assert_eq!(machine.standing(at(base, 1_260)), Standing::Fine);
}

#[test]
fn more_than_five_starts_in_ten_seconds_pause_and_give_the_vip_up() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    for ms in [100, 200, 300, 400, 500] {
        assert_eq!(
            machine.handle(at(base, ms), Input::Ended),
            [Action::Start],
            "{ms}"
        );
        machine.handle(at(base, ms), Input::Heartbeat(&[]));
        machine.handle(at(base, ms), Input::Served);
        assert_eq!(machine.standing(at(base, ms)), Standing::Fine);
    }
    assert_eq!(
        machine.handle(at(base, 600), Input::Ended),
        [Action::Looping]
    );
    assert_eq!(machine.standing(at(base, 600)), Standing::Lost);
    assert_eq!(
        machine.handle(at(base, 1_600), Input::Tick),
        [Action::Start]
    );
    machine.handle(at(base, 1_650), Input::Heartbeat(&[]));
    machine.handle(at(base, 1_650), Input::Served);
    assert_eq!(machine.standing(at(base, 1_650)), Standing::Lost);
    machine.handle(at(base, 6_600), Input::Heartbeat(&[]));
    assert_eq!(machine.standing(at(base, 6_600)), Standing::Fine);
}

#[test]
fn a_process_that_never_speaks_is_killed_after_three_seconds() {
    let base = crate::net::clock::now();
    let mut machine = Supervisor::new(base);
    machine.handle(base, Input::Tick);
    assert_eq!(machine.handle(at(base, 2_999), Input::Tick), []);
    assert_eq!(machine.handle(at(base, 3_000), Input::Tick), [Action::Kill]);
    assert_eq!(
        machine.handle(at(base, 3_001), Input::Ended),
        [Action::Start]
    );
}

#[test]
fn an_adopted_proxy_is_watched_without_being_started() {
    let base = crate::net::clock::now();
    let mut machine = Supervisor::new(base);
    machine.handle(base, Input::Adopted);
    machine.handle(base, Input::Served);
    assert_eq!(machine.standing(base), Standing::Fine);
    assert_eq!(machine.started, 0);
    assert_eq!(due(&machine), Some(at(base, 150)));
    assert_eq!(machine.handle(at(base, 20), Input::Ended), [Action::Start]);
}

#[test]
fn silly_inputs_change_nothing() {
    let base = crate::net::clock::now();
    let mut machine = Supervisor::new(base);
    assert_eq!(machine.handle(base, Input::Ended), []);
    assert_eq!(
        machine.handle(base, Input::Examined(&[control('T', 0, 0)])),
        []
    );
    assert_eq!(machine.standing(base), Standing::Unknown);
    let mut machine = serving(base);
    assert_eq!(machine.handle(base, Input::Examined(&[])), []);
    let age = u32::MAX;
    machine.handle(base, Input::Heartbeat(&[(7, age)]));
    assert_eq!(machine.standing(base), Standing::Fine);
}

#[test]
fn a_proxy_that_names_thousands_of_workers_costs_256_looks_each_40_ms_at_most() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    let lies: Vec<(u32, u32)> = (1..=40_000).map(|tid| (tid, 60_000)).collect();
    let looked = |actions: &[Action]| -> usize {
        let threads = actions.iter().filter_map(|action| {
            let Action::Examine(threads) = action else {
                return None;
            };
            Some(threads.len())
        });
        threads.sum()
    };
    let actions = machine.handle(at(base, 1_000), Input::Heartbeat(&lies));
    assert_eq!(looked(&actions), 256);
    let looks: usize = (0..64)
        .map(|_| looked(&machine.handle(at(base, 1_001), Input::Heartbeat(&lies))))
        .sum();
    assert_eq!(looks, 0);
    let actions = machine.handle(at(base, 1_040), Input::Heartbeat(&lies));
    assert_eq!(looked(&actions), 256);
}
