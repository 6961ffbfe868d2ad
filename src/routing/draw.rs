//! Random numbers of one decision: a pure stream from one seed, so that a policy needs no door to entropy and a
//! decision can be repeated.

/// Draws from a stream that its seed decides (SplitMix64, as `base::entropy`).
#[derive(Clone, Copy, Debug)]
pub struct Draw(u64);

impl Draw {
    /// The same seed draws the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }
}

/// Spreads the bits of one number over all 64. A bijection: different inputs stay different.
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
