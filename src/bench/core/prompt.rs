//! Prompts that repeat exactly where they are meant to, made at memory speed.
//!
//! A prompt is a list of runs of blocks. A block's text depends on its key alone: equal keys, equal bytes; different keys
//! differ from the first byte on. All formats of traces and all shapes of synthetic prompts are written in these terms.

use std::fmt::Write as _;

/// Consecutive blocks: keys `(space, first..first + count)`, each of `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Keeps the keys of different origins apart.
    pub space: u64,
    /// Key of the first block.
    pub first: u64,
    /// How many blocks.
    pub count: u32,
    /// Length of each.
    pub bytes: u32,
}

/// Where texts are cut from. Its length is a power of two.
const POOL_BYTES: usize = 1 << 20;
/// Bytes at the start of a block that name its key.
const NAME_BYTES: usize = 17;

/// Text of which every prompt is made.
pub struct Pool(Vec<u8>);

impl Pool {
    /// Random words: letters and spaces, so that no byte needs escaping in JSON.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut text = Vec::with_capacity(POOL_BYTES);
        while text.len() < POOL_BYTES {
            let drawn = mix(&mut state);
            text.extend((0..8).map(|n| match (drawn >> (8 * n)) as u8 % 32 {
                letter @ 0..26 => b'a' + letter,
                _ => b' ',
            }));
        }
        Self(text)
    }

    /// Appends the text of `run`.
    pub fn write(&self, run: Run, to: &mut Vec<u8>) {
        for n in 0..u64::from(run.count) {
            self.block(run.space, run.first.wrapping_add(n), run.bytes as usize, to);
        }
    }

    fn block(&self, space: u64, key: u64, bytes: usize, to: &mut Vec<u8>) {
        let mut state = space.rotate_left(32) ^ key;
        let name = mix(&mut state);
        let end = to.len() + bytes;
        let mut digits = Name::default();
        let _ = write!(digits, "{name:016x} "); // it has the room
        to.extend_from_slice(&digits.0[..NAME_BYTES.min(bytes)]);
        let mut from = mix(&mut state) as usize % POOL_BYTES;
        while to.len() < end {
            let take = (end - to.len()).min(POOL_BYTES - from);
            to.extend_from_slice(&self.0[from..from + take]);
            from = 0;
        }
    }
}

/// Sixteen digits and a space, without an allocation.
#[derive(Default)]
struct Name([u8; NAME_BYTES], usize);

impl std::fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.0.get_mut(self.1..self.1 + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.1 += text.len();
        Ok(())
    }
}

/// Bytes of all blocks.
#[must_use]
pub fn length(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.count as usize * run.bytes as usize).sum()
}

/// The next of a stream of well-mixed numbers (SplitMix64): cores take a seed, not a door to entropy.
pub fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in `[0, 1)`.
pub fn unit(state: &mut u64) -> f64 {
    (mix(state) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(runs: &[Run]) -> Vec<u8> {
        let pool = Pool::new(7);
        let mut to = Vec::new();
        for run in runs {
            pool.write(*run, &mut to);
        }
        to
    }

    #[test]
    fn equal_keys_are_equal_text_and_different_keys_differ_at_once() {
        let run = |space, first, count| Run { space, first, count, bytes: 200 };
        let three = text(&[run(1, 4, 3)]);
        assert_eq!(three, text(&[run(1, 4, 1), run(1, 5, 2)]));
        assert_eq!((three.len(), length(&[run(1, 4, 3)])), (600, 600));
        let starts = [text(&[run(1, 4, 1)]), text(&[run(1, 5, 1)]), text(&[run(2, 4, 1)])];
        for (n, one) in starts.iter().enumerate() {
            assert!(starts[n + 1..].iter().all(|other| one[..16] != other[..16] && one[17..] != other[17..]));
        }
    }

    #[test]
    fn text_needs_no_escaping_and_any_length_is_exact() {
        for bytes in [0, 1, 16, 17, 18, 1000, (3 << 20) + 5] {
            let text = text(&[Run { space: 0, first: 9, count: 1, bytes }]);
            assert_eq!(text.len(), bytes as usize);
            assert!(text.iter().all(|it| it.is_ascii_alphanumeric() || *it == b' '));
        }
    }
}
