//! TCP listeners, connects and socket options.
