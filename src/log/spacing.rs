//! Lines that could be many come one in a while. Pure.

use std::time::{Duration, Instant};

/// Whether a line that was last written at `said` may be written now, and notes it if so: at most
/// one in `every`.
pub fn is_due(said: &mut Option<Instant>, every: Duration, now: Instant) -> bool {
    if said.is_some_and(|at| now.saturating_duration_since(at) < every) {
        return false;
    }
    *said = Some(now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_and_another_only_when_the_time_has_passed() {
        let start = crate::net::clock::now();
        let every = Duration::from_secs(10);
        let mut said = None;
        assert!(is_due(&mut said, every, start));
        assert!(!is_due(
            &mut said,
            every,
            start + Duration::from_millis(9_999)
        ));
        assert!(is_due(&mut said, every, start + every));
        assert!(!is_due(&mut said, every, start + every));
        assert!(!is_due(&mut said, every, start));
    }
}
