//! The registry of metrics and its text form.
