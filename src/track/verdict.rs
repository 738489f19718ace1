//! What the tracks of one virtual router say together. Pure.

use crate::units::TrackWeight;

/// One entry of a `track` list with its present result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// `None` until the first result.
    pub ok: Option<bool>,
    /// `None`: decides alone.
    pub weight: Option<TrackWeight>,
}

/// The sum of all tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// No track without a weight fails.
    pub can_serve: bool,
    /// Every track without a weight has a result, or one of them fails.
    pub known: bool,
    /// What the tracks with a weight add to the priority (keepalived's rule: a positive weight is
    /// added while the track succeeds, a negative one while it fails).
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
        match (entry.weight.map(|weight| i32::from(weight.get())), entry.ok) {
            (None, Some(false)) => failing = true,
            (None, None) => verdict.known = false,
            (Some(weight), Some(true)) if weight > 0 => verdict.weight += weight,
            (Some(weight), Some(false)) if weight < 0 => verdict.weight += weight,
            (None, Some(true)) | (Some(_), _) => {}
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
        Entry { ok, weight }
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
