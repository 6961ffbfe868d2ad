//! The prefix cache of a worker: blocks known by their chain hash, kept until the room is needed.
//!
//! Blocks of running sequences are pinned; the others leave least recently used first, and within one sequence its end
//! before its beginning (vLLM's order), because a tail without its head can never be hit.

use std::collections::BTreeMap;
use std::collections::HashMap;

/// Blocks held, by chain hash. Invariant: a block is in `idle` exactly when nobody pins it.
#[derive(Debug)]
pub struct BlockCache {
    capacity: usize,
    blocks: HashMap<u64, Block>,
    idle: BTreeMap<u64, u64>,
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    pins: usize,
    last_used: u64,
}

impl BlockCache {
    /// Room for `capacity` blocks; 0 switches the cache off.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, blocks: HashMap::new(), idle: BTreeMap::new(), clock: 0 }
    }

    /// How many leading blocks of `chain` are held.
    #[must_use]
    pub fn hits(&self, chain: &[u64]) -> usize {
        chain.iter().take_while(|hash| self.blocks.contains_key(*hash)).count()
    }

    /// Pins every block of `chain`, storing those not held. Idle blocks make room; when everything is pinned the rest
    /// of the chain is not stored. Returns how many leading blocks are pinned, which [`Self::unpin`] must be given back.
    pub fn pin(&mut self, chain: &[u64]) -> usize {
        for (index, hash) in chain.iter().enumerate() {
            if let Some(block) = self.blocks.get_mut(hash) {
                if block.pins == 0 {
                    self.idle.remove(&block.last_used);
                }
                block.pins += 1;
                continue;
            }
            if self.blocks.len() >= self.capacity && !self.evict() {
                return index;
            }
            self.blocks.insert(*hash, Block { pins: 1, last_used: 0 });
        }
        chain.len()
    }

    /// Lets go of what [`Self::pin`] pinned; the blocks stay until their room is needed.
    pub fn unpin(&mut self, chain: &[u64]) {
        for hash in chain.iter().rev() {
            let block = self.blocks.get_mut(hash).expect("a pinned block is held");
            block.pins -= 1;
            if block.pins == 0 {
                self.clock += 1;
                block.last_used = self.clock;
                self.idle.insert(self.clock, *hash);
            }
        }
    }

    /// Blocks held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether no block is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Room for so many blocks.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything that nobody pins.
    pub fn clear(&mut self) {
        while self.evict() {}
    }

    fn evict(&mut self) -> bool {
        let Some((_, hash)) = self.idle.pop_first() else { return false };
        self.blocks.remove(&hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(cache: &mut BlockCache, chain: &[u64]) {
        let pinned = cache.pin(chain);
        cache.unpin(&chain[..pinned]);
    }

    #[test]
    fn the_least_recently_used_chain_leaves_first_and_its_tail_before_its_head() {
        let mut cache = BlockCache::new(4);
        visit(&mut cache, &[1, 2, 3]);
        visit(&mut cache, &[10]);
        visit(&mut cache, &[20]);
        assert_eq!((cache.hits(&[1, 2, 3]), cache.hits(&[10]), cache.hits(&[20])), (2, 1, 1));
        visit(&mut cache, &[1, 2]);
        visit(&mut cache, &[30]);
        assert_eq!((cache.hits(&[1, 2]), cache.hits(&[10])), (2, 0));
    }

    #[test]
    fn pinned_blocks_never_leave() {
        let mut cache = BlockCache::new(2);
        assert_eq!(cache.pin(&[1, 2]), 2);
        assert_eq!(cache.pin(&[3]), 0);
        cache.clear();
        assert_eq!(cache.hits(&[1, 2]), 2);
        cache.unpin(&[1, 2]);
        assert_eq!(cache.pin(&[3]), 1);
    }

    #[test]
    fn a_cache_without_room_holds_nothing() {
        let mut cache = BlockCache::new(0);
        visit(&mut cache, &[1, 2]);
        assert!(cache.is_empty());
    }
}
