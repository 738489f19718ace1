//! How a connection ended, in HAProxy's two letters, and the record of it that becomes a line of
//! the access log. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// What ended a connection: the first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// `-`: both sides finished.
    Normal,
    /// `C`: the client broke off.
    Client,
    /// `S`: the server refused or broke off, or none was usable.
    Server,
    /// `P`: the proxy, to enforce a limit.
    Proxy,
    /// `R`: the proxy ran out of a resource.
    Resource,
    /// `D`: its server was found to be down.
    Down,
    /// `K`: an administrator, or the virtual address left this node.
    Killed,
    /// `c`: waited too long for the client.
    ClientTimeout,
    /// `s`: waited too long for the server, or for a slot on one.
    ServerTimeout,
}

/// Where a connection was when it ended: the second letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// `-`: over.
    Done,
    /// `R`: waiting for the PROXY header, or refused for who the client is.
    Header,
    /// `Q`: waiting for a slot.
    Queue,
    /// `C`: connecting to a server.
    Connect,
    /// `D`: transferring data.
    Data,
    /// `L`: the server had finished, its last data was on its way to the client.
    Last,
}

/// HAProxy's termination code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Termination {
    /// What ended it.
    pub cause: Cause,
    /// Where it was.
    pub phase: Phase,
}

impl Termination {
    /// Both sides finished: `--`.
    pub const NORMAL: Self = Self::new(Cause::Normal, Phase::Done);
    /// No server could be had: `SC`.
    pub const NO_SERVER: Self = Self::new(Cause::Server, Phase::Connect);

    /// A code.
    #[must_use]
    pub const fn new(cause: Cause, phase: Phase) -> Self {
        Self { cause, phase }
    }

    /// The first letter.
    #[must_use]
    pub const fn cause_letter(self) -> char {
        match self.cause {
            Cause::Normal => '-',
            Cause::Client => 'C',
            Cause::Server => 'S',
            Cause::Proxy => 'P',
            Cause::Resource => 'R',
            Cause::Down => 'D',
            Cause::Killed => 'K',
            Cause::ClientTimeout => 'c',
            Cause::ServerTimeout => 's',
        }
    }

    /// The second letter.
    #[must_use]
    pub const fn phase_letter(self) -> char {
        match self.phase {
            Phase::Done => '-',
            Phase::Header => 'R',
            Phase::Queue => 'Q',
            Phase::Connect => 'C',
            Phase::Data => 'D',
            Phase::Last => 'L',
        }
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.cause_letter(), self.phase_letter())
    }
}

/// Counts at the end of a connection, this one included (HAProxy's
/// `%ac/%fc/%bc/%sc` and `%sq/%bq`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections of the process.
    pub actconn: u32,
    /// Connections of the proxy.
    pub feconn: u32,
    /// Connections of the proxy that reached the choice of a server.
    pub beconn: u32,
    /// Connections of the server.
    pub srv_conn: u32,
    /// Always 0: servers have no queue of their own.
    pub srv_queue: u32,
    /// Its number in the queue when it joined it, from 1; 0: it never did.
    pub backend_queue: u32,
}

/// One connection, told at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRecord {
    /// When it was accepted.
    pub accepted_at: SystemTime,
    /// Position of its proxy in the file.
    pub proxy: usize,
    /// Position of its server in the proxy; `None`: it never got one.
    pub server: Option<usize>,
    /// The client.
    pub client: SocketAddr,
    /// The address the client reached.
    pub local: SocketAddr,
    /// Time until it had a slot; `None`: it never had.
    pub queue: Option<Duration>,
    /// Time from there until the server had accepted; `None`: it never did.
    pub connect: Option<Duration>,
    /// Time from accept to end.
    pub total: Duration,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// How it ended.
    pub end: Termination,
    /// Connects that failed.
    pub retries: u8,
    /// Whether it ended up at another server than the first chosen.
    pub redispatched: bool,
    /// Whether a second connect was begun beside one without an answer.
    pub hedged: bool,
    /// How busy it was.
    pub counts: Counts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_haproxys_letters() {
        let code = |cause, phase| Termination::new(cause, phase).to_string();
        assert_eq!(Termination::NORMAL.to_string(), "--");
        assert_eq!(code(Cause::ServerTimeout, Phase::Queue), "sQ");
        assert_eq!(code(Cause::ClientTimeout, Phase::Header), "cR");
        assert_eq!(code(Cause::Server, Phase::Connect), "SC");
        assert_eq!(code(Cause::ClientTimeout, Phase::Data), "cD");
        assert_eq!(code(Cause::Client, Phase::Queue), "CQ");
        assert_eq!(code(Cause::Proxy, Phase::Data), "PD");
        assert_eq!(code(Cause::Resource, Phase::Connect), "RC");
        assert_eq!(code(Cause::Down, Phase::Data), "DD");
        assert_eq!(code(Cause::Killed, Phase::Last), "KL");
    }
}
