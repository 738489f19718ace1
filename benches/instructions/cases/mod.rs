//! What is measured: each case sets up what it needs and runs its operation so often. The same
//! instructions each time: no clock, no randomness, no other thread inside what is counted, but for
//! those of `engine`, which run the real workers.

mod engine;
mod farm;
mod text;
mod vrrp;

use std::error::Error;
use std::hint::black_box;

use lbd::config::model::Config;

use crate::measured;

/// The configuration the cases run with.
const KUBESPHERE: &str = include_str!("../../../conf/kubesphere.toml");

/// What a case's run may fail with.
type Outcome = Result<(), Box<dyn Error>>;

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Its key in the baseline.
    pub(crate) name: &'static str,
    /// The function (a pattern) inside which instructions count.
    pub(crate) counted: &'static str,
    /// How many operations one run has.
    pub(crate) times: u32,
    /// Operations of a run that is subtracted; 0: nothing but operations is counted.
    pub(crate) empty: u32,
    /// Does it so often.
    pub(crate) run: fn(u32) -> Outcome,
}

impl Case {
    /// What calling an operation costs by itself.
    pub(crate) const NOTHING: Self = Self::pure("nothing", 1000, |times| {
        measured(times, &mut || {
            black_box(());
        });
        Ok(())
    });

    /// A case that counts inside [`measured`].
    const fn pure(name: &'static str, times: u32, run: fn(u32) -> Outcome) -> Self {
        Self {
            name,
            counted: "micro::measured*",
            times,
            empty: 0,
            run,
        }
    }
}

/// The case of this name.
pub(crate) fn find(name: &str) -> Option<Case> {
    let mut all = all().into_iter().chain([Case::NOTHING]);
    all.find(|case| case.name == name)
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(farm::CASES);
    all.extend(vrrp::CASES);
    all.extend(text::CASES);
    all.extend(engine::CASES);
    all
}

/// A configuration that is right.
fn config(text: &str) -> Result<Config, Box<dyn Error>> {
    lbd::config::load(text).map_err(|problems| format!("{problems:?}").into())
}
