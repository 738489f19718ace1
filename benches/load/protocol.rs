//! What client and backend say to each other: a 32-byte header, `request` bytes of pattern up,
//! `answer` bytes of another pattern down, as often as the client likes. Pure.

/// Length of a header on the wire.
pub(crate) const HEADER: usize = 32;
/// A length that means "until I close my side".
pub(crate) const ENDLESS: u64 = u64::MAX;
const MAGIC: [u8; 8] = *b"lbdbench";

/// Announces one exchange; also the receipt for an endless request.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    /// Selects the pattern of the request; the answer's is derived from it.
    pub(crate) seed: u64,
    /// Bytes that follow the header.
    pub(crate) request: u64,
    /// Bytes the backend shall answer.
    pub(crate) answer: u64,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut wire = [0; HEADER];
        let fields = [
            MAGIC,
            self.seed.to_be_bytes(),
            self.request.to_be_bytes(),
            self.answer.to_be_bytes(),
        ];
        for (place, field) in wire.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field);
        }
        wire
    }

    /// `None`: not a header.
    pub(crate) fn decode(wire: &[u8; HEADER]) -> Option<Self> {
        let mut fields = wire.chunks_exact(8).map(|f| <[u8; 8]>::try_from(f).ok());
        let magic = fields.next()??;
        let [seed, request, answer] = std::array::from_fn(|_| fields.next().flatten());
        (magic == MAGIC).then_some(Self {
            seed: u64::from_be_bytes(seed?),
            request: u64::from_be_bytes(request?),
            answer: u64::from_be_bytes(answer?),
        })
    }

    /// The seed of the answer's pattern.
    pub(crate) fn answer_seed(self) -> u64 {
        self.seed ^ 0x5555
    }
}
