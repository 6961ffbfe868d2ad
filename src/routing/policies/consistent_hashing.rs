//! `consistent_hashing`: a key always meets the same worker while that one is up and not over its share.
//!
//! The key is the routing key, else tenant and beginning of the prompt; never a credential, which would send everything
//! behind one API key to one worker. Requests with neither are drawn.

use super::Ask;
use super::Choice;
use super::Remembering;
use super::ring::Ring;
use crate::routing::config::Config;
use crate::routing::draw::Draw;

/// Bytes of the prompt that stand for a routing key where none is given: some 256 tokens.
const HEAD_BYTES: usize = 1024;

#[derive(Clone)]
pub(super) struct ConsistentHashing {
    ring: Ring,
}

impl ConsistentHashing {
    pub(super) fn new(config: &Config) -> Self {
        Self { ring: Ring::new(config.prefix_hash_load_factor) }
    }
}

impl Remembering for ConsistentHashing {
    fn choose(&mut self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        let key = ask.routing_key().or_else(|| ask.head_key(HEAD_BYTES)).unwrap_or_else(|| draw.next_u64());
        self.ring.choose(key, ask, draw)
    }

    fn rehearsal(&self) -> Box<dyn Remembering> {
        Box::new(self.clone())
    }
}
