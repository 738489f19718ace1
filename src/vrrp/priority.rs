//! The priority a node advertises: what is configured, plus tracks, or the lowest while it can't
//! serve. Pure.
#![forbid(unsafe_code)]

use crate::units::Priority;

/// The priority in force: `base` plus the sum of track weights, kept within 1…254; the lowest
/// while the node can't serve. An address owner's 255 never changes (RFC 9568 §5.2.4).
#[must_use]
pub fn effective(base: Priority, weight: i32, serving: bool) -> Priority {
    if base == Priority::OWNER {
        return base;
    }
    if !serving {
        return Priority::LOWEST;
    }
    let sum = i32::from(base.get()).saturating_add(weight).clamp(1, 254);
    u8::try_from(sum)
        .ok()
        .and_then(Priority::from_wire)
        .unwrap_or(Priority::LOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: i64, weight: i32, serving: bool) -> u8 {
        effective(Priority::try_from(base).unwrap(), weight, serving).get()
    }

    #[test]
    fn weights_add_up_and_stay_within_1_and_254() {
        assert_eq!(of(110, 2, true), 112);
        assert_eq!(of(100, -60, true), 40);
        assert_eq!(of(100, -100, true), 1);
        assert_eq!(of(100, i32::MIN, true), 1);
        assert_eq!(of(250, 10, true), 254);
        assert_eq!(of(2, i32::MAX, true), 254);
    }

    #[test]
    fn a_node_that_cannot_serve_counts_itself_at_1() {
        assert_eq!(of(200, 50, false), 1);
    }

    #[test]
    fn an_address_owner_stays_at_255() {
        assert_eq!(of(255, -200, true), 255);
        assert_eq!(of(255, 0, false), 255);
    }
}
