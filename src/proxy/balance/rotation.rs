//! Smooth weighted round robin: weights come in, an index goes out.

/// One rotation over the servers of a proxy, shared by all workers.
///
/// Each pick adds every eligible server's weight to its credit, takes the one with most credit
/// and charges it the sum. Over Σweight/gcd picks among the same servers each is taken exactly
/// its share, spread as evenly as can be.
#[derive(Debug, Clone)]
pub struct Rotation {
    credit: Vec<i64>,
}

impl Rotation {
    /// A rotation over `servers` servers, at its beginning.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self {
            credit: vec![0; servers],
        }
    }

    /// Further servers, at their beginning.
    pub fn grow(&mut self, servers: usize) {
        if self.credit.len() < servers {
            self.credit.resize(servers, 0);
        }
    }

    /// The next server among those to which `weight` gives more than 0.
    pub fn pick(&mut self, mut weight: impl FnMut(usize) -> u32) -> Option<usize> {
        let mut total = 0_i64;
        let mut best: Option<(usize, i64)> = None;
        for (index, credit) in self.credit.iter_mut().enumerate() {
            let share = i64::from(weight(index));
            if share == 0 {
                continue;
            }
            total += share;
            *credit += share;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (index, _) = best?;
        if let Some(credit) = self.credit.get_mut(index) {
            *credit -= total;
        }
        Some(index)
    }

    /// What each is due at this point, in picks times the sum of the weights; together 0.
    #[must_use]
    pub fn credit(&self) -> &[i64] {
        &self.credit
    }

    /// Forgets the past: weights have changed for good, and the shares start from here.
    pub fn restart(&mut self) {
        self.credit.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(rotation: &mut Rotation, weights: &[u32], count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| rotation.pick(|i| weights[i]).unwrap())
            .collect()
    }

    #[test]
    fn weights_1_2_3_give_the_smooth_sequence() {
        let mut rotation = Rotation::new(3);
        let first = picks(&mut rotation, &[1, 2, 3], 6);
        assert_eq!(first, [2, 1, 0, 2, 1, 2]);
        assert_eq!(picks(&mut rotation, &[1, 2, 3], 6), first);
    }

    #[test]
    fn a_common_factor_does_not_change_the_sequence() {
        let small = picks(&mut Rotation::new(3), &[1, 2, 3], 60);
        assert_eq!(picks(&mut Rotation::new(3), &[256, 512, 768], 60), small);
    }

    #[test]
    fn shares_are_exact_over_every_round_of_seeded_weights() {
        let mut seed = 7_u64;
        for _ in 0..200 {
            let mut weights = Vec::new();
            for _ in 0..5 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                weights.push(u32::try_from((seed >> 33) % 257).unwrap());
            }
            let total: u32 = weights.iter().sum();
            let mut rotation = Rotation::new(5);
            let mut taken = [0_u32; 5];
            for _ in 0..total {
                taken[rotation.pick(|i| weights[i]).unwrap()] += 1;
            }
            assert_eq!(taken.as_slice(), weights.as_slice());
        }
    }

    #[test]
    fn a_server_without_weight_is_never_taken() {
        let mut rotation = Rotation::new(2);
        assert_eq!(picks(&mut rotation, &[0, 5], 4), [1, 1, 1, 1]);
        assert_eq!(rotation.pick(|_| 0), None);
    }

    #[test]
    fn a_server_that_was_left_out_gets_no_burst_when_it_returns() {
        let mut rotation = Rotation::new(3);
        picks(&mut rotation, &[1, 0, 1], 1000);
        let after = picks(&mut rotation, &[1, 1, 1], 9);
        for server in 0..3 {
            let share = after.iter().filter(|s| **s == server).count();
            assert!((2..=4).contains(&share), "{after:?}");
        }
    }
}
