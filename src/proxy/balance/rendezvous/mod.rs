//! Which servers a client prefers: weighted rendezvous hashing. Each pair of client and server
//! draws a number, and the least one for its weight wins. So a client's order of preference depends
//! on names, weights and its own address alone, whatever the node, the order of the servers and
//! what happened before; and when a server leaves only its own clients go elsewhere, to all the
//! others by their shares. Whole numbers throughout: every machine gets the same.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::Key;

/// Bits behind the point of a logarithm.
const POINT: u32 = 32;
/// The table holds the logarithms of 1, 1 + 1/256 … 2.
const STEPS: usize = 256;
const LOG2: [u64; STEPS + 1] = table();

/// What a server is to a client; the greatest is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preference {
    distance: u64,
    weight: u32,
    draw: u64,
}

impl Preference {
    /// Of `client` for the server with this [`seed`] and a `weight` above 0.
    #[must_use]
    pub fn new(client: Key, seed: u64, weight: u32) -> Self {
        let draw = mix(client.0 ^ seed);
        Self {
            distance: distance(draw),
            weight,
            draw,
        }
    }

    /// The same for a server among others of the same weight, in less time: the order of the draws
    /// is that of their distances.
    #[must_use]
    pub const fn among_equals(client: Key, seed: u64) -> Self {
        let draw = mix(client.0 ^ seed);
        Self {
            distance: !draw,
            weight: 1,
            draw,
        }
    }

    /// Whether this one is preferred to `other`, which was made in the same way.
    #[must_use]
    pub fn beats(self, other: Self) -> bool {
        // At most 64 × 2³² by the greatest ramped weight, 2¹⁶: no overflow.
        let mine = self.distance * u64::from(other.weight);
        let theirs = other.distance * u64::from(self.weight);
        match mine.cmp(&theirs) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.draw > other.draw,
        }
    }
}

/// What stands for a server's name.
#[must_use]
pub fn seed(name: &str) -> u64 {
    let bytes = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(bytes)
}

/// What stands for a client's address.
pub(super) fn client(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => mix(u64::from(u32::from(v4)) | 4 << 32),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6).to_be_bytes();
            let (high, low) = bits.split_at(8);
            let number = |half: &[u8]| half.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            mix(mix(number(high)) ^ number(low))
        }
    }
}

/// Spreads its input over all 64 bits, one to one (`SplitMix64`'s finish).
pub(super) const fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// The negative binary logarithm of `draw` as a part of 2⁶⁴, with [`POINT`] bits behind the point:
/// how long a server of weight 1 has to wait. Waiting times by this law, divided by weights, are
/// shortest as often as the weights say.
fn distance(draw: u64) -> u64 {
    let draw = draw | 1;
    let zeros = draw.leading_zeros();
    // 1 ≤ mantissa < 2: the uppermost bit is the one before the point.
    let mantissa = draw << zeros << 1;
    let step = usize::from(mantissa.to_be_bytes()[0]);
    let within = mantissa << 8 >> POINT;
    let at = |step: usize| LOG2.get(step).copied().unwrap_or(1 << POINT);
    let (low, high) = (at(step), at(step + 1));
    let log = low + (((high - low) * within) >> POINT);
    (u64::from(zeros + 1) << POINT) - log
}

/// Logarithms bit by bit: squaring a number doubles its logarithm.
const fn table() -> [u64; STEPS + 1] {
    let mut table = [1 << POINT; STEPS + 1];
    let mut step = 0;
    let mut one_and = 1_u64 << 31;
    while step < STEPS {
        let mut number = one_and;
        let mut log = 0;
        let mut bit = POINT;
        while bit > 0 {
            bit -= 1;
            number = (number * number) >> 31;
            if number >> 32 != 0 {
                number >>= 1;
                log |= 1 << bit;
            }
        }
        table[step] = log;
        step += 1;
        one_and += 1 << 23;
    }
    table
}

#[cfg(test)]
mod tests;
