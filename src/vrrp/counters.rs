//! What a virtual router counts, and the warnings it holds back so that a flood of packets never
//! becomes a flood of lines.

use std::time::{Duration, Instant};

use super::packet::Reject;
use crate::ipc::message::{SpanCounts, VrrpCounters};
use crate::log::spacing::is_due;
use crate::metrics::spans::Spans;

/// At most one warning of a kind in this time.
const WARNING_SPACING: Duration = Duration::from_secs(60);

/// Numbers of one virtual router, since the keeper began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Those that users see as they are; its list of rejected packets stays empty.
    pub shown: VrrpCounters,
    /// Accepted adverts that list other addresses than ours.
    pub other_addresses: u64,
    /// Accepted adverts whose interval was too long to be learned as it is.
    pub bounded_intervals: u64,
    /// Resignations of nodes that were not Active.
    pub ignored_resigns: u64,
    /// Signed adverts, accepted or not, whose sender's clock is noticeably apart from ours.
    pub skewed: u64,
    /// From the last advert of a node that fell silent until this node held the addresses.
    pub after_silence: Spans,
    /// From the last advert of a node that resigned until this node held the addresses.
    pub after_resignation: Spans,
    rejected: [u64; Reject::ALL.len()],
}

/// As they are told to others; nothing where there is nothing.
#[must_use]
pub fn told(spans: &Spans) -> SpanCounts {
    if spans.total() == 0 {
        return SpanCounts::default();
    }
    SpanCounts {
        counts: spans.counts.to_vec(),
        micros: spans.micros,
    }
}

impl Counters {
    /// Counts a refused packet.
    pub fn reject(&mut self, reason: Reject) {
        if let Some(count) = self.rejected.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// How many packets were refused for `reason`.
    #[must_use]
    pub fn rejected(&self, reason: Reject) -> u64 {
        self.rejected.get(reason as usize).copied().unwrap_or(0)
    }

    /// As users see them; reasons that never happened are left out.
    #[must_use]
    pub fn snapshot(&self) -> VrrpCounters {
        let mut rejected: Vec<(String, u64)> = Reject::ALL
            .iter()
            .map(|reason| (reason.word().to_owned(), self.rejected(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect();
        for (word, count) in [
            ("other-addresses (accepted)", self.other_addresses),
            ("resign-of-another (ignored)", self.ignored_resigns),
            ("long-interval (accepted)", self.bounded_intervals),
            ("clock-apart (noted)", self.skewed),
        ] {
            if count > 0 {
                rejected.push((word.to_owned(), count));
            }
        }
        VrrpCounters {
            rejected,
            after_silence: told(&self.after_silence),
            after_resignation: told(&self.after_resignation),
            ..self.shown.clone()
        }
    }
}

/// Lets one warning of each kind through per minute.
#[derive(Debug, Default)]
pub struct Warnings {
    addresses: Option<Instant>,
    interval: Option<Instant>,
    deleted: Option<Instant>,
    kernel: Option<Instant>,
    skew: Option<Instant>,
}

impl Warnings {
    /// Whether to warn about a differing list of addresses now.
    pub fn about_addresses(&mut self, now: Instant) -> bool {
        is_due(&mut self.addresses, WARNING_SPACING, now)
    }

    /// Whether to warn about an interval that is too long to be learned now.
    pub fn about_interval(&mut self, now: Instant) -> bool {
        is_due(&mut self.interval, WARNING_SPACING, now)
    }

    /// Whether to warn about an address that somebody else deletes now.
    pub fn about_deletion(&mut self, now: Instant) -> bool {
        is_due(&mut self.deleted, WARNING_SPACING, now)
    }

    /// Whether to warn about a clock that is apart now.
    pub fn about_skew(&mut self, now: Instant) -> bool {
        is_due(&mut self.skew, WARNING_SPACING, now)
    }

    /// Whether to warn about an error of the kernel now.
    pub fn about_kernel(&mut self, now: Instant) -> bool {
        is_due(&mut self.kernel, WARNING_SPACING, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_one_kind_hold_back_none_of_another() {
        let start = crate::net::clock::now();
        let mut warnings = Warnings::default();
        let mut all = |now| {
            [
                warnings.about_addresses(now),
                warnings.about_interval(now),
                warnings.about_deletion(now),
                warnings.about_kernel(now),
                warnings.about_skew(now),
            ]
        };
        assert_eq!(all(start), [true; 5]);
        assert_eq!(all(start + Duration::from_secs(59)), [false; 5]);
        assert_eq!(all(start + Duration::from_secs(60)), [true; 5]);
    }

    #[test]
    fn reasons_that_never_happened_are_left_out() {
        let mut counters = Counters::default();
        counters.reject(Reject::Ttl);
        counters.reject(Reject::Ttl);
        assert_eq!(counters.snapshot().rejected, [("ttl".to_owned(), 2)]);
    }
}
