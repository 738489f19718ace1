//! Which notify program of one virtual router runs next: one at a time, in order; of the news that
//! comes while one runs only the last is kept, so that the final state is always told. Pure.

use std::time::{Duration, Instant};

/// The runner ends a program at its timeout and one second later at the latest; then its word is
/// due within this.
const RESULT_GRACE: Duration = Duration::from_secs(3);

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// This node has the addresses.
    Active,
    /// It watches.
    Backup,
    /// It can take no part.
    Fault,
    /// lbd leaves.
    Stop,
}

/// The program for the state itself, or the one for every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// `active`, `backup`, `fault` or `stop`.
    Own,
    /// `any`.
    Any,
}

/// A program to be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start<'a, T> {
    pub(super) run: u64,
    pub(super) slot: Slot,
    pub(super) state: Told,
    /// The state told before; `None`: this is the first.
    pub(super) previous: Option<Told>,
    pub(super) facts: &'a T,
}

#[derive(Debug)]
struct News<T> {
    state: Told,
    facts: T,
}

/// What is being told, what is to be told next.
#[derive(Debug)]
pub(super) struct Notifier<T> {
    /// The news being told, and what of it is to be run next.
    present: Option<(News<T>, Option<Slot>)>,
    running: Option<(u64, Slot, Instant)>,
    waiting: Option<News<T>>,
    /// The state before the present news.
    previous: Option<Told>,
    last: Option<Told>,
    runs: u64,
}

impl<T> Default for Notifier<T> {
    fn default() -> Self {
        Self {
            present: None,
            running: None,
            waiting: None,
            previous: None,
            last: None,
            runs: 0,
        }
    }
}

impl<T> Notifier<T> {
    /// How many programs were started.
    pub(super) fn runs(&self) -> u64 {
        self.runs
    }

    /// Further programs count on from here.
    pub(super) fn count_from(&mut self, runs: u64) {
        self.runs = self.runs.max(runs);
    }

    /// The state has changed; what was waiting to be told is out of date.
    pub(super) fn news(&mut self, state: Told, facts: T) {
        if self.last != Some(state) {
            self.last = Some(state);
            self.waiting = Some(News { state, facts });
        }
    }

    /// The next program, if none runs; `exists` says which there are.
    pub(super) fn next(
        &mut self,
        now: Instant,
        exists: impl Fn(Told, Slot) -> bool,
    ) -> Option<Start<'_, T>> {
        if self.running.is_some() {
            return None;
        }
        let slot = loop {
            if let Some(news) = self.waiting.take() {
                let before = self.present.take().map(|(news, _)| news.state);
                self.previous = before.or(self.previous);
                self.present = Some((news, Some(Slot::Own)));
            }
            let (news, next) = self.present.as_mut()?;
            let slot = (*next)?;
            *next = match slot {
                Slot::Own => Some(Slot::Any),
                Slot::Any => None,
            };
            if exists(news.state, slot) {
                break slot;
            }
        };
        self.runs += 1;
        self.running = Some((self.runs, slot, now));
        let (news, _) = self.present.as_ref()?;
        Some(Start {
            run: self.runs,
            slot,
            state: news.state,
            previous: self.previous,
            facts: &news.facts,
        })
    }

    /// A program has ended, however; which one that was.
    pub(super) fn ended(&mut self, run: u64) -> Option<(Told, Slot)> {
        let (_, slot, _) = self.running.take_if(|(running, ..)| *running == run)?;
        let state = self.present.as_ref()?.0.state;
        Some((state, slot))
    }

    /// Who ran it is gone, and the program with it: it is run again, unless there is news.
    pub(super) fn lost(&mut self) {
        if let (Some((_, slot, _)), Some((_, next))) = (self.running.take(), &mut self.present) {
            *next = Some(slot);
        }
    }

    /// Whether everything was told.
    pub(super) fn is_idle(&self) -> bool {
        let told = self.present.as_ref().is_none_or(|(_, next)| next.is_none());
        self.running.is_none() && self.waiting.is_none() && told
    }

    /// When the end of the running program is overdue.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        self.running
            .map(|(_, _, since)| since + timeout + RESULT_GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    type Step = (u64, Slot, Told, Option<Told>, u32);

    fn step(notifier: &mut Notifier<u32>) -> Option<Step> {
        let start = notifier.next(clock::now(), |_, _| true)?;
        Some((
            start.run,
            start.slot,
            start.state,
            start.previous,
            *start.facts,
        ))
    }

    #[test]
    fn the_states_own_program_runs_first_and_the_one_for_all_behind_it() {
        let mut notifier = Notifier::default();
        assert!(notifier.is_idle());
        notifier.news(Told::Backup, 1);
        assert!(!notifier.is_idle());
        let first = (1, Slot::Own, Told::Backup, None, 1);
        assert_eq!(step(&mut notifier), Some(first));
        assert_eq!(step(&mut notifier), None);
        assert_eq!(notifier.ended(1), Some((Told::Backup, Slot::Own)));
        let second = (2, Slot::Any, Told::Backup, None, 1);
        assert_eq!(step(&mut notifier), Some(second));
        assert_eq!(notifier.ended(1), None);
        assert_eq!(notifier.ended(2), Some((Told::Backup, Slot::Any)));
        assert_eq!(step(&mut notifier), None);
        assert!(notifier.is_idle());
    }

    #[test]
    fn of_the_news_that_comes_while_a_program_runs_only_the_last_is_told() {
        let mut notifier = Notifier::default();
        notifier.news(Told::Backup, 1);
        step(&mut notifier);
        notifier.news(Told::Active, 2);
        notifier.news(Told::Fault, 3);
        notifier.news(Told::Active, 4);
        assert_eq!(step(&mut notifier), None);
        notifier.ended(1);
        let next = (2, Slot::Own, Told::Active, Some(Told::Backup), 4);
        assert_eq!(step(&mut notifier), Some(next));
        notifier.ended(2);
        let next = (3, Slot::Any, Told::Active, Some(Told::Backup), 4);
        assert_eq!(step(&mut notifier), Some(next));
        notifier.ended(3);
        assert!(notifier.is_idle());
    }

    #[test]
    fn a_state_that_is_left_and_regained_while_its_program_runs_is_told_again() {
        let mut notifier = Notifier::default();
        notifier.news(Told::Active, 1);
        step(&mut notifier);
        notifier.news(Told::Backup, 2);
        notifier.news(Told::Active, 3);
        notifier.ended(1);
        let next = (2, Slot::Own, Told::Active, Some(Told::Active), 3);
        assert_eq!(step(&mut notifier), Some(next));
    }

    #[test]
    fn the_same_state_again_is_no_news() {
        let mut notifier = Notifier::default();
        notifier.news(Told::Active, 1);
        step(&mut notifier);
        notifier.ended(1);
        step(&mut notifier);
        notifier.ended(2);
        notifier.news(Told::Active, 2);
        assert_eq!(step(&mut notifier), None);
    }

    #[test]
    fn programs_that_are_not_there_are_passed_over() {
        let mut notifier = Notifier::default();
        notifier.news(Told::Fault, 1);
        let only_any = |_, slot| slot == Slot::Any;
        let now = clock::now();
        assert_eq!(notifier.next(now, only_any).unwrap().slot, Slot::Any);
        notifier.ended(1);
        notifier.news(Told::Backup, 2);
        assert_eq!(notifier.next(now, |_, _| false), None);
        assert!(notifier.is_idle());
    }

    #[test]
    fn a_program_lost_with_its_runner_is_run_again_unless_there_is_news() {
        let mut notifier = Notifier::default();
        notifier.news(Told::Active, 1);
        step(&mut notifier);
        notifier.lost();
        assert!(!notifier.is_idle());
        let again = (2, Slot::Own, Told::Active, None, 1);
        assert_eq!(step(&mut notifier), Some(again));
        notifier.news(Told::Backup, 2);
        notifier.lost();
        let news = (3, Slot::Own, Told::Backup, Some(Told::Active), 2);
        assert_eq!(step(&mut notifier), Some(news));
    }

    #[test]
    fn a_result_is_overdue_three_seconds_after_the_timeout() {
        let mut notifier = Notifier::default();
        let now = clock::now();
        let timeout = Duration::from_secs(10);
        notifier.news(Told::Active, 1);
        assert_eq!(notifier.deadline(timeout), None);
        notifier.next(now, |_, _| true);
        let expected = now + Duration::from_secs(13);
        assert_eq!(notifier.deadline(timeout), Some(expected));
    }
}
