//! Constant words on a tape. A reader has them by value and needs them as constants again: it keeps
//! each different one, a bounded number. Pure.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Constant words in a field that is written to tapes: by this name the derived reader does not try
/// to borrow them from what it reads.
pub type Words = &'static str;

/// Different words of one process that reads recordings, and bytes of one.
const WORDS_MAX: usize = 256;
const BYTES_MAX: usize = 200;

static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The same words as a constant; `None` when there are too many or they are too long.
#[must_use]
pub fn constant(words: &str) -> Option<&'static str> {
    let mut known = KNOWN.lock().ok()?;
    if let Some(same) = known.get(words) {
        return Some(same);
    }
    if known.len() >= WORDS_MAX || words.len() > BYTES_MAX {
        return None;
    }
    // What is read stays for the life of the process; the bounds above say how much.
    let kept: &'static str = Box::leak(words.to_owned().into_boxed_str());
    known.insert(kept);
    Some(kept)
}

/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(words: &&'static str, to: S) -> Result<S::Ok, S::Error> {
    words.serialize(to)
}

/// # Errors
/// The deserializer's, and more or longer words than any recording has.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    let words = String::deserialize(from)?;
    let too_many = || serde::de::Error::custom("more or longer words than a recording has");
    constant(&words).ok_or_else(too_many)
}

/// Things and what is said of them.
pub mod list {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Words, constant};

    /// # Errors
    /// The serializer's.
    pub fn serialize<T, S>(all: &[(T, Words)], to: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        to.collect_seq(all)
    }

    /// # Errors
    /// The deserializer's, and more or longer words than any recording has.
    pub fn deserialize<'de, T, D>(from: D) -> Result<Vec<(T, Words)>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let all = Vec::<(T, String)>::deserialize(from)?;
        let too_many = || serde::de::Error::custom("more or longer words than a recording has");
        all.into_iter()
            .map(|(thing, words)| Ok((thing, constant(&words).ok_or_else(too_many)?)))
            .collect()
    }
}
