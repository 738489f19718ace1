//! Weighted round robin worked out in advance: one whole turn, each server as often as its weight
//! says, and where in it to begin so that nobody loses what the turn before still owed.

use crate::proxy::balance::Rotation;

use super::Candidate;

/// The longest turn that is worked out: 16 servers of any weights.
const LENGTH_MAX: u64 = 4096;
/// One pick, as [`Owed`] counts.
const PICK: i64 = 1 << 20;
/// Nobody is owed more than this, however plans change.
const OWED_MAX: i64 = 2 * PICK;

/// A turn, as it goes round for ever.
#[derive(Debug, Default)]
pub(super) struct Turn {
    sequence: Box<[u16]>,
}

impl Turn {
    /// The turn of these candidates, by position among them; `None` when it is too long.
    pub(super) fn exact(candidates: &[Candidate]) -> Option<Self> {
        Self::of(&reduced(candidates)?)
    }

    /// A turn that may be off by a pick or two for each server where the exact one is too long.
    pub(super) fn about(candidates: &[Candidate]) -> Self {
        let total: u64 = candidates.iter().map(|c| u64::from(c.weight)).sum();
        let part = |c: &Candidate| {
            let scaled = u64::from(c.weight) * LENGTH_MAX / total.max(1);
            u32::try_from(scaled).unwrap_or(1).max(1)
        };
        Self::exact(candidates)
            .or_else(|| Self::of(&candidates.iter().map(part).collect::<Vec<_>>()))
            .unwrap_or_default()
    }

    fn of(weights: &[u32]) -> Option<Self> {
        if weights.iter().all(|weight| *weight == 1) {
            // As below, without each of many looking at each other.
            let count = u16::try_from(weights.len()).ok()?;
            let sequence = (0..count).collect();
            return Some(Self { sequence });
        }
        let turn: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut rotation = Rotation::new(weights.len());
        let sequence = (0..turn)
            .filter_map(|_| rotation.pick(|at| weights.get(at).copied().unwrap_or(0)))
            .map(|server| u16::try_from(server).ok())
            .collect::<Option<_>>()?;
        Some(Self { sequence })
    }

    /// The same turn over places rather than positions among the candidates.
    pub(super) fn over_places(mut self, candidates: &[Candidate]) -> Self {
        for server in &mut self.sequence {
            *server = candidates.get(usize::from(*server)).map_or(0, |c| c.place);
        }
        self
    }

    /// Picks in a turn.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.sequence.len()).unwrap_or(0)
    }

    /// Who is next at this position.
    pub(super) fn at(&self, position: u64) -> Option<usize> {
        let place = usize::try_from(position.checked_rem(self.len())?).ok()?;
        self.sequence.get(place).copied().map(usize::from)
    }
}

/// The weights without their common factor; `None` when the turn would be too long.
fn reduced(candidates: &[Candidate]) -> Option<Vec<u32>> {
    let common = candidates.iter().map(|c| c.weight).fold(0, gcd).max(1);
    let weights: Vec<u32> = candidates.iter().map(|c| c.weight / common).collect();
    let turn: u64 = weights.iter().map(|w| u64::from(*w)).sum();
    (turn <= LENGTH_MAX).then_some(weights)
}

fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What servers, by place, were due and didn't get when their turn was replaced by another; less
/// than 0: they got it in advance. While weights change again and again, as in a slowstart, this
/// is what keeps the shares exact.
#[derive(Debug, Clone, Default)]
pub struct Owed(Vec<i64>);

impl Owed {
    /// What one server is owed, in picks × 2²⁰.
    fn of(&self, place: u16) -> i64 {
        self.0.get(usize::from(place)).copied().unwrap_or(0)
    }

    fn set(&mut self, place: u16, owed: i64) {
        let place = usize::from(place);
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        if let Some(entry) = self.0.get_mut(place) {
            *entry = owed.clamp(-OWED_MAX, OWED_MAX);
        }
    }

    /// Adds what a turn that ends at `position` leaves behind.
    pub(super) fn add(&mut self, candidates: &[Candidate], turn: &Turn, position: u64) {
        let Some(into) = position.checked_rem(turn.len()) else {
            return;
        };
        let taken = usize::try_from(into).unwrap_or(0);
        let mut picks = vec![0_i64; self.0.len()];
        for place in turn.sequence.iter().take(taken) {
            let place = usize::from(*place);
            if picks.len() <= place {
                picks.resize(place + 1, 0);
            }
            if let Some(count) = picks.get_mut(place) {
                *count += 1;
            }
        }
        let total: i64 = candidates.iter().map(|c| i64::from(c.weight)).sum();
        for candidate in candidates {
            let due = i64::try_from(into).unwrap_or(0) * i64::from(candidate.weight) * PICK;
            let got = picks
                .get(usize::from(candidate.place))
                .copied()
                .unwrap_or(0)
                * PICK;
            let owed = self.of(candidate.place) + due / total.max(1) - got;
            self.set(candidate.place, owed);
        }
    }

    /// Where in the turn of these candidates those begin who are owed this: at the position where
    /// a turn from its beginning would owe most nearly the same. The rest stays owed. Whoever is
    /// not among the candidates is owed nothing.
    pub(super) fn begin(&mut self, candidates: &[Candidate]) -> u64 {
        let Some(weights) = reduced(candidates) else {
            return 0;
        };
        let turn: u32 = weights.iter().sum();
        // In picks × 2²⁰ × the turn, as far as whole numbers go.
        let owed = self.settle(candidates);
        let owed: Vec<i64> = owed.iter().map(|owed| owed * i64::from(turn)).collect();
        let close = i64::from(turn) * i64::try_from(owed.len()).unwrap_or(1);
        let weight = |at: usize| weights.get(at).copied().unwrap_or(0);
        let mut rotation = Rotation::new(weights.len());
        let (mut nearest, mut least) = (0, i64::MAX);
        let mut rest = owed.clone();
        for position in 0..u64::from(turn) {
            let left = owed.iter().zip(rotation.credit());
            let left = left.map(|(owed, credit)| owed - credit * PICK);
            let distance = left.clone().map(i64::abs).sum();
            if distance < least {
                (nearest, least) = (position, distance);
                rest.clear();
                rest.extend(left);
            }
            if distance <= close {
                break;
            }
            rotation.pick(weight);
        }
        for (candidate, rest) in candidates.iter().zip(rest) {
            self.set(candidate.place, rest / i64::from(turn).max(1));
        }
        nearest
    }

    /// Forgets those who are not candidates, and answers what the others are owed by each other:
    /// 0 in all.
    fn settle(&mut self, candidates: &[Candidate]) -> Vec<i64> {
        let kept: Vec<i64> = candidates.iter().map(|c| self.of(c.place)).collect();
        self.0.fill(0);
        let sum: i64 = kept.iter().sum();
        let count = i64::try_from(kept.len()).unwrap_or(1).max(1);
        kept.iter().map(|owed| owed - sum / count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let places = (0..).zip(weights);
        let all = places.map(|(place, weight)| Candidate {
            place,
            weight: *weight,
            seed: 0,
        });
        all.collect()
    }

    fn picks(turn: &Turn, from: u64, count: u64) -> Vec<usize> {
        (from..from + count).filter_map(|at| turn.at(at)).collect()
    }

    #[test]
    fn a_turn_gives_each_its_weight_and_goes_round() {
        let turn = Turn::exact(&candidates(&[100, 200, 300])).unwrap();
        assert_eq!(picks(&turn, 0, 8), [2, 1, 0, 2, 1, 2, 2, 1]);
        let all = candidates(&[1, 2]);
        let elsewhere = all.iter().map(|c| Candidate {
            place: c.place + 7,
            ..*c
        });
        let elsewhere: Vec<_> = elsewhere.collect();
        let turn = Turn::exact(&elsewhere).unwrap().over_places(&elsewhere);
        assert_eq!(picks(&turn, 0, 3), [8, 7, 8]);
    }

    #[test]
    fn equals_take_turns_in_order_as_the_rotation_would_have_it() {
        let equal = candidates(&[7; 100]);
        let turn = Turn::exact(&equal).unwrap();
        let mut rotation = Rotation::new(100);
        let order: Vec<usize> = (0..200).filter_map(|_| rotation.pick(|_| 7)).collect();
        assert_eq!(picks(&turn, 0, 200), order);
        assert_eq!(order[98..102], [98, 99, 0, 1]);
    }

    #[test]
    fn sixteen_servers_of_any_weights_have_an_exact_turn_and_more_an_approximate_one() {
        let mut weights = [256; 16];
        weights[15] = 255;
        assert_eq!(Turn::exact(&candidates(&weights)).unwrap().len(), 4095);
        assert!(Turn::exact(&candidates(&[4096, 1])).is_none());
        assert!(Turn::exact(&candidates(&[8192, 2])).is_none());
        assert_eq!(Turn::about(&candidates(&[65_536, 1])).len(), 4096);
        assert_eq!(Turn::exact(&candidates(&[65_536])).unwrap().len(), 1);
        assert_eq!(Turn::exact(&candidates(&[])).unwrap().at(3), None);
    }

    #[test]
    fn a_turn_that_is_replaced_by_the_same_goes_on_where_it_was() {
        let all = candidates(&[100, 200, 300]);
        for position in 0..12 {
            let mut owed = Owed::default();
            let turn = Turn::exact(&all).unwrap();
            owed.add(&all, &turn, position);
            assert_eq!(owed.begin(&all), position % 6);
            assert!(owed.0.iter().all(|rest| rest.abs() < 10), "{owed:?}");
        }
    }

    #[test]
    fn shares_are_exact_to_three_picks_however_often_the_weights_change() {
        let mut seed = 11_u64;
        let mut next = move |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % limit
        };
        for servers in [2, 3, 5] {
            let mut owed = Owed::default();
            let mut taken = vec![0_i64; servers];
            // Picks × 2²⁰, by the definition of a share.
            let mut due = vec![0_i64; servers];
            for _ in 0..2_000 {
                let weights: Vec<u32> = (0..servers)
                    .map(|_| u32::try_from(1 + next(256)).unwrap())
                    .collect();
                let all = candidates(&weights);
                let turn = Turn::exact(&all).unwrap();
                let begin = owed.begin(&all);
                let count = next(9);
                for server in picks(&turn, begin, count) {
                    taken[server] += 1;
                }
                owed.add(&all, &turn, begin + count);
                let sum: i64 = weights.iter().map(|w| i64::from(*w)).sum();
                for (due, weight) in due.iter_mut().zip(&weights) {
                    *due += i64::try_from(count).unwrap() * i64::from(*weight) * (1 << 20) / sum;
                }
                for (due, taken) in due.iter().zip(&taken) {
                    let off = due - taken * (1 << 20);
                    assert!(off.abs() < 3 << 20, "{servers} servers: {off}");
                }
            }
        }
    }

    #[test]
    fn whoever_leaves_takes_nothing_along_and_comes_back_owed_nothing() {
        let three = candidates(&[1, 1, 1]);
        let mut owed = Owed::default();
        let turn = Turn::exact(&three).unwrap();
        owed.add(&three, &turn, 1);
        assert_eq!(owed.begin(&three[1..]), 0);
        assert_eq!(owed.0, [0, 0, 0]);
    }
}
