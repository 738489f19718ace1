//! Real-time scheduling and locked memory, where permitted.
