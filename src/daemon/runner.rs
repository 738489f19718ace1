//! The runner process: starts the proxy and the track scripts.
