//! A watch against API servers on loopback, over TLS, that say what a test has them say.
