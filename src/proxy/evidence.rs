//! What real traffic tells of one server: connects that fail one after the other, and clients that
//! asked and got no answer. Either is a suspicion, which a check is to settle at once. Many failed
//! connects, or a suspicion that a check confirms, are grounds to take the server out of service
//! before its checks have failed often enough. Pure.

use std::time::{Duration, Instant};

use super::recurrence::Recurrence;

/// Failed connects in a row that are grounds to eject a server.
pub const CONNECTS_MAX: u32 = 3;
/// Clients that asked a server and were not answered, before that says anything.
pub const UNANSWERED_MIN: u64 = 3;
/// How long those have waited before that says anything.
pub const UNANSWERED_FOR: Duration = Duration::from_millis(500);
/// A suspicion that no check has confirmed for so long is void.
const SUSPICION_FOR: Duration = Duration::from_secs(5);
/// The shortest time out of service of a server that was ejected again, while its checks say that
/// it is well; doubled each time.
const REPEATED_MIN: Duration = Duration::from_secs(1);
/// The longest.
const REPEATED_MAX: Duration = Duration::from_secs(30);

/// Why a server was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grounds {
    /// Connects failed one after the other.
    Connects,
    /// It was under suspicion, and a check failed as well.
    Confirmed,
}

impl Grounds {
    /// The words users read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connects => "connects failed one after the other",
            Self::Confirmed => "clients were not served and a check failed",
        }
    }
}

/// An ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// Since when.
    pub since: Instant,
    /// Why.
    pub grounds: Grounds,
    /// Not back before this, whatever checks say.
    until: Instant,
}

/// What is known of one server.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Failed connects in a row.
    failures: u32,
    /// How many connects had succeeded at the last failed one.
    connected: u64,
    answers: Answers,
    suspected: Option<Instant>,
    ejected: Option<Ejected>,
    repeated: Recurrence,
    suspicions: u64,
    ejections: u64,
}

/// Who asked and who was answered.
#[derive(Debug, Clone, Default)]
struct Answers {
    /// Clients that had asked when the last one was answered.
    asked: u64,
    /// Clients that were answered.
    answered: u64,
    /// Since when so many wait that it says something.
    since: Option<Instant>,
}

impl Answers {
    fn start_over(&mut self, asked: u64, answered: u64) {
        *self = Self {
            asked,
            answered,
            since: None,
        };
    }
}

impl Evidence {
    /// A connect failed; `connected` have succeeded so far. Answers the grounds to eject the
    /// server, if there are enough.
    pub fn connect_failed(&mut self, connected: u64, now: Instant) -> Option<Grounds> {
        if connected != self.connected {
            self.connected = connected;
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.suspect(now);
        (self.failures >= CONNECTS_MAX).then_some(Grounds::Connects)
    }

    /// So many clients have asked so far, and so many were answered. To be called every now and
    /// then; answers whether that makes the server suspect.
    pub fn watch(&mut self, asked: u64, answered: u64, now: Instant) -> bool {
        let answers = &mut self.answers;
        if answered != answers.answered {
            answers.start_over(asked, answered);
            return false;
        }
        if asked.saturating_sub(answers.asked) < UNANSWERED_MIN {
            return false;
        }
        let since = *answers.since.get_or_insert(now);
        if now.saturating_duration_since(since) < UNANSWERED_FOR {
            return false;
        }
        // Those who come from here on are to be waited for once more.
        answers.start_over(asked, answered);
        self.suspect(now);
        true
    }

    fn suspect(&mut self, now: Instant) {
        if !self.is_suspect(now) {
            self.suspicions += 1;
        }
        self.suspected = Some(now);
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.suspected
            .is_some_and(|since| now.saturating_duration_since(since) < SUSPICION_FOR)
    }

    /// A check that began at `began` found the server well.
    pub fn acquitted(&mut self, began: Instant) {
        if self.suspected.is_some_and(|since| began >= since) {
            self.suspected = None;
            self.failures = 0;
        }
    }

    /// A check failed. Answers the grounds to eject the server, if there are enough.
    pub fn convicted(&mut self, now: Instant) -> Option<Grounds> {
        self.is_suspect(now).then_some(Grounds::Confirmed)
    }

    /// It is out of service from here on.
    pub fn eject(&mut self, grounds: Grounds, now: Instant) {
        let times = self.repeated.count(now);
        let hold = match times.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => REPEATED_MIN
                .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
                .min(REPEATED_MAX),
        };
        self.ejections += 1;
        self.ejected = Some(Ejected {
            since: now,
            grounds,
            until: now + hold,
        });
    }

    /// Whether a check that began at `began` and found the server well ends its ejection.
    #[must_use]
    pub fn may_return(&self, began: Instant, now: Instant) -> bool {
        self.ejected
            .is_some_and(|ejected| began >= ejected.since && now >= ejected.until)
    }

    /// It is in service again, or out of it for a better reason.
    pub fn end_ejection(&mut self) {
        self.ejected = None;
        self.suspected = None;
        self.failures = 0;
    }

    /// Its present ejection.
    #[must_use]
    pub const fn ejected(&self) -> Option<Ejected> {
        self.ejected
    }

    /// How often it was ejected.
    #[must_use]
    pub const fn ejections(&self) -> u64 {
        self.ejections
    }

    /// How often traffic made it suspect.
    #[must_use]
    pub const fn suspicions(&self) -> u64 {
        self.suspicions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn start() -> Instant {
        crate::net::clock::now()
    }

    #[test]
    fn failed_connects_count_only_in_a_row() {
        let now = start();
        let mut evidence = Evidence::default();
        assert_eq!(evidence.connect_failed(10, now), None);
        assert_eq!(evidence.connect_failed(10, now), None);
        // One succeeded in between.
        assert_eq!(evidence.connect_failed(11, now), None);
        assert_eq!(evidence.connect_failed(11, now), None);
        assert_eq!(evidence.connect_failed(11, now), Some(Grounds::Connects));
        assert_eq!(evidence.connect_failed(11, now), Some(Grounds::Connects));
        assert_eq!(evidence.suspicions(), 1);
    }

    #[test]
    fn three_who_wait_for_half_a_second_make_a_server_suspect() {
        let start = start();
        let mut evidence = Evidence::default();
        let table = [
            // ms, asked, answered, suspect
            (0, 10, 10, false),
            // One waits, for however long.
            (50, 11, 10, false),
            (9_000, 12, 10, false),
            // The third: its half second begins.
            (9_050, 13, 10, false),
            (9_549, 20, 10, false),
            (9_550, 20, 10, true),
            // Told once; who comes now is waited for once more.
            (9_600, 22, 10, false),
            (9_650, 23, 10, false),
            (10_149, 23, 10, false),
            (10_150, 23, 10, true),
            // One answer vouches for all who asked before.
            (10_200, 23, 11, false),
            (10_250, 26, 11, false),
            (10_700, 30, 12, false),
            (11_000, 30, 12, false),
            (99_000, 30, 12, false),
        ];
        for (ms, asked, answered, expected) in table {
            let suspect = evidence.watch(asked, answered, at(start, ms));
            assert_eq!(suspect, expected, "{ms} ms");
        }
    }

    #[test]
    fn a_failed_check_confirms_a_suspicion_of_the_last_five_seconds() {
        let start = start();
        let mut evidence = Evidence::default();
        assert_eq!(evidence.convicted(start), None);
        evidence.connect_failed(0, start);
        assert_eq!(
            evidence.convicted(at(start, 4_999)),
            Some(Grounds::Confirmed)
        );
        assert_eq!(evidence.convicted(at(start, 5_000)), None);
    }

    #[test]
    fn only_a_check_that_began_after_the_suspicion_settles_it() {
        let start = start();
        let mut evidence = Evidence::default();
        evidence.connect_failed(0, at(start, 100));
        evidence.acquitted(at(start, 99));
        assert_eq!(evidence.convicted(at(start, 200)), Some(Grounds::Confirmed));
        evidence.acquitted(at(start, 100));
        assert_eq!(evidence.convicted(at(start, 200)), None);
        // The count began again, too.
        evidence.connect_failed(0, at(start, 300));
        assert_eq!(evidence.connect_failed(0, at(start, 300)), None);
    }

    #[test]
    fn who_is_ejected_again_and_again_stays_out_for_longer_each_time() {
        let start = start();
        let mut evidence = Evidence::default();
        let mut now = start;
        // Seconds out of service at least, each time.
        for seconds in [0, 1, 2, 4, 8, 16, 30, 30] {
            evidence.eject(Grounds::Connects, now);
            let back = now + Duration::from_secs(seconds);
            if let Some(early) = back
                .checked_sub(Duration::from_millis(1))
                .filter(|t| *t > now)
            {
                assert!(!evidence.may_return(early, early), "{seconds} s");
            }
            assert!(!evidence.may_return(now - Duration::from_millis(1), back));
            assert!(evidence.may_return(back, back), "{seconds} s");
            evidence.end_ejection();
            now = back + Duration::from_millis(10);
        }
        assert_eq!(evidence.ejections(), 8);
        assert!(!evidence.may_return(now, now), "not ejected");
    }
}
