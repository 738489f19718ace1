//! lb.toml: from text to a configuration that cannot be wrong, or to every mistake at once.
//!
//! `schema` is the one table of keys: it drives parsing, did-you-mean, `docs/config.md` and the
//! shipped examples. `parse` walks the spanned, recovered TOML tree along that table and builds the
//! types of `model`. `lint` adds what only the whole file can tell (E02xx, E03xx, W0xxx). `local`
//! combines a configuration with facts about this machine: which node am I, which interface.
//! `problem` is a mistake as a value, `diagnostics` renders problems in rustc's style, `docs`
//! writes the reference, `json_schema` the schema for editors, `diff` tells two files apart.
//! Everything here is pure: text and facts in, values out.

mod access_log;
mod auth;
mod balance;
mod check;
pub mod diagnostics;
pub mod diff;
pub mod discovery;
pub mod docs;
mod guard;
pub mod json_schema;
mod lint;
pub mod local;
pub mod model;
mod origin;
mod parse;
pub mod problem;
mod programs;
mod rebalance;
mod reload;
pub mod schema;
mod secret;

pub use diagnostics::{render, render_json};
pub use lint::{Flaw, Host, Trouble, View, comes_back};
pub use parse::{Parsed, backends, examine, is_name, load, nearest, parse, plain_duration};
pub use problem::{Fix, Label, Problem, Severity};

/// FNV-1a 64 of the text: whether two processes have the same file.
#[must_use]
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
