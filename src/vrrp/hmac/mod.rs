//! The trailer behind an advert that proves who sent it and that it is fresh:
//! draft-cassen-vrrp-auth-hmac-00, as keepalived 2.4.2 and later speak it (`auth_hmac`). Pure: the
//! clocks come in as [`Clock`], nothing here allocates once [`Seal::new`] has run.
//!
//! ```text
//! | type 1 | key id | reserved 0 | seconds (4) | 1/65536 s (2) | counter (2) | HMAC (16) |
//! ```
//! The HMAC is HMAC-SHA256, cut to 128 bits, over: a pseudo-header (family, version, vrid, 0, source
//! address in 16 bytes), the VRRP message with its checksum taken as zero, the first 12 bytes of the
//! trailer, and 16 zeros. The destination is not covered. The message's own checksum does not cover
//! the trailer in IPv4; in IPv6 it does.
//!
//! **Freshness.** The 64 bits of the time must grow from advert to advert of a sender, in serial
//! arithmetic, whatever key signed them. Beyond that an advert is fresh if its time is near our
//! wall clock, or near where the sender's own clock must be by now: the time of its last accepted
//! advert plus what our monotonic clock has counted since. The second rule is ours: while a sender
//! is heard, a jump or drift of our own wall clock makes us deaf to nobody, and an advert held back
//! and replayed later is as late by either rule.
//!
//! **Clocks that are apart** by more than the window (three intervals, at least 5 s) still separate
//! two nodes that have not heard each other: each refuses the other as [`Reject::HmacClock`], so
//! both may become Active until the clocks agree. That is the draft's price. Nothing of it
//! lasts: a refused advert moves no mark, a [`Seal`] whose clock was put back follows it again, and
//! a mark that lies in the future holds for twice the window at most.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ring::hmac::{Context, HMAC_SHA256, Key};

use super::packet::{AUTH_BYTES, HEADER_BYTES, Reject};
use crate::config::model::{Hmac, HmacMode};
use crate::units::AdvertInterval;

/// The whole trailer, bytes.
pub const TRAILER_BYTES: usize = 28;
/// What the HMAC covers of it, bytes.
const STAMP_BYTES: usize = TRAILER_BYTES - DIGEST_BYTES;
const DIGEST_BYTES: usize = 16;
const TYPE_SHA256_128: u8 = 1;
/// The least distance between two clocks that is refused, like keepalived's.
const WINDOW_MIN: Duration = Duration::from_secs(5);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Time since 1970, UTC.
    pub wall: Duration,
    /// The monotonic clock.
    pub at: Instant,
}

/// A moment as trailers carry it: seconds, 1/65536 s, counter; wraps in 2106.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequence(u64);

impl Sequence {
    fn at(wall: Duration) -> Self {
        Self((span(wall) >> 16) << 16)
    }

    const fn successor(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    const fn plus(self, time: u64) -> Self {
        Self(self.0.wrapping_add(time))
    }

    /// How far `self` is after `other`, in 2⁻³² s; negative if before (RFC 1982 in 64 bits).
    const fn after(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed()
    }
}

/// A time in 2⁻³² s, in the whole seconds modulo 2³².
fn span(time: Duration) -> u64 {
    let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
    (time.as_secs() << 32) | fraction
}

/// The last advert accepted from a sender.
#[derive(Debug, Clone, Copy)]
struct Mark {
    sequence: Sequence,
    at: Instant,
}

/// Keys, clock and marks of one virtual router on one interface.
#[derive(Debug)]
pub struct Seal {
    /// The first signs.
    keys: Vec<(u8, Key)>,
    mode: HmacMode,
    window: Duration,
    sent: Option<Sequence>,
    /// By position among the peers.
    marks: Vec<Option<Mark>>,
    skew: i64,
}

impl Seal {
    /// Knows `peers` senders, has heard none of them.
    #[must_use]
    pub fn new(config: &Hmac, interval: AdvertInterval, peers: usize) -> Self {
        let key = |secret: &[u8]| Key::new(HMAC_SHA256, secret);
        Self {
            keys: config
                .keys
                .iter()
                .map(|given| (given.id, key(&given.secret.0)))
                .collect(),
            mode: config.mode,
            window: WINDOW_MIN.max(interval.duration() * 3),
            sent: None,
            marks: vec![None; peers],
            skew: 0,
        }
    }

    /// Appends the trailer to a message from `source`, unless the mode says to send none.
    pub fn sign(&mut self, message: &mut Vec<u8>, source: IpAddr, clock: Clock) {
        let Some((id, key)) = self.keys.first() else {
            return;
        };
        if self.mode == HmacMode::ReceiveOnly {
            return;
        }
        let sequence = self.next(Sequence::at(clock.wall));
        self.sent = Some(sequence);
        let [a, b, c, d, e, f, g, h] = sequence.0.to_be_bytes();
        let stamp = [TYPE_SHA256_128, *id, 0, 0, a, b, c, d, e, f, g, h];
        if let Some(digest) = digest(key, message, &stamp, source) {
            message.extend_from_slice(&stamp);
            message.extend_from_slice(&digest);
        }
    }

    /// The clock if it runs ahead of the last advert, else one more than that; but a clock put back
    /// beyond the window is followed, or receivers would call us stale until it caught up.
    fn next(&self, clock: Sequence) -> Sequence {
        match self.sent {
            Some(sent) if (0..=self.window_span()).contains(&sent.after(clock)) => sent.successor(),
            Some(_) | None => clock,
        }
    }

    /// Judges the trailer of a message that the peer at that position sent from `source`.
    ///
    /// # Errors
    /// One of [`Reject`]'s `Hmac…`; then nothing is remembered of the advert.
    pub fn verify(
        &mut self,
        peer: usize,
        (message, trailer): (&[u8], Option<&[u8; TRAILER_BYTES]>),
        source: IpAddr,
        clock: Clock,
    ) -> Result<(), Reject> {
        let Some(trailer) = trailer else {
            return match self.mode {
                HmacMode::Enforce => Err(Reject::HmacMissing),
                HmacMode::Permissive | HmacMode::ReceiveOnly => Ok(()),
            };
        };
        let (stamp, received) = trailer
            .split_first_chunk::<STAMP_BYTES>()
            .ok_or(Reject::HmacForm)?;
        let [kind, id, r0, r1, a, b, c, d, e, f, g, h] = *stamp;
        if kind != TYPE_SHA256_128 || [r0, r1] != [0, 0] {
            return Err(Reject::HmacForm);
        }
        let key = self.keys.iter().find(|(known, _)| *known == id);
        let (_, key) = key.ok_or(Reject::HmacKey)?;
        let ours = digest(key, message, stamp, source).ok_or(Reject::HmacForm)?;
        if !is_same(&ours, received) {
            return Err(Reject::HmacDigest);
        }
        let sequence = Sequence(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        self.judge(peer, sequence, clock)
    }

    /// Judges the time of an advert whose HMAC is right, and remembers it if it is good.
    fn judge(&mut self, peer: usize, sequence: Sequence, clock: Clock) -> Result<(), Reject> {
        let wall = Sequence::at(clock.wall);
        self.skew = wall.after(sequence);
        let window = self.window_span();
        let near = |other: Sequence| sequence.after(other).unsigned_abs() <= window.unsigned_abs();
        let silent_for = |mark: Mark| clock.at.saturating_duration_since(mark.at);
        let mark = self.marks.get_mut(peer).ok_or(Reject::UnknownSender)?;
        let on_its_own_clock =
            mark.is_some_and(|mark| near(mark.sequence.plus(span(silent_for(mark)))));
        if !near(wall) && !on_its_own_clock {
            return Err(Reject::HmacClock);
        }
        let is_replay = mark.is_some_and(|mark| {
            let is_stranded = mark.sequence.after(wall) > window && silent_for(mark) > self.window;
            sequence.after(mark.sequence) <= 0 && !is_stranded
        });
        if is_replay {
            return Err(Reject::HmacReplay);
        }
        *mark = Some(Mark {
            sequence,
            at: clock.at,
        });
        Ok(())
    }

    /// How far our wall clock was ahead of the sender's in the last advert whose HMAC was right,
    /// ms; negative: behind.
    #[must_use]
    pub const fn skew_ms(&self) -> i64 {
        ((self.skew >> 16) * 1000) >> 16
    }

    /// Whether [`skew_ms`](Self::skew_ms) is so large that it should be mended before it does harm:
    /// more than half the window.
    #[must_use]
    pub fn is_skewed(&self) -> bool {
        self.skew.unsigned_abs() > self.window_span().unsigned_abs() / 2
    }

    fn window_span(&self) -> i64 {
        span(self.window).cast_signed()
    }
}

/// Parts an IP payload into the message and the trailer behind it, which only the length tells.
#[must_use]
pub fn split(payload: &[u8], source: IpAddr) -> (&[u8], Option<&[u8; TRAILER_BYTES]>) {
    let address_bytes = match source {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 16,
    };
    let Some([version_type, _vrid, _priority, count, ..]) = payload.first_chunk::<HEADER_BYTES>()
    else {
        return (payload, None);
    };
    let auth_bytes = if version_type >> 4 == 2 {
        AUTH_BYTES
    } else {
        0
    };
    let message_bytes = HEADER_BYTES + usize::from(*count) * address_bytes + auth_bytes;
    match payload.split_at_checked(message_bytes) {
        Some((message, trailer)) => match trailer.try_into() {
            Ok(trailer) => (message, Some(trailer)),
            Err(_) => (payload, None),
        },
        None => (payload, None),
    }
}

/// The HMAC of a message; `None` if that has not even a header.
fn digest(
    key: &Key,
    message: &[u8],
    stamp: &[u8; STAMP_BYTES],
    source: IpAddr,
) -> Option<[u8; DIGEST_BYTES]> {
    let (header, rest) = message.split_first_chunk::<HEADER_BYTES>()?;
    let [version_type, vrid, priority, count, fifth, sixth, ..] = *header;
    let mut context = Context::with_key(key);
    let version = version_type >> 4;
    match source {
        IpAddr::V4(ip) => {
            context.update(&[4, version, vrid, 0]);
            context.update(&ip.octets());
            context.update(&[0; 12]);
        }
        IpAddr::V6(ip) => {
            context.update(&[6, version, vrid, 0]);
            context.update(&ip.octets());
        }
    }
    context.update(&[version_type, vrid, priority, count, fifth, sixth, 0, 0]);
    context.update(rest);
    context.update(stamp);
    context.update(&[0; DIGEST_BYTES]);
    context.sign().as_ref().first_chunk().copied()
}

/// Compares in a time that does not tell where the first difference is.
fn is_same(ours: &[u8; DIGEST_BYTES], theirs: &[u8]) -> bool {
    let differing = ours
        .iter()
        .zip(theirs)
        .fold(0, |all, (ours, theirs)| black_box(all | (ours ^ theirs)));
    differing == 0 && ours.len() == theirs.len()
}

#[cfg(test)]
mod tests;
