//! What operators see: status, metrics, the admin socket and HTTP.
