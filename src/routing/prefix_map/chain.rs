//! Chain hashes of a rendering: one pass, each byte hashed once.
//!
//! `h(0) = root`, `h(i) = fold(h(i-1) ^ xxh3(block i, secret))`. The secret and the tenant roots come from the node's
//! key: who does not know it can neither make two prompts collide nor guess another tenant's hashes. Not a
//! cryptographic hash: entries are hints, and a collision costs one cache miss.

use xxhash_rust::xxh3::xxh3_64_with_secret;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::routing::draw::Draw;

/// Bytes between two positions, about 64 tokens. Smaller makes lookups slower, larger misses short shared prompts.
pub const BLOCK_BYTES: usize = 256;

/// The node's hash key.
#[derive(Clone)]
pub struct Key {
    secret: [u8; 192],
    tenants: u64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    /// Derived from a seed.
    #[must_use]
    pub fn new(draw: &mut Draw) -> Self {
        let mut secret = [0; 192];
        for chunk in secret.chunks_exact_mut(8) {
            chunk.copy_from_slice(&draw.next_u64().to_le_bytes());
        }
        Self { secret, tenants: draw.next_u64() }
    }

    /// Where the chains of a tenant's prompts for a model begin.
    #[must_use]
    pub fn root(&self, tenant: &TenantId, model: &ModelId) -> u64 {
        let tenant = xxh3_64_with_seed(tenant.as_str().as_bytes(), self.tenants);
        xxh3_64_with_seed(model.as_str().as_bytes(), tenant)
    }

    /// Replaces `hashes` by one chain hash for every whole block of `rendered`; returns the digest of all of it.
    pub fn chain(&self, root: u64, rendered: &[u8], hashes: &mut Vec<u64>) -> u64 {
        hashes.clear();
        hashes.reserve(rendered.len() / BLOCK_BYTES);
        let mut blocks = rendered.chunks_exact(BLOCK_BYTES);
        let mut hash = root;
        for block in &mut blocks {
            hash = fold(hash ^ xxh3_64_with_secret(block, &self.secret));
            hashes.push(hash);
        }
        match blocks.remainder() {
            [] => hash,
            rest => fold(hash ^ xxh3_64_with_secret(rest, &self.secret)),
        }
    }
}

/// 128-bit product folded to 64: order matters, so exchanged blocks do not cancel out.
fn fold(hash: u64) -> u64 {
    let product = u128::from(hash) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
    (product as u64) ^ ((product >> 64) as u64)
}
