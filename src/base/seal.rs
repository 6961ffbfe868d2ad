//! Seals secrets, and content, before they leave this process's memory: ChaCha20-Poly1305, bound to what they are for.
//!
//! What is sealed may lie on disk and travel to other nodes; it opens only with the key and only for what it was bound to, so a row that
//! somebody points elsewhere loses its key. Where keys come from is others' business: a file, or the mesh secret.

use std::future::Future;
use std::pin::Pin;

use ring::aead::Aad;
use ring::aead::CHACHA20_POLY1305;
use ring::aead::LessSafeKey;
use ring::aead::NONCE_LEN;
use ring::aead::Nonce;
use ring::aead::UnboundKey;

use super::entropy::Entropy;
use super::secret::Secret;

/// First byte of what is sealed: the version of this file. No text begins with it.
pub const SEALED: u8 = 1;

/// A sealed secret on its way.
pub type Sealing<'a> = Pin<Box<dyn Future<Output = Vec<u8>> + Send + 'a>>;

/// What was opened.
pub struct Opened {
    /// The secret.
    pub secret: Secret,
    /// Whether the key that sealed it is the one that seals now; if not, seal it again.
    pub is_current: bool,
}

/// Seals and opens.
pub trait Seals: Send + Sync {
    /// Seals a secret so that it opens only for `bound_to`.
    fn seal<'a>(&'a self, secret: &'a Secret, bound_to: &'a str) -> Sealing<'a>;

    /// Opens it; `None`: another key sealed it, or for something else.
    fn open(&self, sealed: &[u8], bound_to: &str) -> Option<Opened>;
}

/// Keys: the first seals, all open.
pub struct Sealer(Vec<LessSafeKey>);

impl Sealer {
    /// With these keys; at least one.
    #[must_use]
    pub fn new(keys: &[[u8; 32]]) -> Self {
        let key = |key| UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of this cipher has 32 bytes");
        Self(keys.iter().map(|it| LessSafeKey::new(key(it))).collect())
    }

    /// With a key that nobody else will ever have.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::new(&[Entropy::secret()])
    }

    /// Seals bytes: version, nonce, ciphertext and tag. Nonces are random: 2^32 sealings under one key are far away.
    #[must_use]
    pub fn seal_bytes(&self, plain: &[u8], bound_to: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&Entropy::secret()[..NONCE_LEN]);
        let mut sealed = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.0[0]
            .seal_in_place_append_tag(nonce_used, Aad::from(bound_to), &mut sealed)
            .expect("what is held in memory is shorter than 256 GiB");
        [&[SEALED][..], &nonce, &sealed].concat()
    }

    /// Opens them, and says which key did. `None`: another key sealed it, or for something else, or it is not sealed.
    #[must_use]
    pub fn open_bytes(&self, sealed: &[u8], bound_to: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (&[SEALED], rest) = sealed.split_first_chunk::<1>()? else { return None };
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().enumerate().find_map(|(at, key)| {
            let mut plain = rest.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let len = key.open_in_place(nonce, Aad::from(bound_to), &mut plain).ok()?.len();
            plain.truncate(len);
            Some((plain, at))
        })
    }

    /// Seals a secret at once.
    #[must_use]
    pub fn seal_now(&self, secret: &Secret, bound_to: &str) -> Vec<u8> {
        self.seal_bytes(secret.expose().as_bytes(), bound_to.as_bytes())
    }
}

impl Seals for Sealer {
    fn seal<'a>(&'a self, secret: &'a Secret, bound_to: &'a str) -> Sealing<'a> {
        Box::pin(async move { self.seal_now(secret, bound_to) })
    }

    fn open(&self, sealed: &[u8], bound_to: &str) -> Option<Opened> {
        let (plain, at) = self.open_bytes(sealed, bound_to.as_bytes())?;
        let secret = std::str::from_utf8(&plain).ok().map(Secret::new)?;
        Some(Opened { secret, is_current: at == 0 })
    }
}

/// Reads a key: 64 hex digits.
#[must_use]
pub fn parse_key(hex: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use proptest::prelude::*;

    fn opened(sealer: &Sealer, bytes: &[u8], to: &str) -> Option<(String, bool)> {
        sealer.open(bytes, to).map(|it| (it.secret.expose().to_owned(), it.is_current))
    }

    #[test]
    fn a_secret_opens_with_its_key_and_for_its_owner_only() {
        let (sealer, secret) = (Sealer::new(&[[7; 32]]), Secret::new("sk-canary"));
        let sealed = sealer.seal_now(&secret, "w-1 http://a:1");
        assert!(!sealed.windows(9).any(|it| it == b"sk-canary"));
        assert_ne!(sealed, sealer.seal_now(&secret, "w-1 http://a:1"), "no two sealings are alike");
        assert_eq!(opened(&sealer, &sealed, "w-1 http://a:1"), Some(("sk-canary".to_owned(), true)));
        assert_eq!(opened(&sealer, &sealed, "w-1 http://b:1"), None);
        assert_eq!(opened(&Sealer::ephemeral(), &sealed, "w-1 http://a:1"), None);
        assert_eq!(opened(&sealer, &sealed[..20], "w-1 http://a:1"), None);
        assert_eq!(opened(&sealer, &[], ""), None);
    }

    #[test]
    fn while_keys_are_rotated_both_open_and_the_new_one_seals() {
        let (old, both) = (Sealer::new(&[[1; 32]]), Sealer::new(&[[2; 32], [1; 32]]));
        let secret = Secret::new("x");
        assert_eq!(opened(&both, &old.seal_now(&secret, "y"), "y"), Some(("x".to_owned(), false)));
        assert_eq!(opened(&Sealer::new(&[[2; 32]]), &both.seal_now(&secret, "y"), "y"), Some(("x".to_owned(), true)));
    }

    static SEALED_ONCE: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| Sealer::new(&[[7; 32]]).seal_now(&Secret::new("sk-canary"), "w-1"));

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_what_is_damaged_does_not_open(bytes in fuzz::damaged(vec![SEALED_ONCE.clone()])) {
            let opened = fuzz::within(1 << 20, || Sealer::new(&[[7; 32]]).open_bytes(&bytes, b"w-1"));
            prop_assert_eq!(opened.is_some(), bytes == *SEALED_ONCE);
        }

        #[test]
        fn fuzz_what_differs_in_one_bit_does_not_open(at in 0..SEALED_ONCE.len(), bit in 0..8_u8) {
            let mut bytes = SEALED_ONCE.clone();
            bytes[at] ^= 1 << bit;
            prop_assert!(Sealer::new(&[[7; 32]]).open_bytes(&bytes, b"w-1").is_none());
        }
    }
}
