//! Chain hashes of a rendering: one pass, each byte hashed once.
//!
//! `h(0) = root`, `h(i) = fold(h(i-1) ^ xxh3(block i, secret))`. The secret and the tenant roots come from a key that the nodes of
//! a mesh share and nobody else has: who does not know it can neither make two prompts collide nor guess another tenant's
//! hashes. Not a cryptographic hash: entries are hints, and a collision costs one cache miss.

use ring::hkdf;
use serde::Deserialize;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_secret;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::routing::draw::Draw;

/// Bytes between two positions, about 64 tokens. Smaller makes lookups slower, larger misses short shared prompts.
pub const BLOCK_BYTES: usize = 256;

/// What other nodes are told of a chain hash: its upper 48 bits. With 8 million entries alive two of them are the same once in 3 x 10^7
/// lookups; fewer bits would send prompts to caches that hold others, more cost traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boundary([u8; 6]);

impl Boundary {
    /// Of a chain hash.
    #[must_use]
    pub fn of(hash: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = hash.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// As a chain hash whose last 16 bits, which the map does not look at, are lost.
    #[must_use]
    pub fn hash(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// The hash key.
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

/// What [`Key::shared`] takes from a seed: the secret and the tenants' seed.
struct Expanded;

impl hkdf::KeyType for Expanded {
    fn len(&self) -> usize {
        200
    }
}

impl Key {
    /// The same on every node that has the seed (HKDF-SHA256; pinned by a test, because nodes of two releases must agree).
    #[must_use]
    pub fn shared(seed: &[u8; 32]) -> Self {
        let mut bytes = [0; 200];
        let source = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, seed);
        let filled = source.expand(&[b"smg prefix chains v1"], Expanded).and_then(|it| it.fill(&mut bytes));
        debug_assert!(filled.is_ok(), "200 bytes are within what HKDF-SHA256 can give");
        let (secret, tenants) = bytes.split_at(192);
        let mut key = Self { secret: [0; 192], tenants: 0 };
        key.secret.copy_from_slice(secret);
        tenants.iter().for_each(|byte| key.tenants = key.tenants << 8 | u64::from(*byte));
        key
    }

    /// For a node on its own, from random numbers.
    #[must_use]
    pub fn new(draw: &mut Draw) -> Self {
        let mut secret = [0; 192];
        for chunk in secret.chunks_exact_mut(8) {
            chunk.copy_from_slice(&draw.next_u64().to_le_bytes());
        }
        Self { secret, tenants: draw.next_u64() }
    }

    /// Tells two keys apart without telling either: hashes under another key name nothing here.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        xxh3_64_with_secret(b"fingerprint", &self.secret) as u32
    }

    /// Stands for a tenant's routing key at a model.
    #[must_use]
    pub fn routing_key(&self, tenant: &TenantId, model: &ModelId, key: &str) -> u64 {
        fold(self.root(tenant, model) ^ xxh3_64_with_secret(key.as_bytes(), &self.secret))
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
