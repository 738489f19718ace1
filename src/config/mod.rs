//! lb.toml: from text to a configuration that cannot be wrong, or to every mistake at once.
//!
//! `schema` is the one table of keys: it drives parsing, did-you-mean, `docs/config.md` and the
//! shipped examples. `parse` walks the spanned, recovered TOML tree along that table and builds the
//! types of `model`. `lint` adds what only the whole file can tell (E02xx, E03xx, W0xxx). `local`
//! combines a configuration with facts about this machine: which node am I, which interface.
//! `diagnostics` renders problems in rustc's style. Everything here is pure: text and facts in,
//! values out.

pub mod local;
pub mod model;
