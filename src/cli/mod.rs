//! The command line: the only component that prints.
