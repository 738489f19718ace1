//! Where messages go: stderr, syslog, journald. Never blocks.
