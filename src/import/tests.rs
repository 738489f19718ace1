//! Single facts about the translation; whole files are in tests/import.rs.

use super::*;
