//! Which server is next, as arithmetic: smooth round robin, how full one server is beside another,
//! and which servers a client prefers. Pure. What of it workers do together is in
//! [`super::dispatch::plan`].

mod rendezvous;
mod rotation;

use std::net::IpAddr;

pub use self::rendezvous::{Preference, seed};
pub use self::rotation::Rotation;

/// Names a client to a strategy that gives it the same server each time. The same address has the
/// same key on every node and in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Key(u64);

impl Key {
    /// For strategies that don't ask who comes.
    pub const NONE: Self = Self(0);

    /// The key of a client's address, IPv4 in either form.
    #[must_use]
    pub fn of(client: IpAddr) -> Self {
        Self(rendezvous::client(client.to_canonical()))
    }
}

/// Whether `one` connections on a server of weight `one_weight` are relatively fewer than `other`
/// on one of `other_weight`.
#[must_use]
pub fn lighter(one: u32, one_weight: u32, other: u32, other_weight: u32) -> bool {
    u64::from(one) * u64::from(other_weight) < u64::from(other) * u64::from(one_weight)
}

/// Two numbers that follow from `position` and from nothing else, each as good as drawn from all.
#[must_use]
pub fn draw(position: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = rendezvous::mix(position).to_be_bytes();
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

/// So few connections are never too many for a server: a client keeps its server while the load
/// is light.
pub const LIGHT: u32 = 16;

/// Whether a server of `weight` with `used` connections may have another under source-hash, when
/// there are to be `total` on servers of `weights` in all: up to a quarter more than its share,
/// rounded up, and at least up to [`LIGHT`]. Beyond it, clients go to their next choice.
#[must_use]
pub fn within_bound(used: u32, total: u64, weight: u32, weights: u64) -> bool {
    let share = total.saturating_mul(5).saturating_mul(u64::from(weight));
    used < LIGHT || u64::from(used).saturating_mul(weights).saturating_mul(4) < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_is_judged_by_weight() {
        // 3 of weight 2 against 2 of weight 1; 4 against 2 is as full.
        assert!(lighter(3, 2, 2, 1) && !lighter(2, 1, 3, 2));
        assert!(!lighter(4, 2, 2, 1) && !lighter(2, 1, 4, 2));
        assert!(lighter(0, 1, 1, 65_536) && !lighter(0, 1, 0, 65_536));
        assert!(lighter(65_535, 65_536, 1, 1) && !lighter(65_536, 65_536, 1, 1));
    }

    #[test]
    fn a_server_may_have_a_quarter_more_than_its_share() {
        let most = |total, weight, weights| {
            let mut all = 0..10_000;
            all.find(|used| !within_bound(*used, total, weight, weights))
        };
        // A third of 300 is 100; that of 301 with a quarter is no whole number, and rounds up.
        assert_eq!(most(300, 1, 3), Some(125));
        assert_eq!(most(301, 1, 3), Some(126));
        assert_eq!(most(300, 2, 3), Some(250));
        assert_eq!(most(1_000, 16, 528), Some(38));
        assert_eq!(most(7, 1, 1), Some(16));
        assert_eq!(most(1 << 40, 65_536, 65_536 << 10), None);
    }

    #[test]
    fn an_address_has_one_key_for_ever_in_either_form() {
        let key = |text: &str| Key::of(text.parse().unwrap());
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("::192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("192.0.2.1"), Key::NONE);
    }
}
