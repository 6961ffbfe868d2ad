//! What a thread needs while it decides: the rendering of one prompt and its chain hashes, kept as memory, not as data.

use std::cell::RefCell;

use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::dialects::form::Mark;
use crate::dialects::form::Prompt;
use crate::routing::prefix_map::chain::BLOCK_BYTES;
use crate::routing::prefix_map::chain::Key;

/// Longest part of a prompt that is looked at: some 256,000 tokens. Beyond it prompts that begin alike count as alike;
/// a larger bound would let one request hold its thread for longer than a millisecond.
pub const RENDER_BYTES_MAX: usize = 1 << 20;
/// Memory a thread keeps between decisions. Less means an allocation per long prompt.
const KEEP_BYTES: usize = 256 << 10;
/// Bytes 0xFF looked at for the last message's beginning; token ids contain them too.
const MARKS_MAX: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One thread's working memory.
#[derive(Default)]
pub struct Scratch {
    rendered: Vec<u8>,
    /// One chain hash a block, shallowest first.
    pub hashes: Vec<u64>,
}

/// What was read from a prompt; its hashes are in [`Scratch::hashes`].
pub struct Reading {
    /// Bytes of the rendering, at most [`RENDER_BYTES_MAX`].
    pub bytes: usize,
    /// A number that equal prompts share.
    pub digest: u64,
    /// The block in which the last message begins; 0 where that is not known.
    pub marked: usize,
}

/// Runs `work` with this thread's memory, and gives back what it grew beyond measure.
pub fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.hashes.clear();
        let done = work(scratch);
        // Nothing of a prompt outlives its decision.
        scratch.rendered.clear();
        scratch.rendered.shrink_to(KEEP_BYTES);
        done
    })
}

impl Scratch {
    /// Renders and hashes a prompt.
    pub fn read(&mut self, key: &Key, tenant: &TenantId, model: &ModelId, prompt: &Prompt<'_>) -> Reading {
        self.rendered.clear();
        prompt.render(&mut self.rendered, RENDER_BYTES_MAX);
        let digest = key.chain(key.root(tenant, model), &self.rendered, &mut self.hashes);
        let marked = last_message(&self.rendered).map_or(0, |at| at / BLOCK_BYTES);
        Reading { bytes: self.rendered.len(), digest, marked }
    }
}

fn last_message(rendered: &[u8]) -> Option<usize> {
    let marks = memchr::memrchr_iter(0xFF, rendered).take(MARKS_MAX);
    marks.into_iter().find(|at| rendered.get(at + 1) == Some(&(Mark::Message as u8)))
}
