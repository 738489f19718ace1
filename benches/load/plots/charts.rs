//! The two kinds of charts: bars in groups, and curves of latency. Pure.

use super::scale::{Scale, label};
use super::svg::{Anchor, Svg};
use crate::stats::Spread;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = HEIGHT - 56.0;
const GRID: &str = "#dddddd";
const INK: &str = "#222222";

/// Bars in groups: a group for each category, in it a bar for each series.
pub(crate) struct Bars {
    pub(crate) title: String,
    /// What the upright axis is.
    pub(crate) unit: String,
    pub(crate) categories: Vec<String>,
    pub(crate) series: Vec<Series>,
    /// A line across: what equals the reference.
    pub(crate) mark: Option<f64>,
    /// What goes beyond is cut off there, so that one wild round leaves the others readable.
    pub(crate) most: Option<f64>,
    pub(crate) is_log: bool,
}

/// A program's values; for bars one for each category.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) values: Vec<Option<Spread>>,
}

/// Within how much time which part of the requests was answered.
pub(crate) struct Curves {
    pub(crate) title: String,
    pub(crate) lines: Vec<Curve>,
}

/// One program's curve: parts per 100,000, and microseconds.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<(u64, f64)>,
}

impl Bars {
    pub(crate) fn draw(&self) -> String {
        let values = || self.series.iter().flat_map(|s| s.values.iter().flatten());
        let most = values().map(|v| v.max).fold(0.0, f64::max);
        let most = self.most.map_or(most, |limit| most.min(limit));
        let least = values().map(|v| v.min.max(1.0)).fold(most, f64::min);
        let scale = match self.is_log {
            true => Scale::log(least, most, BOTTOM, TOP),
            false => Scale::linear(most, BOTTOM, TOP),
        };
        let mut svg = Svg::new(WIDTH, HEIGHT);
        let legend = self.series.iter().map(|s| (s.name.as_str(), s.colour));
        frame(&mut svg, &self.title, &self.unit, legend);
        upright(&mut svg, &scale);
        let group = (RIGHT - LEFT) / self.categories.len().max(1) as f64;
        let bar = (group * 0.84 / self.series.len().max(1) as f64).min(40.0);
        for (index, category) in self.categories.iter().enumerate() {
            let middle = LEFT + group * (index as f64 + 0.5);
            svg.text((middle, BOTTOM + 18.0), 11.0, Anchor::Middle, category);
            let present = self
                .series
                .iter()
                .filter_map(|s| Some((s.colour, s.values.get(index).copied().flatten()?)));
            let present: Vec<_> = present.collect();
            let mut left = middle - bar * present.len() as f64 / 2.0;
            for (colour, value) in present {
                one_bar(&mut svg, &scale, (left, bar), colour, value);
                left += bar;
            }
        }
        if let Some(mark) = self.mark {
            let y = scale.place(mark);
            svg.line((LEFT, y), (RIGHT, y), INK);
        }
        svg.finish(&self.title)
    }
}

fn one_bar(svg: &mut Svg, scale: &Scale, (left, width): (f64, f64), colour: &str, value: Spread) {
    let top = scale.place(value.median);
    let drawn = width * 0.9;
    svg.rect((left, top), (drawn, BOTTOM - top), colour);
    let middle = left + drawn / 2.0;
    let (low, high) = (scale.place(value.min), scale.place(value.max));
    svg.line((middle, low), (middle, high), INK);
    for y in [low, high] {
        svg.line((middle - 3.0, y), (middle + 3.0, y), INK);
    }
    let size = if width >= 20.0 { 10.0 } else { 7.5 };
    let text = label(value.median);
    svg.text((middle, high.min(top) - 4.0), size, Anchor::Middle, &text);
}

impl Curves {
    pub(crate) fn draw(&self) -> String {
        let micros = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().map(|(_, micros)| *micros))
        };
        let most = micros().fold(0.0, f64::max);
        let least = micros().fold(most, f64::min);
        let up = Scale::log(least, most, BOTTOM, TOP);
        // The rarer, the further right: 90 %, 99 % and 99.9 % at equal distances.
        let across = Scale::log(10.0, 100_000.0, RIGHT, LEFT);
        let mut svg = Svg::new(WIDTH, HEIGHT);
        let legend = self
            .lines
            .iter()
            .map(|line| (line.name.as_str(), line.colour));
        frame(&mut svg, &self.title, "µs", legend);
        upright(&mut svg, &up);
        let ticks = [
            (50_000, "50 %"),
            (90_000, "90 %"),
            (99_000, "99 %"),
            (99_900, "99.9 %"),
            (99_990, "99.99 %"),
        ];
        for (parts, text) in ticks {
            let x = across.place(rest(parts));
            svg.line((x, TOP), (x, BOTTOM), GRID);
            svg.text((x, BOTTOM + 18.0), 12.0, Anchor::Middle, text);
        }
        for line in &self.lines {
            let points: Vec<(f64, f64)> = line
                .points
                .iter()
                .filter(|(parts, _)| *parts < 100_000)
                .map(|(parts, micros)| (across.place(rest(*parts)), up.place(*micros)))
                .collect();
            svg.polyline(&points, line.colour);
        }
        svg.finish(&self.title)
    }
}

/// How many per 100,000 take longer.
fn rest(parts: u64) -> f64 {
    100_000_u64.saturating_sub(parts) as f64
}

fn frame<'a>(
    svg: &mut Svg,
    title: &str,
    unit: &str,
    legend: impl Iterator<Item = (&'a str, &'static str)>,
) {
    svg.text((LEFT, 24.0), 16.0, Anchor::Start, title);
    svg.text((8.0, TOP - 8.0), 11.0, Anchor::Start, unit);
    let mut x = LEFT;
    for (name, colour) in legend {
        svg.rect((x, 38.0), (12.0, 12.0), colour);
        svg.text((x + 17.0, 48.0), 12.0, Anchor::Start, name);
        x += 34.0 + 7.0 * name.chars().count() as f64;
    }
}

fn upright(svg: &mut Svg, scale: &Scale) {
    for tick in scale.ticks() {
        let y = scale.place(tick);
        svg.line((LEFT, y), (RIGHT, y), GRID);
        svg.text((LEFT - 8.0, y + 4.0), 11.0, Anchor::End, &label(tick));
    }
}
