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

fn worker(tid: u32, finding: Finding) -> Finding {
    Finding {
        thread: Thread::Worker(tid),
        ..finding
    }
}

/// Silence of the control thread with these looks at the process, at 150 ms and each 100 ms later:
/// what the last of them led to.
fn silence(looks: &[&[Finding]]) -> (Supervisor, Vec<Action>, Instant) {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    let mut actions = Vec::new();
    for (ms, look) in (150..).step_by(100).zip(looks) {
        assert_eq!(actions, [], "before {ms}");
        assert_eq!(due(&machine), Some(at(base, ms)));
        assert_eq!(
            machine.handle(at(base, ms), Input::Tick),
            [Action::Examine(vec![Thread::Control])]
        );
        actions = machine.handle(at(base, ms), Input::Examined(look));
    }
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
    let stopped = control('T', 10, 0);
    let (mut machine, actions, base) = silence(&[&[stopped], &[stopped]]);
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
fn what_stopped_or_ended_is_hung_at_the_first_verdict_whatever_other_threads_do() {
    let starved = worker(7, control('R', 10, 0));
    for (state, reason) in [('T', "stopped"), ('t', "stopped"), ('Z', "ended")] {
        let seen = [control(state, 10, 0), starved];
        let (_, actions, _) = silence(&[&[control('S', 10, 0), starved], &seen]);
        assert_eq!(actions, [Action::Hung(reason)]);
        let (_, actions, _) = silence(&[&[], &seen]);
        assert_eq!(actions, [Action::Hung(reason)]);
    }
}

#[test]
fn what_is_blocked_asleep_or_busy_is_hung_when_two_verdicts_agree() {
    let cases = [
        (control('D', 10, 0), 0, "blocked in the kernel"),
        (control('S', 10, 0), 0, "asleep without progress"),
        (control('R', 10, 0), 50, "busy without progress"),
    ];
    for (first, ran, reason) in cases {
        let later = |looks: u64| Finding {
            run_ns: first.run_ns + looks * ran * 1_000_000,
            ..first
        };
        let looks = [[first], [later(1)], [later(2)]];
        let looks = looks.each_ref().map(<[Finding; 1]>::as_slice);
        let (machine, actions, base) = silence(&looks);
        assert_eq!(actions, [Action::Hung(reason)]);
        assert_eq!(machine.standing(at(base, 350)), Standing::Lost);
        assert_eq!((machine.hung, machine.starved), (1, 0));
    }
}

#[test]
fn two_verdicts_that_differ_are_none() {
    let (asleep, blocked) = (control('S', 10, 0), control('D', 10, 0));
    let looks: [&[Finding]; 4] = [&[asleep], &[blocked], &[asleep], &[blocked]];
    let (machine, actions, base) = silence(&looks);
    assert_eq!(actions, []);
    assert_eq!(machine.standing(at(base, 450)), Standing::Fine);
}

#[test]
fn a_thread_that_had_a_cpu_between_the_looks_and_sleeps_may_have_work_yet() {
    let (queued, asleep) = (control('R', 10, 0), control('S', 11, 30));
    let (machine, actions, _) = silence(&[&[queued], &[asleep], &[asleep]]);
    assert_eq!(actions, []);
    assert_eq!((machine.hung, machine.starved), (0, 0));
    let (_, actions, _) = silence(&[&[queued], &[asleep], &[asleep], &[asleep]]);
    assert_eq!(actions, [Action::Hung("asleep without progress")]);
}

#[test]
fn a_look_that_took_too_long_proves_nothing() {
    let asleep = control('S', 10, 0);
    let (machine, actions, _) = silence(&[&[asleep], &[], &[asleep], &[asleep]]);
    assert_eq!(actions, []);
    assert_eq!((machine.hung, machine.starved), (0, 0));
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
        let (mut machine, actions, base) = silence(&[&[first], &[second]]);
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
fn a_proxy_that_waits_for_a_starved_thread_of_its_own_is_starved_until_that_one_is_not() {
    // Seen with a table of descriptors that a worker without a CPU had enlarged: it alone could
    // wake the others, blocked for 500 ms.
    for state in ['D', 'S'] {
        let blocked = control(state, 10, 5);
        // Queued for all of the time: nothing counts up. And one that waits, runs, and waits.
        for (queued, waits) in [('R', 0), ('S', 60), ('R', 60)] {
            let look = |looks| [blocked, worker(7, control(queued, 3, looks * waits))];
            let (mut machine, actions, base) = silence(&[&look(0), &look(1)]);
            assert_eq!(actions, [Action::Starved]);
            let mut answers = Vec::new();
            for step in 2..40 {
                let now = at(base, 150 + step * 100);
                assert_eq!(machine.handle(now, Input::Tick).len(), 1);
                answers.extend(machine.handle(now, Input::Examined(&look(step))));
            }
            assert_eq!((answers, machine.starved), (vec![], 1));
            // It has its CPU back, and still the control thread doesn't come round.
            let free = [blocked, worker(7, control('S', 90, 4_000))];
            for ms in [4_150, 4_250, 4_350] {
                assert_eq!(machine.standing(at(base, ms)), Standing::Fine, "{ms}");
                machine.handle(at(base, ms), Input::Examined(&free));
            }
            assert_eq!(machine.standing(at(base, 4_350)), Standing::Lost);
        }
    }
}

#[test]
fn another_thread_that_runs_sleeps_or_waits_a_little_excuses_nobody() {
    let blocked = control('D', 10, 5);
    let others = [
        // Asleep; on a CPU all the time; now and then, with short waits; new; never ran at all.
        [control('S', 3, 0); 3],
        [
            control('R', 3, 0),
            control('R', 103, 0),
            control('R', 203, 0),
        ],
        [
            control('R', 3, 0),
            control('R', 23, 49),
            control('R', 43, 98),
        ],
        [control('S', 3, 0), control('R', 3, 0), control('S', 4, 9)],
        [control('R', 0, 0); 3],
    ];
    for other in others {
        let looks = other.map(|other| [blocked, worker(7, other)]);
        let looks = looks.each_ref().map(<[Finding; 2]>::as_slice);
        let (_, actions, _) = silence(&looks);
        assert_eq!(
            actions,
            [Action::Hung("blocked in the kernel")],
            "{other:?}"
        );
    }
}

#[test]
fn a_spinning_thread_is_hung_although_it_starves_the_others() {
    let looks = [0, 60, 120].map(|ran| {
        let starved = worker(7, control('R', 3, 0));
        [control('R', ran, ran), starved]
    });
    let looks = looks.each_ref().map(<[Finding; 2]>::as_slice);
    let (_, actions, _) = silence(&looks);
    assert_eq!(actions, [Action::Hung("busy without progress")]);
}

#[test]
fn what_a_process_did_before_its_control_thread_fell_silent_is_no_evidence() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    let asleep = [control('S', 10, 0), worker(7, control('S', 10, 0))];
    machine.handle(at(base, 100), Input::Heartbeat(&[(7, 160)]));
    machine.handle(at(base, 100), Input::Examined(&asleep));
    // The keeper was late, and looks again only now.
    assert_eq!(machine.handle(at(base, 310), Input::Tick), []);
    for ms in [360, 460, 560] {
        assert_eq!(
            machine.handle(at(base, ms), Input::Tick),
            [Action::Examine(vec![Thread::Control])]
        );
        let actions = machine.handle(at(base, ms), Input::Examined(&asleep));
        let expected = (ms == 560).then_some(Action::Hung("asleep without progress"));
        assert_eq!(actions, Vec::from_iter(expected), "{ms}");
    }
}

#[test]
fn stale_heartbeats_of_a_silent_worker_are_outlived_by_a_fresh_one() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    let idle = [control('S', 1, 0), worker(7, control('S', 10, 0))];
    machine.handle(at(base, 200), Input::Heartbeat(&[(7, 200)]));
    machine.handle(at(base, 200), Input::Examined(&idle));
    // The keeper got no CPU for 300 ms; three heartbeats had come meanwhile.
    let actions = machine.handle(at(base, 500), Input::Heartbeat(&[(7, 310)]));
    assert_eq!(actions, [Action::Examine(vec![Thread::Worker(7)])]);
    assert_eq!(machine.handle(at(base, 500), Input::Examined(&idle)), []);
    assert_eq!(
        machine.handle(at(base, 501), Input::Heartbeat(&[(7, 360)])),
        []
    );
    assert_eq!(
        machine.handle(at(base, 501), Input::Heartbeat(&[(7, 3)])),
        []
    );
    assert_eq!(machine.standing(at(base, 501)), Standing::Fine);
    machine.handle(at(base, 551), Input::Heartbeat(&[(7, 260)]));
    assert_eq!(machine.handle(at(base, 551), Input::Examined(&idle)), []);
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
    for (ms, age, ran) in [(200, 200, 60), (250, 250, 110)] {
        let actions = machine.handle(at(base, ms), Input::Heartbeat(&[(7, age), (8, 3)]));
        assert_eq!(actions, look());
        assert_eq!(
            machine.handle(at(base, ms), Input::Examined(&[stuck(ran)])),
            []
        );
    }
    let actions = machine.handle(at(base, 300), Input::Heartbeat(&[(7, 300), (8, 3)]));
    assert_eq!(actions, look());
    assert_eq!(
        machine.handle(at(base, 300), Input::Examined(&[stuck(160)])),
        [Action::Hung("busy without progress")]
    );
    machine.handle(at(base, 350), Input::Heartbeat(&[(7, 350), (8, 3)]));
    assert_eq!(machine.standing(at(base, 350)), Standing::Lost);
    assert_eq!(
        machine.handle(at(base, 400), Input::Heartbeat(&[(7, 0), (8, 3)])),
        [Action::Recovered]
    );
    assert_eq!(machine.standing(at(base, 400)), Standing::Fine);
}

#[test]
fn a_worker_that_is_stopped_is_hung_after_250_ms() {
    let base = crate::net::clock::now();
    let mut machine = serving(base);
    let held = [worker(7, control('t', 10, 0)), control('S', 10, 0)];
    for (age, expected) in [
        (160, vec![]),
        (210, vec![]),
        (260, vec![Action::Hung("stopped")]),
    ] {
        let now = at(base, u64::from(age));
        machine.handle(now, Input::Heartbeat(&[(7, age), (8, 3)]));
        assert_eq!(
            machine.handle(now, Input::Examined(&held)),
            expected,
            "{age}"
        );
    }
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
