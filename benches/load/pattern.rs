//! The bytes that travel: pseudo-random, told apart by seed and position, so that a lost, repeated,
//! swapped or foreign byte is seen wherever it is. Pure.

/// Prime, and so no multiple of any buffer or pipe size: a shift by 4 KiB or 64 KiB shows.
const PERIOD: u64 = 65_521;
/// The longest slice that can be asked for at once.
pub(crate) const WINDOW: usize = 256 * 1024;

/// A table from which every stretch of every stream is one contiguous slice: sending copies
/// nothing, checking is one memcmp.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    pub(crate) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut period = Vec::new();
        for _ in 0..PERIOD {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            period.push(state.to_le_bytes()[5]);
        }
        let length = period.len() + WINDOW;
        let bytes = period.iter().copied().cycle().take(length).collect();
        Self { bytes }
    }

    /// Up to `length` bytes (never more than [`WINDOW`]) of stream `seed`, from `position` on.
    pub(crate) fn slice(&self, seed: u64, position: u64, length: u64) -> &[u8] {
        let offset = (seed % PERIOD * 40_503 + position % PERIOD) % PERIOD;
        let start = usize::try_from(offset).unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(WINDOW).min(WINDOW);
        self.bytes.get(start..start + length).unwrap_or(&[])
    }

    /// Whether `bytes` are what stream `seed` has from `position` on.
    pub(crate) fn matches(&self, seed: u64, position: u64, bytes: &[u8]) -> bool {
        let mut at = position;
        bytes.chunks(WINDOW).all(|chunk| {
            let length = chunk.len() as u64;
            let same = self.slice(seed, at, length) == chunk;
            at += length;
            same
        })
    }
}
