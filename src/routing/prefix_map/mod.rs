//! Which worker holds which prompt prefix, as far as nodes placed it: hints with an age, not facts.
//!
//! A prompt's canonical rendering is cut at fixed byte positions, every [`chain::BLOCK_BYTES`]; the chain hash at a
//! position names everything before it. A placement stores few of these positions ([`boundaries`]); a lookup tests all
//! of them, deepest first, so it finds the end of an earlier turn wherever that was, and needs no entry to exist because
//! another one does (an eviction never hides what lies deeper).
//!
//! *Invariants:* memory is bounded by construction ([`table`]); no byte of a prompt is kept; hashes start from the
//! tenant's key, so tenants never share an entry; a worker that is forgotten takes all its entries with it at once
//! ([`slots`]). What other nodes placed comes through [`prefix_log`](super::prefix_log) into the same table, and counts like an own
//! placement of that age. Absent on purpose: engine events, which will come the same way.

pub mod chain;
pub mod slots;
pub mod table;

use smallvec::SmallVec;

use self::chain::BLOCK_BYTES;
use self::slots::Slots;
use self::table::Table;
use crate::base::ids::WorkerId;

/// Holders reported by one lookup. Fewer hide alternatives to a busy holder; more cost a probe of every shallow
/// boundary although what they add is small.
pub const HOLDERS_MAX: usize = 16;

/// Blocks between two positions that other nodes are told. Half as many double the traffic and find nothing more; four times as many lose a
/// tenth of the hits (ROUTING.md 2).
const TOLD_BLOCKS: usize = 32;

/// A worker that is believed to hold the first `bytes` of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub worker: WorkerId,
    /// How much of the rendering.
    pub bytes: u32,
    /// How long ago it was placed there, in ticks.
    pub age: u16,
}

/// The result of a lookup: deepest first, one entry a worker.
pub type Holders = SmallVec<[Holder; HOLDERS_MAX]>;

/// Who holds the longest prefixes of the prompt with these chain hashes (one a block, shallowest first).
#[must_use]
pub fn holders(table: &Table, slots: &Slots, tick: u16, hashes: &[u64]) -> Holders {
    let mut found = Holders::new();
    let mut seen: SmallVec<[u16; HOLDERS_MAX * 2]> = SmallVec::new();
    for (index, hash) in hashes.iter().enumerate().rev() {
        let Some(entry) = table.find(*hash) else { continue };
        for (slot, stamp) in entry.holders() {
            if seen.contains(&slot) {
                continue;
            }
            let age = tick.wrapping_sub(stamp);
            let Some(worker) = slots.worker(slot, age) else { continue };
            seen.push(slot);
            found.push(Holder { worker, bytes: ((index + 1) * BLOCK_BYTES) as u32, age });
            if found.len() == HOLDERS_MAX {
                return found;
            }
        }
    }
    found
}

/// The block counts at which a placement of `blocks` blocks is stored: dense at the beginning, then every quarter of
/// the depth's power of two up to every 8 KiB (about 2,048 tokens), so that a shared beginning is found to within a
/// quarter; besides `marked` (where the last message begins: tools and system prompt end there) and the end, so that the
/// next turn and the next question find all of it. An 8 KiB prompt stores 16, one of 32 KiB 24, one of 1 MiB about 150.
pub fn boundaries(blocks: usize, marked: usize) -> impl Iterator<Item = usize> {
    let step = |at: usize| match at {
        0..8 => 1,
        8..128 => 1 << (at.ilog2() - 2),
        _ => 32,
    };
    let regular = std::iter::successors(Some(1), move |at| Some(at + step(*at)));
    let extra = (marked != 0 && marked < blocks).then_some(marked);
    regular.take_while(move |at| *at < blocks).chain(extra).chain((blocks != 0).then_some(blocks))
}

/// The block counts at which a placement is told to other nodes: every 8 KiB (about 2,048 tokens), where the last message begins,
/// and the end. Multiples, because those of two prompts that begin alike are the same (powers of two lose most of the depth of
/// long sessions, ROUTING.md 2); the other two, because short prompts have no multiple and lookups test every block.
pub fn told(blocks: usize, marked: usize) -> impl Iterator<Item = usize> {
    let is_extra = |at: &usize| *at != 0 && !at.is_multiple_of(TOLD_BLOCKS);
    let extra = [blocks, marked].into_iter().filter(move |at| is_extra(at) && *at <= blocks);
    (1..=blocks / TOLD_BLOCKS).map(|step| step * TOLD_BLOCKS).chain(extra)
}

#[cfg(test)]
mod tests;
