//! What a worker's events are about. Pure.

/// What an event's token names: the upper half says which table, the lower half the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Client(u32),
    Server(u32),
    Listener(u32),
    Bell,
}

impl Token {
    pub(super) fn pack(self) -> u64 {
        match self {
            Self::Client(slot) => u64::from(slot),
            Self::Server(sock) => 1 << 32 | u64::from(sock),
            Self::Listener(index) => 2 << 32 | u64::from(index),
            Self::Bell => 3 << 32,
        }
    }

    pub(super) fn unpack(token: u64) -> Option<Self> {
        let place = u32::try_from(token & u64::from(u32::MAX)).ok()?;
        match token >> 32 {
            0 => Some(Self::Client(place)),
            1 => Some(Self::Server(place)),
            2 => Some(Self::Listener(place)),
            3 => Some(Self::Bell),
            _ => None,
        }
    }
}
