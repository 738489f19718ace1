//! Medians, spreads, and ratios within a round.

use crate::stats::{Spread, paired, spread};

#[test]
fn the_median_of_an_odd_number_is_the_one_in_the_middle() {
    let expected = Spread {
        median: 3.0,
        min: 1.0,
        max: 100.0,
    };
    assert_eq!(spread(&[100.0, 1.0, 3.0]), Some(expected));
}

#[test]
fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
    assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
}

#[test]
fn nothing_has_no_median() {
    assert_eq!(spread(&[]), None);
}

#[test]
fn ratios_are_taken_within_a_round_and_only_where_both_were_measured() {
    let ours = [(0, 10.0), (1, 30.0), (3, 5.0)];
    let reference = [(1, 10.0), (0, 20.0), (2, 1.0)];
    assert_eq!(paired(&ours, &reference), [0.5, 3.0]);
}

#[test]
fn a_reference_of_nothing_gives_no_ratio() {
    assert!(paired(&[(0, 1.0)], &[(0, 0.0)]).is_empty());
}
