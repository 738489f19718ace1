//! The proxy process: its control thread.
