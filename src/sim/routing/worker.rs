//! A model server as ROUTING.md 4 has it: one prompt read at a time, first come first served; a cache of blocks that forgets what was unused for longest;
//! decoding slows reading down.
//!
//! What of a prompt is cached is decided when its reading begins; its blocks are there when it ends. *Absent on purpose:* chunked prefill, pinned blocks,
//! transfer of blocks between workers.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

/// How fast a worker is and how much it keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Tokens read in a second.
    pub(super) prefill: f64,
    /// Tokens in the cache.
    pub(super) cache: u64,
    /// Tokens in a block.
    pub(super) block: u64,
}

/// See the file's header.
pub(super) struct Worker {
    pace: Pace,
    pub(super) queue: VecDeque<usize>,
    pub(super) reading: Option<usize>,
    pub(super) decoding: u32,
    pub(super) busy: Duration,
    cache: Cache,
    /// Blocks of prompts that wait or are being read, and of how many: they will be there.
    promised: HashMap<u64, u32>,
}

impl Worker {
    pub(super) fn new(pace: Pace) -> Self {
        let cache = Cache { most: (pace.cache / pace.block) as usize, ..Cache::default() };
        Self {
            pace,
            queue: VecDeque::new(),
            reading: None,
            decoding: 0,
            busy: Duration::ZERO,
            cache,
            promised: HashMap::new(),
        }
    }

    /// Tokens of a prompt with these blocks that it has now.
    pub(super) fn has(&self, blocks: impl Iterator<Item = u64>, tokens: u64) -> u64 {
        let held = blocks.take_while(|it| self.cache.stamps.contains_key(it)).count() as u64;
        (held * self.pace.block).min(tokens.saturating_sub(1))
    }

    /// The same, with what it will have when it has read all that was sent to it.
    pub(super) fn will_have(&self, blocks: &[u64], tokens: u64) -> u64 {
        let has = |it: &&u64| self.cache.stamps.contains_key(*it) || self.promised.contains_key(*it);
        (blocks.iter().take_while(has).count() as u64 * self.pace.block).min(tokens.saturating_sub(1))
    }

    /// A prompt with these blocks is sent to it.
    pub(super) fn promise(&mut self, blocks: &[u64]) {
        blocks.iter().for_each(|it| *self.promised.entry(*it).or_default() += 1);
    }

    /// How long it reads a prompt of which it has `cached` tokens.
    pub(super) fn read(&mut self, cached: u64, tokens: u64, blocks: &[u64]) -> Duration {
        let held = blocks.iter().take((cached.div_ceil(self.pace.block)) as usize).rev();
        held.for_each(|it| self.cache.touch(*it));
        let new = (tokens - cached) as f64;
        let context = (cached as f64 + new / 2.0) / 65_536.0; // what a token looks back on, in the mean
        let seconds = 0.010 + new / self.pace.prefill * (1.0 + context) * (1.0 + 0.01 * f64::from(self.decoding));
        let time = Duration::from_secs_f64(seconds);
        self.busy += time;
        time
    }

    /// It has read a prompt with these blocks; how long its answer takes.
    pub(super) fn done(&mut self, blocks: &[u64], answer: u64) -> Duration {
        // The beginning last, so that it is the last to go.
        blocks.iter().rev().for_each(|it| self.cache.touch(*it));
        for it in blocks {
            if let Some(count) = self.promised.get_mut(it) {
                *count -= 1;
                if *count == 0 {
                    self.promised.remove(it);
                }
            }
        }
        self.reading = None;
        self.decoding += 1;
        Duration::from_secs_f64(answer as f64 * (0.015 + 0.0004 * f64::from(self.decoding)))
    }
}

/// Blocks by when they were last used.
#[derive(Default)]
struct Cache {
    most: usize,
    stamps: HashMap<u64, u64>,
    uses: VecDeque<(u64, u64)>,
    clock: u64,
}

impl Cache {
    fn touch(&mut self, block: u64) {
        self.clock += 1;
        self.stamps.insert(block, self.clock);
        self.uses.push_back((block, self.clock));
        while self.stamps.len() > self.most || self.uses.len() > 4 * self.most.max(1024) {
            let Some((oldest, stamp)) = self.uses.pop_front() else { return };
            if self.stamps.get(&oldest) == Some(&stamp) {
                if self.stamps.len() > self.most {
                    self.stamps.remove(&oldest);
                } else {
                    self.uses.push_front((oldest, stamp));
                    let stamps = &self.stamps;
                    self.uses.retain(|(block, stamp)| stamps.get(block) == Some(stamp));
                }
            }
        }
    }
}
