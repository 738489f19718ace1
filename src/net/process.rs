//! Processes: spawning, pidfds, state in /proc.
