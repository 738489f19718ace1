//! Signals as a descriptor: signalfd(2).
