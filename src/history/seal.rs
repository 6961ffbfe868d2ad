//! Seals secrets before they reach the disk: ChaCha20-Poly1305 under a key that lies beside the store, for its owner only.
//!
//! It keeps a copied log, snapshot or backup of the store from giving credentials away; who reads the whole directory as the
//! gateway's user has both. *Invariants:* a sealed secret opens only with its key and for what it was bound to; the key is
//! made once, fsynced before it is used, and never leaves this file.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ring::aead::Aad;
use ring::aead::CHACHA20_POLY1305;
use ring::aead::LessSafeKey;
use ring::aead::NONCE_LEN;
use ring::aead::Nonce;
use ring::aead::UnboundKey;

use super::error::OpenError;
use crate::base::entropy::Entropy;
use crate::base::secret::Secret;

/// First byte of what is sealed: the version of this file.
const VERSION: u8 = 1;

/// The key's file in the data directory.
const FILE: &str = "seal.key";

/// Seals and opens.
pub(super) struct Sealer(LessSafeKey);

impl Sealer {
    /// The key in `directory`, made when there is none. Whoever calls holds the store's lock, so nobody else makes one too.
    pub(super) fn open(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(FILE);
        let not_writable = |source| OpenError::NotWritable { directory: directory.to_path_buf(), source };
        let key = match fs::read_to_string(&path) {
            Ok(text) => parse(text.trim()).ok_or(OpenError::SealKey { path })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(directory, &path).map_err(not_writable)?,
            Err(error) => return Err(not_writable(error)),
        };
        Ok(Self::new(&key))
    }

    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of this cipher has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Version, nonce, ciphertext and tag. Nonces are random: 2^32 edits under one key are far away.
    pub(super) fn seal(&self, secret: &Secret, bound_to: &str) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&Entropy::secret()[..NONCE_LEN]);
        let mut sealed = secret.expose().as_bytes().to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(nonce_used, Aad::from(bound_to), &mut sealed)
            .expect("a credential is shorter than 256 GiB");
        [&[VERSION][..], &nonce, &sealed].concat()
    }

    /// The secret, if it was sealed with this key and for this.
    pub(super) fn unseal(&self, sealed: &[u8], bound_to: &str) -> Option<Secret> {
        let (&[VERSION], rest) = sealed.split_first_chunk::<1>()? else { return None };
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(bound_to), &mut rest).ok()?;
        std::str::from_utf8(plain).ok().map(Secret::new)
    }
}

fn parse(hex: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(key)
}

fn make(directory: &Path, path: &Path) -> io::Result<[u8; 32]> {
    let key = Entropy::secret();
    let hex = key.iter().fold(String::with_capacity(65), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    });
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(hex.as_bytes())?;
    file.write_all(b"\n")?;
    // ORDER: file and name are on disk before anything is sealed, or a crash could leave what nobody can open.
    file.sync_all()?;
    fs::File::open(directory)?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_and_for_its_owner_only() {
        let (sealer, secret) = (Sealer::new(&[7; 32]), Secret::new("sk-canary"));
        let sealed = sealer.seal(&secret, "w-1 http://a:1");
        assert!(!sealed.windows(9).any(|it| it == b"sk-canary"));
        assert_ne!(sealed, sealer.seal(&secret, "w-1 http://a:1"), "no two sealings are alike");
        let opened = |sealer: &Sealer, bytes: &[u8], to| sealer.unseal(bytes, to).map(|it| it.expose().to_owned());
        assert_eq!(opened(&sealer, &sealed, "w-1 http://a:1").as_deref(), Some("sk-canary"));
        assert_eq!(opened(&sealer, &sealed, "w-1 http://b:1"), None);
        assert_eq!(opened(&Sealer::new(&[8; 32]), &sealed, "w-1 http://a:1"), None);
        assert_eq!(opened(&sealer, &sealed[..20], "w-1 http://a:1"), None);
        assert_eq!(opened(&sealer, &[], ""), None);
    }

    #[test]
    fn the_key_is_made_once_for_its_owner_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let sealed = Sealer::open(directory.path()).unwrap().seal(&Secret::new("x"), "y");
        assert!(Sealer::open(directory.path()).unwrap().unseal(&sealed, "y").is_some());
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(matches!(Sealer::open(directory.path()), Err(OpenError::SealKey { .. })));
    }
}
