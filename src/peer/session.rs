//! What is believed of another node: a message that proves to be fresh. Pure; the threats are
//! listed at [`peer`](super).
//!
//! Counters are the sender's `CLOCK_BOOTTIME` in nanoseconds, so that they rise over restarts
//! within a boot, and so that an echo of one tells its owner how old it is.

use std::time::Duration;

use super::message::{Header, Nonce};

/// An echo of an older message proves nothing, or five intervals if that is longer.
const FRESH_MIN: Duration = Duration::from_secs(1);

/// What a message with a good signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Made just now by the other node's present run.
    Believed,
    /// Seen before, or older than what was seen, or of a run that was replaced.
    Replayed,
    /// Perhaps fresh: it does not show that its sender has heard us lately. To be answered.
    Unproven,
}

/// The exchange with one other node.
#[derive(Debug, Clone)]
pub struct Session {
    own: Nonce,
    fresh: u64,
    sent: u64,
    theirs: Option<Theirs>,
}

#[derive(Debug, Clone, Copy)]
struct Theirs {
    nonce: Nonce,
    counter: u64,
    /// The newest of our counters that it has echoed.
    echoed: u64,
}

impl Session {
    /// A session of this run, whose messages come each `interval`.
    #[must_use]
    pub fn new(own: Nonce, interval: Duration) -> Self {
        let fresh = FRESH_MIN.max(interval * 5).as_nanos();
        Self {
            own,
            fresh: u64::try_from(fresh).unwrap_or(u64::MAX),
            sent: 0,
            theirs: None,
        }
    }

    /// The header of the next message; `boottime` in nanoseconds.
    pub fn next(&mut self, boottime: u64) -> Header {
        self.sent = boottime.max(self.sent.saturating_add(1));
        Header {
            nonce: self.own,
            counter: self.sent,
            echo: self.theirs.map_or((Nonce::default(), 0), |theirs| {
                (theirs.nonce, theirs.counter)
            }),
        }
    }

    /// The header of the answer to a message that proved nothing. It shows the sender what to
    /// echo, and is forgotten here.
    pub fn answer(&mut self, boottime: u64, to: &Header) -> Header {
        Header {
            echo: (to.nonce, to.counter),
            ..self.next(boottime)
        }
    }

    /// Judges a message whose signature is good, and takes note of one that is believed.
    pub fn judge(&mut self, boottime: u64, header: &Header) -> Verdict {
        let (nonce, echoed) = header.echo;
        let same_run = self.theirs.filter(|theirs| theirs.nonce == header.nonce);
        if same_run.is_some_and(|theirs| header.counter <= theirs.counter) {
            return Verdict::Replayed;
        }
        if header.nonce == self.own {
            return Verdict::Replayed;
        }
        let age = boottime.max(self.sent).checked_sub(echoed);
        let is_recent =
            echoed > 0 && echoed <= self.sent && age.is_some_and(|age| age <= self.fresh);
        if nonce != self.own || !is_recent {
            return Verdict::Unproven;
        }
        let replaced = self.theirs.filter(|_| same_run.is_none());
        if replaced.is_some_and(|before| echoed <= before.echoed) {
            return Verdict::Replayed;
        }
        let before = self.theirs.map_or(0, |theirs| theirs.echoed);
        self.theirs = Some(Theirs {
            nonce: header.nonce,
            counter: header.counter,
            echoed: before.max(echoed),
        });
        Verdict::Believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);
    const MS: u64 = 1_000_000;

    fn run(name: u8) -> Session {
        Session::new(Nonce([name; 16]), INTERVAL)
    }

    /// Two runs that believe each other, the first at time `at`.
    fn acquainted(a: &mut Session, b: &mut Session, at: u64) {
        let first = a.next(at);
        assert_eq!(b.judge(at, &first), Verdict::Unproven);
        let answer = b.answer(at, &first);
        assert_eq!(a.judge(at + 1, &answer), Verdict::Believed);
        let proven = a.next(at + 2);
        assert_eq!(b.judge(at + 2, &proven), Verdict::Believed);
    }

    #[test]
    fn two_nodes_believe_each_other_after_one_answer() {
        let (mut a, mut b) = (run(1), run(2));
        acquainted(&mut a, &mut b, 100 * MS);
        for round in 2..20 {
            let at = round * 100 * MS;
            assert_eq!(b.judge(at, &a.next(at)), Verdict::Believed);
            assert_eq!(a.judge(at, &b.next(at)), Verdict::Believed);
        }
    }

    #[test]
    fn a_message_counts_once_and_none_before_it_after_it() {
        let (mut a, mut b) = (run(1), run(2));
        acquainted(&mut a, &mut b, 100 * MS);
        let first = a.next(200 * MS);
        let second = a.next(201 * MS);
        assert_eq!(b.judge(202 * MS, &second), Verdict::Believed);
        assert_eq!(b.judge(202 * MS, &second), Verdict::Replayed);
        assert_eq!(b.judge(202 * MS, &first), Verdict::Replayed);
    }

    #[test]
    fn what_was_recorded_before_our_restart_proves_nothing() {
        let (mut a, mut b) = (run(1), run(2));
        acquainted(&mut a, &mut b, 100 * MS);
        let recorded = a.next(200 * MS);
        let mut b_again = run(3);
        assert_eq!(b_again.judge(210 * MS, &recorded), Verdict::Unproven);
        let hello = b_again.next(220 * MS);
        assert_eq!(b_again.judge(230 * MS, &recorded), Verdict::Unproven);
        assert_eq!(a.judge(230 * MS, &hello), Verdict::Unproven);
    }

    #[test]
    fn a_replaced_run_does_not_come_back() {
        let (mut a, mut b) = (run(1), run(2));
        acquainted(&mut a, &mut b, 100 * MS);
        assert_eq!(a.judge(110 * MS, &b.next(110 * MS)), Verdict::Believed);
        assert_eq!(b.judge(120 * MS, &a.next(120 * MS)), Verdict::Believed);
        let held_back = b.next(130 * MS);
        let mut b_again = run(3);
        let greeting = a.next(140 * MS);
        assert_eq!(b_again.judge(140 * MS, &greeting), Verdict::Unproven);
        let answer = b_again.answer(140 * MS, &greeting);
        assert_eq!(a.judge(141 * MS, &answer), Verdict::Believed);
        assert_eq!(a.judge(142 * MS, &held_back), Verdict::Replayed);
        assert_eq!(
            b_again.judge(143 * MS, &a.next(143 * MS)),
            Verdict::Believed
        );
    }

    #[test]
    fn a_message_that_was_held_back_for_over_a_second_proves_nothing() {
        let (mut a, mut b) = (run(1), run(2));
        acquainted(&mut a, &mut b, 100 * MS);
        assert_eq!(a.judge(110 * MS, &b.next(110 * MS)), Verdict::Believed);
        let late = a.next(120 * MS);
        assert_eq!(b.judge(1_111 * MS, &late), Verdict::Unproven);
        assert_eq!(b.judge(1_000 * MS, &late), Verdict::Believed);
    }

    #[test]
    fn an_echo_of_what_was_never_sent_proves_nothing() {
        let (mut a, mut b) = (run(1), run(2));
        acquainted(&mut a, &mut b, 100 * MS);
        let mut message = a.next(200 * MS);
        message.echo.1 = 200 * MS;
        assert_eq!(b.judge(200 * MS, &message), Verdict::Unproven);
        message.echo = (Nonce([2; 16]), 0);
        assert_eq!(b.judge(200 * MS, &message), Verdict::Unproven);
    }

    #[test]
    fn our_own_words_are_no_news() {
        let mut a = run(1);
        let own = a.next(100 * MS);
        assert_eq!(a.judge(100 * MS, &own), Verdict::Replayed);
    }

    #[test]
    fn a_replayed_greeting_does_not_disturb_two_nodes_that_know_each_other() {
        let (mut a, mut b) = (run(1), run(2));
        let recorded = run(9).next(50 * MS);
        acquainted(&mut a, &mut b, 100 * MS);
        for round in 2..20 {
            let at = round * 100 * MS;
            assert_eq!(b.judge(at, &recorded), Verdict::Unproven);
            let answer = b.answer(at, &recorded);
            assert_ne!(a.judge(at, &answer), Verdict::Believed);
            assert_eq!(b.judge(at, &a.next(at)), Verdict::Believed);
            assert_eq!(a.judge(at, &b.next(at)), Verdict::Believed);
        }
    }
}
