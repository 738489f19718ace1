//! Sealed memory files that carry a configuration between processes.
