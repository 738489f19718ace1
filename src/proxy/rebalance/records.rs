//! Where the records of TLS begin and end in the bytes of a connection, by their headers alone. Pure.
//!
//! A header names the length of its record, so from one header the next is known; five bytes of
//! each record are looked at. Bytes that were not seen (splice(2)), or a header that can't be one,
//! lose the thread. It is taken up again after a rest: if what follows begins with a header, and the
//! record that this names is followed by another one, these are headers.

/// Bytes of a header: type, version (two), length (two).
const HEADER: u8 = 5;
/// Bytes in a record: 2^14, and what encryption may add (RFC 5246 §6.2.3; RFC 8446 adds less).
const LONGEST: u16 = (1 << 14) + 2048;
/// Types: `change_cipher_spec` (20), `alert`, `handshake`, `application_data`, `heartbeat` (24).
const TYPES: std::ops::RangeInclusive<u8> = 20..=24;
/// Headers in a row after which a thread that was lost is believed to be found.
const PROOF: u8 = 2;

/// Where a direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between two records.
    Boundary,
    /// Within a record, or its header.
    Inside,
    /// Nobody knows: bytes were not seen, they are no TLS, or there were none.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many bytes of a header were seen; `high` is the upper byte of the length.
    Header {
        seen: u8,
        high: u8,
    },
    /// So many bytes of the record are missing.
    Body(u16),
    Lost,
}

impl Stage {
    const BETWEEN: Self = Self::Header { seen: 0, high: 0 };
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    stage: Stage,
    /// Headers that are missing until it is believed.
    unproven: u8,
}

impl Default for Track {
    /// The beginning of a stream.
    fn default() -> Self {
        Self {
            stage: Stage::BETWEEN,
            unproven: 1,
        }
    }
}

impl Track {
    /// Where it stands.
    #[must_use]
    pub fn place(self) -> Place {
        match self.stage {
            Stage::Lost => Place::Unknown,
            _ if self.unproven > 0 => Place::Unknown,
            Stage::BETWEEN => Place::Boundary,
            Stage::Header { .. } | Stage::Body(_) => Place::Inside,
        }
    }

    /// Bytes went by unseen.
    pub const fn lose(&mut self) {
        self.stage = Stage::Lost;
        self.unproven = PROOF;
    }

    /// There was a rest: the next byte may be the first of a record.
    pub fn rest(&mut self) {
        if self.stage == Stage::Lost {
            self.stage = Stage::BETWEEN;
        }
    }

    /// Takes the next bytes. Apart, for few connections are looked at so closely.
    #[cold]
    #[inline(never)]
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.stage {
                Stage::Lost => return,
                Stage::Body(left) => {
                    let skip = usize::from(left).min(bytes.len());
                    bytes = bytes.get(skip..).unwrap_or_default();
                    let left = left.saturating_sub(u16::try_from(skip).unwrap_or(left));
                    self.stage = if left == 0 {
                        Stage::BETWEEN
                    } else {
                        Stage::Body(left)
                    };
                }
                Stage::Header { seen, high } => {
                    let Some((byte, rest)) = bytes.split_first() else {
                        return;
                    };
                    bytes = rest;
                    self.header_byte(seen, high, *byte);
                }
            }
        }
    }

    fn header_byte(&mut self, seen: u8, high: u8, byte: u8) {
        let fits = match seen {
            0 => TYPES.contains(&byte),
            1 => byte == 3,
            2 => byte <= 4,
            3 => u16::from(byte) <= LONGEST >> 8,
            _ => u16::from_be_bytes([high, byte]) <= LONGEST,
        };
        if !fits {
            self.lose();
        } else if seen + 1 < HEADER {
            let high = if seen == 3 { byte } else { high };
            self.stage = Stage::Header {
                seen: seen + 1,
                high,
            };
        } else {
            self.unproven = self.unproven.saturating_sub(1);
            self.stage = match u16::from_be_bytes([high, byte]) {
                0 => Stage::BETWEEN,
                length => Stage::Body(length),
            };
        }
    }
}

/// Both directions of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Records {
    /// From client to server.
    pub up: Track,
    /// From server to client.
    pub down: Track,
    /// The last bytes were the client's: it may be waiting for an answer.
    asked: bool,
}

impl Records {
    /// There was a rest in both directions.
    pub fn rest(&mut self) {
        self.up.rest();
        self.down.rest();
    }

    /// So many bytes went by, up before down.
    pub const fn moved(&mut self, up: usize, down: usize) {
        if up + down > 0 {
            self.asked = down == 0;
        }
    }

    /// Whether the last bytes were the client's.
    #[must_use]
    pub const fn asked(&self) -> bool {
        self.asked
    }

    /// Whether both directions are known to be between two records.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.up.place() == Place::Boundary && self.down.place() == Place::Boundary
    }

    /// Whether a direction is known to be within a record.
    #[must_use]
    pub fn inside(&self) -> bool {
        self.up.place() == Place::Inside || self.down.place() == Place::Inside
    }
}

#[cfg(test)]
mod tests {
    use super::Place::{Boundary, Inside, Unknown};
    use super::*;

    /// A record of `kind` with so many bytes; they look like headers as much as they can.
    fn record(kind: u8, version: u8, length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let mut record = vec![kind, 3, version, high, low];
        record.extend((0..length).map(|at| [23, 3, 3, 0, 1][usize::from(at) % 5]));
        record
    }

    fn after(chunks: &[&[u8]]) -> Place {
        let mut track = Track::default();
        for chunk in chunks {
            track.feed(chunk);
        }
        track.place()
    }

    #[test]
    fn a_stream_is_between_records_where_a_record_ends_and_only_there_however_it_is_split() {
        // TLS 1.2: version 1 in the first record, then 3; TLS 1.3 says 3 too. An empty record.
        let records = [
            record(22, 1, 7),
            record(20, 3, 1),
            record(23, 3, 0),
            record(23, 3, 300),
            record(21, 3, 2),
        ];
        let stream = records.concat();
        let mut ends = Vec::new();
        for record in &records {
            ends.push(ends.last().unwrap_or(&0) + record.len());
        }
        for first in 0..=stream.len() {
            let expected = match first {
                0..=4 => Unknown,
                at if ends.contains(&at) => Boundary,
                _ => Inside,
            };
            assert_eq!(after(&[&stream[..first]]), expected, "{first}");
            // The end is found from every split, and so is each step byte by byte.
            assert_eq!(after(&[&stream[..first], &stream[first..]]), Boundary);
            for second in first..=stream.len() {
                let parts = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(after(&parts), Boundary, "{first} {second}");
            }
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(after(&bytes), Boundary);
    }

    #[test]
    fn the_longest_record_is_one_and_a_longer_one_is_not() {
        assert_eq!(after(&[&record(23, 3, 18_432)]), Boundary);
        assert_eq!(after(&[&record(23, 3, 18_432)[..18_436]]), Inside);
        assert_eq!(after(&[&[23, 3, 3, 0x48, 0x01]]), Unknown);
        assert_eq!(after(&[&[23, 3, 3, 0xff, 0xff]]), Unknown);
    }

    #[test]
    fn what_is_no_tls_is_never_at_a_boundary() {
        for text in [
            &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[0, 0, 0, 8, 4, 210, 22, 47],
            &[22, 2, 0, 0, 1, 9],
            &[22, 3, 9, 0, 1, 9],
            &[19, 3, 3, 0, 1, 9],
            &[25, 3, 3, 0, 1, 9],
        ] {
            assert_eq!(after(&[text]), Unknown, "{text:?}");
            // Not even if what comes next looks like a record.
            assert_eq!(after(&[text, &record(23, 3, 9)]), Unknown, "{text:?}");
        }
        assert_eq!(after(&[]), Unknown);
    }

    #[test]
    fn a_lost_thread_is_found_after_a_rest_and_two_headers_in_their_places() {
        let mut track = Track::default();
        track.feed(&record(22, 1, 9));
        track.lose();
        track.feed(&record(23, 3, 9));
        track.feed(&record(23, 3, 9));
        assert_eq!(track.place(), Unknown, "no rest");
        track.rest();
        track.feed(&record(23, 3, 9));
        assert_eq!(track.place(), Unknown, "one header");
        let next = record(23, 3, 9);
        track.feed(&next[..6]);
        assert_eq!(track.place(), Inside);
        track.feed(&next[6..]);
        assert_eq!(track.place(), Boundary);
    }

    #[test]
    fn a_rest_in_the_middle_of_an_unseen_record_is_not_taken_for_its_end() {
        let mut track = Track::default();
        track.lose();
        track.rest();
        track.feed(b"the rest of a record's bytes");
        track.feed(&record(23, 3, 9));
        track.feed(&record(23, 3, 9));
        assert_eq!(track.place(), Unknown);
        // What looks like a header by chance is not followed by one.
        track.rest();
        track.feed(&record(23, 3, 4));
        track.feed(&[7; 40]);
        assert_eq!(track.place(), Unknown);
    }

    #[test]
    fn a_rest_in_a_known_stream_changes_nothing() {
        let mut track = Track::default();
        let bytes = record(23, 3, 9);
        track.feed(&bytes[..8]);
        track.rest();
        assert_eq!(track.place(), Inside);
        track.feed(&bytes[8..]);
        assert_eq!(track.place(), Boundary);
    }

    #[test]
    fn random_bytes_are_never_at_a_boundary() {
        let mut seed = 5_u64;
        for _ in 0..200 {
            let mut track = Track::default();
            for _ in 0..500 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                track.feed(&seed.to_be_bytes());
                track.rest();
            }
            assert_ne!(track.place(), Boundary);
        }
    }

    #[test]
    fn both_directions_count_and_who_spoke_last_is_known() {
        let mut records = Records::default();
        assert!(!records.at_boundary() && !records.inside() && !records.asked());
        records.up.feed(&record(22, 1, 9));
        records.moved(14, 0);
        assert!(!records.at_boundary() && records.asked());
        records.down.feed(&record(22, 3, 9)[..13]);
        records.moved(0, 13);
        assert!(records.inside() && !records.asked());
        records.down.feed(&[0]);
        records.moved(3, 1);
        assert!(records.at_boundary() && !records.asked());
        records.moved(0, 0);
        assert!(!records.asked());
    }
}
