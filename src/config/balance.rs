//! `balance`: how a proxy chooses servers.

/// How the next server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, one rotation for all workers.
    RoundRobin,
    /// The server with the fewest connections for its weight.
    LeastConnections,
    /// The less loaded of two servers drawn by weight.
    Random,
    /// The same server for the same client address, within bounds of load.
    SourceHash,
    /// The first server in file order that has room.
    First,
}
