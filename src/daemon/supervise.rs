//! Is the proxy well? The pure verdict over heartbeats, exits and thread states.
