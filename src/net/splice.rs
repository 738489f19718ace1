//! splice(2) and its pipes.
