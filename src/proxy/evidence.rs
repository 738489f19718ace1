//! What real traffic tells of one server: connects that fail one after the other or have no answer,
//! connections that it ends before it has answered, and clients that asked and got no answer. Each is
//! a suspicion, which a check is to settle at once. Several in a row, or a suspicion that a check
//! confirms, are grounds to take the server out of service before its checks have failed often
//! enough. Pure.

use std::time::{Duration, Instant};

use super::recurrence::Recurrence;
use super::unanswered::{Tally, Unanswered};

/// Failed connects in a row that are grounds to eject a server.
pub const CONNECTS_MAX: u32 = 3;
/// Connections in a row that it ended at once, without an answer, that are.
pub const BREAKS_MAX: u32 = 3;
/// Such ends that are farther apart are in no row.
const BREAKS_WITHIN: Duration = Duration::from_secs(1);
/// Connects without an answer in a row that are.
pub const SILENT_MAX: u32 = 3;
/// The first of those must have begun so long ago: a pause, or a lost packet, is no reason.
const SILENT_FOR: Duration = Duration::from_millis(250);
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
    /// Connects had no answer one after the other, those to other servers had.
    NoAnswer,
    /// It ended connections before it had answered, others answered.
    Breaks,
    /// Clients asked and were not answered, those of other servers were.
    Silence,
    /// It was under suspicion, and a check failed as well.
    Confirmed,
}

impl Grounds {
    /// The words users read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connects => "connects failed one after the other",
            Self::NoAnswer => "connects had no answer while others had",
            Self::Breaks => "connections were ended before an answer",
            Self::Silence => "clients got no answer while others did",
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
    breaks: Breaks,
    silent: Silent,
    answers: Answers,
    unanswered: Unanswered,
    suspected: Option<Instant>,
    ejected: Option<Ejected>,
    repeated: Recurrence,
    suspicions: u64,
    ejections: u64,
}

/// Connections in a row that ended before an answer.
#[derive(Debug, Clone, Default)]
struct Breaks {
    count: u32,
    last: Option<Instant>,
    /// Clients that were answered when the row began, and those of other servers.
    answered: u64,
    elsewhere: u64,
}

/// Connects in a row without an answer.
#[derive(Debug, Clone, Default)]
struct Silent {
    count: u32,
    /// When the first of them began.
    since: Option<Instant>,
    /// How many connects had succeeded by then.
    connected: u64,
}

/// What a look at the clients of a server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Fine,
    /// It is suspect.
    Suspect,
    /// Grounds to eject it.
    Silence,
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

    /// A connection ended, by the server and at once, before it had answered; `answered` clients of
    /// it were answered so far, and `elsewhere` those of others. Answers the grounds to eject the
    /// server, if there are enough.
    pub fn broke_off(&mut self, answered: u64, elsewhere: u64, now: Instant) -> Option<Grounds> {
        let breaks = &mut self.breaks;
        let close = |last| now.saturating_duration_since(last) < BREAKS_WITHIN;
        if breaks.answered != answered || !breaks.last.is_some_and(close) {
            *breaks = Breaks {
                answered,
                elsewhere,
                ..Breaks::default()
            };
        }
        breaks.count = breaks.count.saturating_add(1);
        breaks.last = Some(now);
        let enough = breaks.count >= BREAKS_MAX && breaks.elsewhere != elsewhere;
        self.suspect(now);
        enough.then_some(Grounds::Breaks)
    }

    /// A connect that began at `began` had no answer, and a later one to another server had;
    /// `connected` have succeeded so far. Answers the grounds to eject the server, if there are
    /// enough.
    pub fn connect_silent(
        &mut self,
        connected: u64,
        began: Instant,
        now: Instant,
    ) -> Option<Grounds> {
        let silent = &mut self.silent;
        if connected != silent.connected {
            *silent = Silent {
                connected,
                ..Silent::default()
            };
        }
        silent.count = silent.count.saturating_add(1);
        let since = *silent.since.get_or_insert(began);
        let long = now.saturating_duration_since(since) >= SILENT_FOR;
        (silent.count >= SILENT_MAX && long).then_some(Grounds::NoAnswer)
    }

    /// How many were answered when [`Self::watch`] last looked.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answers.answered
    }

    /// Looks at what was counted so far; `others`: another server has answered somebody since the
    /// last look. To be called every now and then.
    pub fn watch(&mut self, tally: Tally, others: bool, now: Instant) -> Look {
        if self.ejected.is_some() {
            // It gets no new clients: who waits had come before.
            self.unanswered.start_over(tally);
        }
        let silence = self.unanswered.look(tally, others, now);
        let answers = &mut self.answers;
        let Tally {
            asked, answered, ..
        } = tally;
        if answered != answers.answered {
            answers.start_over(asked, answered);
            return Look::Fine;
        }
        if silence {
            answers.start_over(asked, answered);
            self.suspect(now);
            return Look::Silence;
        }
        if asked.saturating_sub(answers.asked) < UNANSWERED_MIN {
            return Look::Fine;
        }
        let since = *answers.since.get_or_insert(now);
        if now.saturating_duration_since(since) < UNANSWERED_FOR {
            return Look::Fine;
        }
        // Those who come from here on are to be waited for once more.
        answers.start_over(asked, answered);
        self.suspect(now);
        Look::Suspect
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
            self.forget_runs();
        }
    }

    fn forget_runs(&mut self) {
        self.failures = 0;
        self.breaks.count = 0;
        self.silent = Silent {
            connected: self.silent.connected,
            ..Silent::default()
        };
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
        self.forget_runs();
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

    fn tally(asked: u64, answered: u64) -> Tally {
        Tally {
            asked,
            answered,
            ..Tally::default()
        }
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
            let look = evidence.watch(tally(asked, answered), false, at(start, ms));
            let seen = if expected { Look::Suspect } else { Look::Fine };
            assert_eq!(look, seen, "{ms} ms");
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
