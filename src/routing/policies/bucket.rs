//! `bucket`: bands of prompt lengths over the workers in id order, so that short prompts do not wait behind long ones.
//!
//! Boundaries are learned from the last prompts: each band gets the same number of *bytes*. A length that falls on
//! several boundaries (all prompts alike) may go to any of the bands they part. A band whose workers are all out spills
//! to its nearest neighbour that is not.

use super::Ask;
use super::Choice;
use super::Remembering;
use crate::routing::draw::Draw;
use crate::routing::route::Reason;

/// Most bands; larger fleets have several workers in each. More would need a longer window to tell them apart.
const BANDS_MAX: usize = 64;
/// Lengths the boundaries are learned from. Shorter follows noise, longer follows late.
const WINDOW: usize = 512;
/// Requests between two looks at the window: sorting it costs some ten microseconds.
const LEARN_EVERY: usize = 128;
/// Where the bands end before anything was learned: some 4,096 tokens.
const FIRST_GUESS_BYTES: u64 = 16_384;

#[derive(Clone, Default)]
pub(super) struct Bucket {
    window: Vec<u64>,
    seen: usize,
    /// Upper ends of all bands but the last.
    ends: Vec<u64>,
}

impl Bucket {
    fn learn(&mut self, len: u64, bands: usize) {
        match self.window.get_mut(self.seen % WINDOW) {
            Some(place) => *place = len,
            None => self.window.push(len),
        }
        self.seen = self.seen.wrapping_add(1);
        let is_first = self.ends.len() + 1 != bands;
        if !is_first && !self.seen.is_multiple_of(LEARN_EVERY) {
            return;
        }
        if self.window.len() < LEARN_EVERY {
            self.ends = (1..bands as u64).map(|band| FIRST_GUESS_BYTES * band / bands as u64).collect();
            return;
        }
        let mut sorted = self.window.clone();
        sorted.sort_unstable();
        let total: u64 = sorted.iter().sum();
        let mut sum = 0;
        self.ends.clear();
        for length in sorted {
            sum += length;
            while self.ends.len() + 1 < bands && sum * bands as u64 >= total * (self.ends.len() as u64 + 1) {
                self.ends.push(length);
            }
        }
        self.ends.resize(bands - 1, u64::MAX);
    }

    fn band(&self, len: u64, draw: &mut Draw) -> usize {
        let first = self.ends.partition_point(|end| *end < len);
        let last = self.ends.partition_point(|end| *end <= len);
        first + draw.below(last - first + 1)
    }
}

impl Remembering for Bucket {
    fn choose(&mut self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        let workers = ask.candidates.len();
        let bands = workers.min(BANDS_MAX);
        if bands == 0 {
            return None;
        }
        let len = ask.request.body_len as u64;
        self.learn(len, bands);
        let wanted = self.band(len, draw);
        let nearest_first = (0..bands).flat_map(|off| [wanted.checked_sub(off), (off > 0).then_some(wanted + off)]);
        nearest_first.flatten().filter(|band| *band < bands).find_map(|band| {
            let (from, until) = (band * workers / bands, (band + 1) * workers / bands);
            let index = ask.better_of_two_in(from, until, draw)?;
            let reason = if band == wanted { Reason::Band } else { Reason::BandSpill };
            Some(Choice { index, reason })
        })
    }

    fn rehearsal(&self) -> Box<dyn Remembering> {
        Box::new(self.clone())
    }
}
