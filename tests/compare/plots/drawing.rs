//! Charts.

use super::charts::{Bars, Curve, Curves, Series};
use crate::stats::Spread;

fn bars(values: Vec<Option<Spread>>) -> String {
    let series = Series {
        name: "lbd".to_owned(),
        colour: "#d95f02",
        values,
    };
    let bars = Bars {
        title: "rates".to_owned(),
        unit: "×".to_owned(),
        categories: vec!["short".to_owned(), "bulk".to_owned()],
        series: vec![series],
        mark: Some(1.0),
        most: Some(2.0),
        is_log: false,
    };
    bars.draw()
}

#[test]
fn a_bar_is_as_high_as_its_median_and_its_whisker_goes_from_least_to_most() {
    let spread = Spread {
        median: 1.0,
        min: 0.5,
        max: 2.0,
    };
    let drawn = bars(vec![Some(spread), None]);
    // 0 is drawn at 364, 2 at 72: the median 1 is half way up, the least a quarter.
    assert!(drawn.contains("y=\"218\" width=\"36\" height=\"146\" fill=\"#d95f02\""));
    assert!(drawn.contains("y1=\"291\" x2=\"282\" y2=\"72\""), "{drawn}");
}

#[test]
fn what_was_not_measured_has_no_bar() {
    let drawn = bars(vec![None, None]);
    // The background and the legend.
    assert_eq!(drawn.matches("<rect").count(), 2);
    assert!(drawn.contains(">bulk</text>"));
}

#[test]
fn a_slower_program_is_drawn_higher() {
    let curve = |name: &str, micros| Curve {
        name: name.to_owned(),
        colour: "#000000",
        points: vec![(50_000, micros), (99_000, micros * 10.0), (100_000, 9e9)],
    };
    let curves = Curves {
        title: "latency".to_owned(),
        lines: vec![curve("fast", 10.0), curve("slow", 100.0)],
    };
    let drawn = curves.draw();
    let lines: Vec<&str> = drawn.lines().filter(|l| l.contains("<polyline")).collect();
    let height = |line: &str| -> f64 {
        let first = line
            .split(['"', ' '])
            .find(|word| word.contains(','))
            .unwrap();
        first.split_once(',').unwrap().1.parse().unwrap()
    };
    assert_eq!(lines.len(), 2);
    assert!(height(lines[1]) < height(lines[0]));
}

#[test]
fn one_wild_round_does_not_shrink_the_others() {
    let wild = Spread {
        median: 1.0,
        min: 1.0,
        max: 150.0,
    };
    // The axis ends at 2: half of it is still half the height.
    assert!(bars(vec![Some(wild), None]).contains("y=\"218\" width=\"36\" height=\"146\""));
}
