//! `prefix_hash`: prompts that begin alike meet the same worker, with bounded load. Requests without a prompt are drawn.

use super::Ask;
use super::Choice;
use super::Remembering;
use super::ring::Ring;
use crate::routing::config::Config;
use crate::routing::draw::Draw;

/// Bytes taken for a token. Fixed, not learned: the key must not change while the ratio is being learned.
const BYTES_PER_TOKEN: usize = 4;
/// Longest beginning, whatever is configured: it is read again for every decision.
const HEAD_BYTES_MAX: usize = 1 << 16;

#[derive(Clone)]
pub(super) struct PrefixHash {
    head_bytes: usize,
    ring: Ring,
}

impl PrefixHash {
    pub(super) fn new(config: &Config) -> Self {
        let head_bytes = config.prefix_token_count.saturating_mul(BYTES_PER_TOKEN).min(HEAD_BYTES_MAX);
        Self { head_bytes, ring: Ring::new(config.prefix_hash_load_factor) }
    }
}

impl Remembering for PrefixHash {
    fn choose(&mut self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        let key = ask.head_key(self.head_bytes).unwrap_or_else(|| draw.next_u64());
        self.ring.choose(key, ask, draw)
    }

    fn rehearsal(&self) -> Box<dyn Remembering> {
        Box::new(self.clone())
    }
}
