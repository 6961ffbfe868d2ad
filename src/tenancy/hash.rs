//! What is kept of an API key: its SHA-256, from which no key of ours can be guessed.
//!
//! Keys that this gateway makes have 256 random bits, and given ones a least length, so a slow hash would buy nothing and cost every request. *Invariant:*
//! two hashes are compared in constant time; what a table of keys is searched by are 64 bits of the hash, which nobody can steer towards another key's.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::Context;
use ring::digest::SHA256;
use subtle::ConstantTimeEq as _;

use crate::base::entropy::Entropy;
use crate::base::secret::Secret;

/// Begins every key that is made here, so that people and scanners of leaked secrets know one.
const PREFIX: &str = "sk-smg-";
/// Goes before the key, so that the hash is of no use for anything else that hashes the same text.
const DOMAIN: &[u8] = b"smg api key 1\0";

/// See the file's header.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of a key as a client presents it.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(DOMAIN);
        context.update(key);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    /// As it was kept. `None`: not a hash.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As it is kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether both are of one key, in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Where an index keeps it.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.0.iter().take(8).fold(0, |slot, byte| slot << 8 | u64::from(*byte))
    }
}

/// A new key.
#[must_use]
pub fn generate() -> Secret {
    Secret::new(&format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(Entropy::secret())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_on_every_node_and_release() {
        let hash = KeyHash::of(b"sk-one");
        assert!(hash.is(&KeyHash::read(hash.bytes()).expect("32 bytes")) && !hash.is(&KeyHash::of(b"sk-two")));
        assert_eq!(hash.slot(), 0xf912_927c_005a_f92a, "bytes on disk and wire do not change");
        assert!(KeyHash::read(b"short").is_none());
    }

    #[test]
    fn keys_that_are_made_are_long_and_never_alike() {
        let (one, two) = (generate(), generate());
        assert!(one.expose().starts_with("sk-smg-") && one.expose().len() == 7 + 43);
        assert_ne!(one.expose(), two.expose());
    }
}
