//! The committed numbers, and what counts as worse. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// More than this above the baseline is worse, percent.
const TOLERANCE: u64 = 10;
/// The same with another compiler than the baseline's, percent.
const TOLERANCE_OTHER_TOOLCHAIN: u64 = 25;
/// The same for cases in which a live worker is measured, percent: how many events a wait brings it
/// is the kernel's choice.
const TOLERANCE_LIVE: u64 = 25;
/// How the names of those begin.
const LIVE: &str = "engine: ";
/// Differences up to this are nothing, instructions.
const NOTHING: u64 = 4;

/// Instructions per operation, by case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Baseline {
    /// What built the program that was measured.
    pub(crate) toolchain: String,
    /// By case.
    pub(crate) instructions: BTreeMap<String, u64>,
}

/// One case in both; `None`: not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    name: String,
    before: Option<u64>,
    now: Option<u64>,
}

/// What is to be said about a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the tolerance, or better.
    Good,
    /// Worse, or known to one side only.
    Bad,
}

impl Baseline {
    pub(crate) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "# Instructions per operation, written by `benches/micro --update`: see benches/micro --help.\n\
             toolchain = \"{}\"\n\n[instructions]\n",
            self.toolchain
        );
        for (name, count) in &self.instructions {
            text.push_str(&format!("\"{name}\" = {count}\n"));
        }
        text
    }

    /// How much more than this baseline `now` may cost, percent.
    pub(crate) fn tolerance(&self, now: &Self) -> u64 {
        if self.toolchain == now.toolchain {
            TOLERANCE
        } else {
            TOLERANCE_OTHER_TOOLCHAIN
        }
    }

    /// Case by case; with `whole` those of the baseline that were not measured, too.
    pub(crate) fn compare(&self, now: &Self, whole: bool) -> Vec<Line> {
        let mut lines: Vec<Line> = now
            .instructions
            .iter()
            .map(|(name, count)| Line {
                name: name.clone(),
                before: self.instructions.get(name).copied(),
                now: Some(*count),
            })
            .collect();
        if whole {
            let gone = self.instructions.iter();
            let gone = gone.filter(|(name, _)| !now.instructions.contains_key(*name));
            lines.extend(gone.map(|(name, count)| Line {
                name: name.clone(),
                before: Some(*count),
                now: None,
            }));
        }
        lines
    }
}

impl Line {
    /// Whether this is acceptable with so many percent more.
    pub(crate) fn verdict(&self, tolerance: u64) -> Verdict {
        let tolerance = if self.name.starts_with(LIVE) {
            tolerance.max(TOLERANCE_LIVE)
        } else {
            tolerance
        };
        match (self.before, self.now) {
            (Some(before), Some(now))
                if now <= before + NOTHING || now * 100 <= before * (100 + tolerance) =>
            {
                Verdict::Good
            }
            (Some(_) | None, Some(_) | None) => Verdict::Bad,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |c| c.to_string());
        let change = match (self.before, self.now) {
            (Some(before), Some(now)) if before > 0 => {
                let permille = (i128::from(now) - i128::from(before)) * 1000 / i128::from(before);
                let sign = if permille < 0 { '-' } else { '+' };
                let permille = permille.abs();
                format!("{sign}{}.{} %", permille / 10, permille % 10)
            }
            (Some(_) | None, Some(_) | None) => "-".to_owned(),
        };
        let (before, now) = (number(self.before), number(self.now));
        write!(f, "{before:>12} {now:>12} {change:>8}  {}", self.name)
    }
}
