//! Axes.

use super::scale::{Scale, label};

#[test]
fn a_linear_axis_begins_at_zero_and_ends_at_a_tick() {
    let scale = Scale::linear(2.7, 100.0, 0.0);
    assert_eq!(scale.ticks(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
    assert_eq!(scale.place(0.0), 100.0);
    assert_eq!(scale.place(1.5), 50.0);
    assert_eq!(scale.place(3.0), 0.0);
}

#[test]
fn a_log_axis_covers_whole_decades() {
    let scale = Scale::log(30.0, 4_000.0, 0.0, 300.0);
    assert_eq!(scale.ticks(), [10.0, 100.0, 1_000.0, 10_000.0]);
    assert_eq!(scale.place(100.0).round(), 100.0);
    assert_eq!(scale.place(10_000.0).round(), 300.0);
}

#[test]
fn what_lies_beyond_an_axis_is_drawn_at_its_end() {
    assert_eq!(Scale::linear(1.0, 0.0, 10.0).place(7.0), 10.0);
    assert_eq!(Scale::log(1.0, 10.0, 0.0, 10.0).place(-3.0), 0.0);
}

#[test]
fn an_axis_of_nothing_is_an_axis_still() {
    assert!(Scale::linear(0.0, 0.0, 10.0).place(0.0).is_finite());
    assert!(Scale::log(0.0, 0.0, 0.0, 10.0).place(1.0).is_finite());
}

#[test]
fn labels_are_short() {
    let labels = [
        0.0, 0.5, 0.256, 12.0, 219.4, 1_000.0, 12_345.0, 999_900.0, 2.5e6,
    ];
    let told: Vec<String> = labels.into_iter().map(label).collect();
    let expected = ["0", "0.5", "0.26", "12", "219", "1k", "12.3k", "1M", "2.5M"];
    assert_eq!(told, expected);
}
