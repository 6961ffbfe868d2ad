//! The only door to randomness. Seedable, so that a simulated or tested decision can be repeated.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng as _;

/// Draws random numbers. Clones draw from the same stream.
#[derive(Clone, Debug)]
pub struct Entropy(Arc<AtomicU64>);

impl Entropy {
    /// Seeded by the operating system.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn from_os() -> Self {
        Self::seeded(rand::rng().next_u64())
    }

    /// The same seed draws the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// The next 64 random bits (SplitMix64, Steele et al. 2014): one atomic add, no lock.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next 128: as wide as an id.
    #[must_use]
    pub fn next_u128(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number in `[0, 1)`.
    #[must_use]
    pub fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A fresh secret of 256 bits straight from the operating system's generator: never from the seedable stream.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn secret() -> [u8; 32] {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    }
}

/// For libraries that draw through `rand`'s own interface.
impl rand::TryRng for Entropy {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((Self::next_u64(self) >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(Self::next_u64(self))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&Self::next_u64(self).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_numbers_and_stays_below_its_bound() {
        let (a, b) = (Entropy::seeded(7), Entropy::seeded(7));
        for bound in 1..1000 {
            let drawn = a.below(bound);
            assert_eq!(drawn, b.below(bound));
            assert!(drawn < bound);
        }
        assert_eq!(a.below(0), 0);
    }
}
