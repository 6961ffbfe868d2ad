//! Continuous batching in virtual time: who waits, who is prefilled, who decodes, and when each token is there.
//!
//! The model is that of the routing simulator: one prefill at a time, first come first served, taking
//! `base + new/rate x (1 + context/65536) x (1 + decoding/100)`; each token then takes `base + step x decoding`. The
//! first token is there when its prefill ends. Cache hits are decided when a prefill starts; the prompt's blocks are
//! stored when it ends, the answer's when the sequence ends. No preemption: a prompt waits until its blocks fit.
//!
//! Invariant: every submitted sequence leaves exactly once, by `Finished` or by [`Core::abort`], and then pins nothing.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use super::cache::BlockCache;
use super::tokens::Token;
use super::tokens::chain;

/// Virtual time: microseconds since the engine started.
pub type Micros = u64;

/// How fast and how large the imitated engine is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Prompt tokens computed per second; 0: at once.
    pub prefill_tokens_per_s: u64,
    /// Added to every prefill.
    pub prefill_base: Micros,
    /// Time of a token when nobody else decodes.
    pub token_base: Micros,
    /// Added to that for every decoding sequence.
    pub token_step: Micros,
    /// Sequences that run at one time; the rest waits.
    pub sequences_max: usize,
    /// Tokens in a cache block.
    pub block_tokens: usize,
    /// Blocks in the cache; 0 switches it off.
    pub blocks: usize,
}

/// Names a sequence within its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(u64);

/// What a caller hands in: the tokens of the prompt and of the answer that will be "generated".
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// The prompt.
    pub prompt: Vec<Token>,
    /// The answer, at least one token.
    pub output: Vec<Token>,
}

/// What became of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The prefill began; so many prompt tokens need not be computed.
    Started {
        /// Which.
        id: SequenceId,
        /// Prompt tokens found in the cache.
        cached: usize,
    },
    /// One more token is there.
    Token {
        /// Which.
        id: SequenceId,
        /// Tokens there by now.
        emitted: usize,
    },
    /// The last token is there and the slot is free.
    Finished {
        /// Which.
        id: SequenceId,
    },
}

/// Counts since the start and gauges of now, as `/metrics` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Being prefilled or decoding.
    pub running: usize,
    /// Not yet admitted.
    pub waiting: usize,
    /// Prompt tokens looked up in the cache.
    pub cache_queries: u64,
    /// Prompt tokens found there.
    pub cache_hits: u64,
    /// Blocks of running sequences.
    pub blocks_used: usize,
    /// Blocks there are.
    pub blocks: usize,
    /// Tokens in a block.
    pub block_tokens: usize,
}

#[derive(Debug)]
struct Sequence {
    tokens: Vec<Token>,
    prompt_len: usize,
    output_len: usize,
    emitted: usize,
    pinned: Vec<u64>,
    due: Micros,
}

/// The engine. Time is what it was last told.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    cache: BlockCache,
    waiting: VecDeque<(SequenceId, Sequence)>,
    prefilling: Option<(SequenceId, Sequence)>,
    decoding: BTreeMap<SequenceId, Sequence>,
    now: Micros,
    next_id: u64,
    cache_queries: u64,
    cache_hits: u64,
}

impl Core {
    /// Idle, empty cache, time zero.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            cache: BlockCache::new(settings.blocks),
            waiting: VecDeque::new(),
            prefilling: None,
            decoding: BTreeMap::new(),
            now: 0,
            next_id: 0,
            cache_queries: 0,
            cache_hits: 0,
        }
    }

    /// Takes a sequence in at `now`.
    pub fn submit(&mut self, now: Micros, work: Work, effects: &mut Vec<Effect>) -> SequenceId {
        self.step(now, effects);
        self.next_id += 1;
        let id = SequenceId(self.next_id);
        let (prompt_len, output_len) = (work.prompt.len(), work.output.len().max(1));
        let mut tokens = work.prompt;
        tokens.extend(work.output);
        let sequence = Sequence { tokens, prompt_len, output_len, emitted: 0, pinned: Vec::new(), due: 0 };
        self.waiting.push_back((id, sequence));
        self.admit(effects);
        id
    }

    /// Forgets a sequence wherever it is; its slot is free at once. Unknown or finished ones are ignored.
    pub fn abort(&mut self, now: Micros, id: SequenceId, effects: &mut Vec<Effect>) {
        self.step(now, effects);
        self.waiting.retain(|(it, _)| *it != id);
        let prefilled = self.prefilling.take_if(|(it, _)| *it == id).map(|(_, sequence)| sequence);
        if let Some(sequence) = prefilled.or_else(|| self.decoding.remove(&id)) {
            self.cache.unpin(&sequence.pinned);
        }
        self.admit(effects);
    }

    /// Lets everything happen that is due by `now`, in order of time.
    pub fn step(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        while let Some(due) = self.due().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            match self.prefilling.take_if(|(_, sequence)| sequence.due == due) {
                Some((id, sequence)) => self.end_prefill(id, sequence, effects),
                None => self.decode_one(due, effects),
            }
            self.admit(effects);
        }
        self.now = self.now.max(now);
    }

    /// When [`Self::step`] has something to do next.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        let decoding = self.decoding.values().map(|it| it.due).min();
        let prefilling = self.prefilling.as_ref().map(|(_, it)| it.due);
        decoding.into_iter().chain(prefilling).min()
    }

    /// A whole sequence in no time, for engines without delays: looks up, stores, returns the cached prompt tokens.
    pub fn run_at_once(&mut self, work: Work) -> usize {
        if self.settings.blocks == 0 {
            return 0;
        }
        let prompt_len = work.prompt.len();
        let mut tokens = work.prompt;
        tokens.extend(work.output);
        // The chain of the whole begins with the prompt's: one pass over the tokens serves both.
        let blocks = chain(&tokens[..tokens.len().saturating_sub(1)], self.settings.block_tokens);
        let cached = self.find(&blocks, prompt_len);
        let pinned = self.cache.pin(&blocks);
        self.cache.unpin(&blocks[..pinned]);
        cached
    }

    /// Counts and gauges.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let running = || self.decoding.values().chain(self.prefilling.iter().map(|(_, it)| it));
        Gauges {
            running: running().count(),
            waiting: self.waiting.len(),
            cache_queries: self.cache_queries,
            cache_hits: self.cache_hits,
            blocks_used: running().map(|it| self.blocks_of(it)).sum::<usize>().min(self.cache.capacity()),
            blocks: self.cache.capacity(),
            block_tokens: self.settings.block_tokens,
        }
    }

    /// Forgets every cached block that no running sequence uses.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    fn admit(&mut self, effects: &mut Vec<Effect>) {
        if self.prefilling.is_some() || self.decoding.len() >= self.settings.sequences_max.max(1) {
            return;
        }
        let Some((_, first)) = self.waiting.front() else { return };
        let used: usize = self.decoding.values().map(|it| self.blocks_of(it)).sum();
        let has_room = used + self.blocks_of(first) <= self.settings.blocks;
        // A prompt larger than the whole cache would wait for ever; it runs once it is alone.
        if self.settings.blocks > 0 && !has_room && !self.decoding.is_empty() {
            return;
        }
        let (id, mut sequence) = self.waiting.pop_front().expect("looked at above");
        let (blocks, cached) = self.look_up(&sequence.tokens[..sequence.prompt_len]);
        let hits = cached / self.settings.block_tokens.max(1);
        let pinned = self.cache.pin(&blocks[..hits]);
        sequence.pinned = blocks[..pinned].to_vec();
        sequence.due = self.now + self.prefill_time(sequence.prompt_len, cached);
        effects.push(Effect::Started { id, cached });
        self.prefilling = Some((id, sequence));
    }

    fn end_prefill(&mut self, id: SequenceId, mut sequence: Sequence, effects: &mut Vec<Effect>) {
        let blocks = chain(&sequence.tokens[..sequence.prompt_len], self.settings.block_tokens);
        let pinned = self.cache.pin(&blocks);
        self.cache.unpin(&sequence.pinned);
        sequence.pinned = blocks[..pinned].to_vec();
        self.decoding.insert(id, sequence);
        self.emit(id, effects);
    }

    fn decode_one(&mut self, due: Micros, effects: &mut Vec<Effect>) {
        let id = self.decoding.iter().find(|(_, it)| it.due == due).map(|(id, _)| *id);
        self.emit(id.expect("`due` is of a decoding sequence"), effects);
    }

    fn emit(&mut self, id: SequenceId, effects: &mut Vec<Effect>) {
        let token_time = self.settings.token_base + self.settings.token_step * self.decoding.len() as u64;
        let sequence = self.decoding.get_mut(&id).expect("only decoding sequences emit");
        sequence.emitted += 1;
        sequence.due = self.now + token_time;
        let (emitted, output_len) = (sequence.emitted, sequence.output_len);
        effects.push(Effect::Token { id, emitted });
        if emitted >= output_len {
            let sequence = self.decoding.remove(&id).expect("it just emitted");
            self.cache.unpin(&sequence.pinned);
            self.store(&sequence.tokens);
            effects.push(Effect::Finished { id });
        }
    }

    /// The prompt's blocks, and how many of its tokens need not be computed: full blocks only, and never the last
    /// token, because its logits are needed to begin (vLLM's rule).
    fn look_up(&mut self, prompt: &[Token]) -> (Vec<u64>, usize) {
        if self.settings.blocks == 0 {
            return (Vec::new(), 0);
        }
        let blocks = chain(prompt, self.settings.block_tokens);
        let cached = self.find(&blocks, prompt.len());
        (blocks, cached)
    }

    fn find(&mut self, blocks: &[u64], prompt_len: usize) -> usize {
        let block_tokens = self.settings.block_tokens.max(1);
        let usable = prompt_len.saturating_sub(1) / block_tokens;
        let cached = self.cache.hits(&blocks[..usable.min(blocks.len())]) * block_tokens;
        self.cache_queries += prompt_len as u64;
        self.cache_hits += cached as u64;
        cached
    }

    /// Stores what a finished sequence computed: everything but its last token, whose keys were never needed.
    fn store(&mut self, tokens: &[Token]) {
        if self.settings.blocks == 0 {
            return;
        }
        let blocks = chain(&tokens[..tokens.len().saturating_sub(1)], self.settings.block_tokens);
        let pinned = self.cache.pin(&blocks);
        self.cache.unpin(&blocks[..pinned]);
    }

    fn blocks_of(&self, sequence: &Sequence) -> usize {
        (sequence.prompt_len + sequence.emitted).div_ceil(self.settings.block_tokens.max(1))
    }

    fn prefill_time(&self, prompt_len: usize, cached: usize) -> Micros {
        if self.settings.prefill_tokens_per_s == 0 {
            return self.settings.prefill_base;
        }
        let alone = (prompt_len - cached) as f64 * 1e6 / self.settings.prefill_tokens_per_s as f64;
        let context = 1.0 + prompt_len as f64 / 65_536.0;
        let crowd = 1.0 + self.decoding.len() as f64 / 100.0;
        self.settings.prefill_base + (alone * context * crowd) as Micros
    }
}

#[cfg(test)]
mod tests;
