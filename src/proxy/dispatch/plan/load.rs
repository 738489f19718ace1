//! The ways to choose that look at how many connections servers have. Each compares without a
//! lock, and takes its slot only if the server still has as many as when it was compared; who is
//! disturbed by others too often takes what there is.

use super::turn::Turn;
use super::{Candidate, Plan};
use crate::proxy::balance::{Preference, draw, lighter, within_bound};
use crate::proxy::dispatch::slots::{Door, Seen, Slots, Take};

/// How often one compares anew before taking what there is.
const TRIES: u32 = 8;

impl Plan {
    /// A slot on the server with the fewest connections for its weight.
    pub(super) fn fewest(
        &self,
        turn: &Turn,
        slots: &[Slots],
        door: Door,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let due = turn.at(self.cursor.next())?;
        let (before, from) = self.candidates.split_at_checked(due)?;
        lightest(from.iter().chain(before), slots, door, &allowed)
    }

    /// A slot on the less loaded of two servers, each drawn as often as its weight says; when both
    /// are full, on the least loaded of all.
    pub(super) fn drawn(
        &self,
        sums: &[u64],
        slots: &[Slots],
        door: Door,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (one, other) = draw(self.cursor.next());
        let first = drawn_at(sums, None, one)?;
        let second = drawn_at(sums, Some(first), other);
        let pair = [Some(first), second].into_iter().flatten();
        let pair = pair.filter_map(|at| self.candidates.get(at));
        lightest(pair, slots, door, &allowed)
            .or_else(|| lightest(self.candidates.iter(), slots, door, &allowed))
    }

    /// A slot on the server that this client prefers most, of those that have no more connections
    /// than is [`within_bound`]; if none of them has a slot, of all.
    pub(super) fn preferred(
        &self,
        weights: u64,
        preference: impl Fn(&Candidate) -> Preference,
        slots: &[Slots],
        door: Door,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        for _ in 0..TRIES {
            let used = |c: &Candidate| slots.get(usize::from(c.place)).map_or(0, Slots::used);
            let total: u64 = self.candidates.iter().map(|c| u64::from(used(c))).sum();
            // Better: within its bound; then: preferred.
            let mut best: Option<(bool, Preference, usize, &Slots, Seen)> = None;
            for candidate in &self.candidates {
                let place = usize::from(candidate.place);
                let Some((slots, seen)) = room(place, slots, &allowed) else {
                    continue;
                };
                let within = within_bound(seen.used(), total + 1, candidate.weight, weights);
                let preference = preference(candidate);
                if best.is_none_or(|(other_within, other, ..)| {
                    if within == other_within {
                        preference.beats(other)
                    } else {
                        within
                    }
                }) {
                    best = Some((within, preference, place, slots, seen));
                }
            }
            let (_, _, place, slots, seen) = best?;
            match slots.take_as_seen(seen, door) {
                Some(Take::Taken) => return Some(place),
                Some(Take::Held) => return None,
                Some(Take::Full) | None => {}
            }
        }
        any(self.candidates.iter(), slots, door, &allowed)
    }
}

/// The first of those in `order` with a free slot.
pub(super) fn any<'a>(
    order: impl Iterator<Item = &'a Candidate>,
    slots: &[Slots],
    door: Door,
    allowed: &impl Fn(usize) -> bool,
) -> Option<usize> {
    for candidate in order {
        let place = usize::from(candidate.place);
        let Some((slots, _)) = room(place, slots, allowed) else {
            continue;
        };
        match slots.take(door) {
            Take::Taken => return Some(place),
            Take::Held => return None,
            Take::Full => {}
        }
    }
    None
}

/// The one with the fewest connections for its weight; the first of equals.
fn lightest<'a>(
    order: impl Iterator<Item = &'a Candidate> + Clone,
    slots: &[Slots],
    door: Door,
    allowed: &impl Fn(usize) -> bool,
) -> Option<usize> {
    for _ in 0..TRIES {
        let mut best: Option<(u32, usize, &Slots, Seen)> = None;
        for candidate in order.clone() {
            let place = usize::from(candidate.place);
            let Some((slots, seen)) = room(place, slots, allowed) else {
                continue;
            };
            if best.is_none_or(|(weight, _, _, other)| {
                lighter(seen.used(), candidate.weight, other.used(), weight)
            }) {
                best = Some((candidate.weight, place, slots, seen));
            }
        }
        let (_, place, slots, seen) = best?;
        match slots.take_as_seen(seen, door) {
            Some(Take::Taken) => return Some(place),
            Some(Take::Held) => return None,
            Some(Take::Full) | None => {}
        }
    }
    any(order, slots, door, allowed)
}

/// A server's slots, if it has a free one.
fn room<'a>(
    place: usize,
    slots: &'a [Slots],
    allowed: &impl Fn(usize) -> bool,
) -> Option<(&'a Slots, Seen)> {
    if !allowed(place) {
        return None;
    }
    let slots = slots.get(place)?;
    let seen = slots.look();
    (!seen.is_full()).then_some((slots, seen))
}

/// The sums of the weights up to each candidate and with it.
pub(super) fn sums(candidates: &[Candidate]) -> Box<[u64]> {
    let weights = candidates.iter().map(|c| u64::from(c.weight));
    weights
        .scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

/// The candidate on which a draw falls, out of all but one of them.
fn drawn_at(sums: &[u64], without: Option<usize>, draw: u32) -> Option<usize> {
    let total = *sums.last()?;
    let part = |total: u64| u64::try_from((u128::from(draw) * u128::from(total)) >> 32).ok();
    let Some(without) = without else {
        let point = part(total)?;
        return Some(sums.partition_point(|sum| *sum <= point));
    };
    let end = *sums.get(without)?;
    let begin = without
        .checked_sub(1)
        .map_or(Some(0), |at| sums.get(at).copied())?;
    let weight = end - begin;
    if total == weight {
        return None;
    }
    let point = part(total - weight)?;
    let point = if point < begin { point } else { point + weight };
    Some(sums.partition_point(|sum| *sum <= point))
}
