//! What the tracks of one virtual router say together. Pure.

use serde::{Deserialize, Serialize};

use crate::units::TrackWeight;

/// One entry of a `track` list with its present result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// `None` until the first result.
    pub found: Option<Found>,
    /// `None`: decides alone.
    pub weight: Option<TrackWeight>,
}

impl Entry {
    /// Whether all is well. A number with a weight is, as long as it takes nothing away.
    #[must_use]
    pub fn ok(&self) -> Option<bool> {
        let found = self.found?;
        Some(match (found, self.weight) {
            (Found::Number(_), Some(weight)) => found.weighed(weight) >= 0,
            (Found::Number(_) | Found::Ok(_), _) => found.is_ok(),
        })
    }
}

/// The result of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// All is well, or not.
    Ok(bool),
    /// A file's number; 0 is well.
    Number(i32),
}

impl Found {
    /// Whether all is well.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        match self {
            Self::Ok(ok) => ok,
            Self::Number(number) => number == 0,
        }
    }

    /// What it adds to the priority with that weight: keepalived's rules. A positive weight is
    /// added while all is well, a negative one while it is not; a number is multiplied, and the
    /// product kept within the range of a weight.
    fn weighed(self, weight: TrackWeight) -> i32 {
        let weight = i32::from(weight.get());
        match self {
            Self::Ok(ok) if ok == (weight > 0) => weight,
            Self::Ok(_) => 0,
            Self::Number(number) => number.saturating_mul(weight).clamp(-WEIGHT_MAX, WEIGHT_MAX),
        }
    }
}

/// The largest weight.
const WEIGHT_MAX: i32 = 253;

/// The sum of all tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// No track without a weight fails.
    pub can_serve: bool,
    /// Every track without a weight has a result, or one of them fails.
    pub known: bool,
    /// What the tracks with a weight add to the priority.
    pub weight: i32,
}

/// Reduces a `track` list.
#[must_use]
pub fn reduce(entries: impl IntoIterator<Item = Entry>) -> Verdict {
    let mut verdict = Verdict {
        can_serve: true,
        known: true,
        weight: 0,
    };
    let mut failing = false;
    for entry in entries {
        match (entry.weight, entry.found) {
            (None, Some(found)) => failing |= !found.is_ok(),
            (None, None) => verdict.known = false,
            (Some(weight), Some(found)) => {
                verdict.weight = verdict.weight.saturating_add(found.weighed(weight));
            }
            (Some(_), None) => {}
        }
    }
    if failing {
        verdict.can_serve = false;
        verdict.known = true;
    } else if !verdict.known {
        verdict.can_serve = false;
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(weight: i64, ok: Option<bool>) -> Entry {
        let weight = TrackWeight::try_from(weight).ok();
        let found = ok.map(Found::Ok);
        Entry { found, weight }
    }

    fn number(weight: i64, number: i32) -> Entry {
        let weight = TrackWeight::try_from(weight).ok();
        let found = Some(Found::Number(number));
        Entry { found, weight }
    }

    fn check(entries: &[Entry], can_serve: bool, known: bool, weight: i32) {
        let expected = Verdict {
            can_serve,
            known,
            weight,
        };
        assert_eq!(reduce(entries.iter().copied()), expected, "{entries:?}");
    }

    #[test]
    fn tracks_without_a_weight_decide_alone() {
        check(&[], true, true, 0);
        check(&[entry(0, Some(true))], true, true, 0);
        check(&[entry(0, Some(false))], false, true, 0);
        check(&[entry(0, None)], false, false, 0);
        check(&[entry(0, Some(true)), entry(0, None)], false, false, 0);
        check(&[entry(0, Some(false)), entry(0, None)], false, true, 0);
    }

    #[test]
    fn a_number_without_a_weight_is_well_at_0_alone() {
        check(&[number(0, 0)], true, true, 0);
        check(&[number(0, 1)], false, true, 0);
        check(&[number(0, -1)], false, true, 0);
    }

    #[test]
    fn a_number_is_multiplied_with_its_weight_and_bounded() {
        check(&[number(-20, 0)], true, true, 0);
        check(&[number(-20, 1)], true, true, -20);
        check(&[number(-20, -1)], true, true, 20);
        check(&[number(3, 7)], true, true, 21);
        check(&[number(3, 1_000)], true, true, 253);
        check(&[number(-253, 1_000)], true, true, -253);
    }

    #[test]
    fn weights_count_as_keepaliveds_do() {
        check(&[entry(2, Some(true))], true, true, 2);
        check(&[entry(2, Some(false))], true, true, 0);
        check(&[entry(2, None)], true, true, 0);
        check(&[entry(-20, Some(true))], true, true, 0);
        check(&[entry(-20, Some(false))], true, true, -20);
        check(&[entry(-20, None)], true, true, 0);
        check(
            &[entry(5, Some(true)), entry(-20, Some(false))],
            true,
            true,
            -15,
        );
        check(
            &[entry(253, Some(true)), entry(253, Some(true))],
            true,
            true,
            506,
        );
    }
}
