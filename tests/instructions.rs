//! When `benches/micro --check` says that something became dearer: the comparison with the baseline,
//! without a measurement.

#![cfg(test)]

#[path = "../benches/instructions/baseline.rs"]
mod baseline;

use baseline::{Baseline, Verdict};

fn baseline(toolchain: &str, counts: &[(&str, u64)]) -> Baseline {
    let counts = counts
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count));
    Baseline {
        toolchain: toolchain.to_owned(),
        instructions: counts.collect(),
    }
}

fn verdicts(before: &Baseline, now: &Baseline, whole: bool) -> Vec<Verdict> {
    let lines = before.compare(now, whole);
    let tolerance = before.tolerance(now);
    lines.iter().map(|line| line.verdict(tolerance)).collect()
}

#[test]
fn up_to_ten_percent_more_is_good_and_a_little_beyond_is_bad() {
    let before = baseline("rustc 1", &[("a", 1000)]);
    for (count, verdict) in [
        (1, Verdict::Good),
        (1100, Verdict::Good),
        (1101, Verdict::Bad),
    ] {
        let now = baseline("rustc 1", &[("a", count)]);
        assert_eq!(verdicts(&before, &now, true), [verdict], "{count}");
    }
}

#[test]
fn another_compiler_may_cost_a_quarter_more() {
    let before = baseline("rustc 1", &[("a", 1000)]);
    for (count, verdict) in [(1250, Verdict::Good), (1251, Verdict::Bad)] {
        let now = baseline("rustc 2", &[("a", count)]);
        assert_eq!(verdicts(&before, &now, true), [verdict], "{count}");
    }
}

#[test]
fn a_few_instructions_of_a_tiny_case_are_nothing() {
    let before = baseline("rustc 1", &[("a", 10)]);
    for (count, verdict) in [(14, Verdict::Good), (15, Verdict::Bad)] {
        let now = baseline("rustc 1", &[("a", count)]);
        assert_eq!(verdicts(&before, &now, true), [verdict], "{count}");
    }
}

#[test]
fn a_case_that_only_one_side_knows_is_bad() {
    let before = baseline("rustc 1", &[("a", 10), ("gone", 5)]);
    let now = baseline("rustc 1", &[("a", 10), ("new", 5)]);
    assert_eq!(
        verdicts(&before, &now, true),
        [Verdict::Good, Verdict::Bad, Verdict::Bad]
    );
    // With a choice of cases the others are not missing.
    assert_eq!(
        verdicts(&before, &now, false),
        [Verdict::Good, Verdict::Bad]
    );
}

#[test]
fn what_is_written_is_read_again() {
    let one = baseline("rustc 1.88.0 (abc)", &[("a: b, c", 10), ("d", 0)]);
    assert_eq!(Baseline::parse(&one.to_text()).unwrap(), one);
}

#[test]
fn a_line_says_how_much_it_changed() {
    let before = baseline("rustc 1", &[("a", 1000), ("b", 1000)]);
    let now = baseline("rustc 1", &[("a", 1055), ("b", 995), ("c", 7)]);
    let lines = before.compare(&now, true);
    let shown: Vec<String> = lines.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "        1000         1055   +5.5 %  a",
            "        1000          995   -0.5 %  b",
            "           -            7        -  c",
        ]
    );
}

#[test]
fn a_case_with_a_live_worker_may_vary_by_a_quarter() {
    let before = baseline("rustc 1", &[("engine: a", 1000), ("farm: a", 1000)]);
    let within = baseline("rustc 1", &[("engine: a", 1250), ("farm: a", 1100)]);
    assert_eq!(
        verdicts(&before, &within, true),
        [Verdict::Good, Verdict::Good]
    );
    let beyond = baseline("rustc 1", &[("engine: a", 1251), ("farm: a", 1101)]);
    assert_eq!(
        verdicts(&before, &beyond, true),
        [Verdict::Bad, Verdict::Bad]
    );
}
