//! The mesh secret: 256 bits that make a node a member, in a text form with a checksum.
//!
//! A checksum, because a secret that lost a character on its way through a clipboard would otherwise found a cluster of its own, and
//! two of those look like a network fault. Only what `smg mesh secret` printed is taken: a chosen password can be guessed offline from one recorded handshake.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::hkdf;

use crate::base::entropy::Entropy;
use crate::base::ids::ClusterName;

/// First characters of the text form; the digit is its version.
const PREFIX: &str = "smg1-";
const CHECKSUM_BYTES: usize = 4;
const SALT: &[u8] = b"smg mesh v1";

/// What is derived from the secret. One label for each use, so that knowing one key tells nothing of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The key of the cluster's certificate authority.
    Authority,
    /// Sealing of workers' credentials before they are replicated.
    Seal,
    /// Hashes of prompt prefixes: those that nodes tell each other mean the same on all of them, and nothing to others.
    Prefixes,
    /// Stateless resets: a restarted node can tell peers that their old connections are gone.
    Reset,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Authority => b"authority",
            Self::Seal => b"seal",
            Self::Prefixes => b"prefixes",
            Self::Reset => b"reset",
        }
    }
}

/// Why a text is no mesh secret. The operator's to mend. The text itself is never part of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// Not made by `smg mesh secret`: a password, perhaps.
    #[error("a mesh secret begins with `smg1-`; make one with `smg mesh secret` and give it to every node")]
    Foreign,
    /// Characters are missing or too many.
    #[error("the mesh secret has {0} characters and should have 53: was all of it copied?")]
    Length(usize),
    /// One or more characters are wrong.
    #[error("the mesh secret has a wrong character somewhere (its checksum does not match): copy it again")]
    Checksum,
}

/// What makes a node a member of a cluster. `Debug` prints stars.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshSecret([u8; 32]);

impl MeshSecret {
    /// A new one, from the operating system's generator.
    #[must_use]
    pub fn generate() -> Self {
        Self(Entropy::secret())
    }

    /// The one that everybody knows: for a mesh that no other machine reaches.
    #[must_use]
    pub fn development() -> Self {
        Self(*b"smg: no secret, for development.")
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(InvalidSecret::Foreign)?;
        let len = text.chars().count();
        if len != PREFIX.len() + 48 {
            return Err(InvalidSecret::Length(len));
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_alphabet| InvalidSecret::Checksum)?;
        match bytes.split_first_chunk::<32>() {
            Some((secret, sum)) if sum == checksum(secret) => Ok(Self(*secret)),
            _ => Err(InvalidSecret::Checksum),
        }
    }

    /// The text form, for whoever made it: print it once, to a terminal or a file of mode 0600.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&self.0[..], &checksum(&self.0)].concat()))
    }

    /// A key for one purpose in one cluster (HKDF-SHA256): two clusters that share a secret share no key.
    #[must_use]
    pub fn derive(&self, purpose: Purpose, cluster: &ClusterName) -> [u8; 32] {
        let mut key = [0; 32];
        let info = [purpose.label(), b"/", cluster.as_str().as_bytes()];
        let source = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&self.0);
        let filled = source.expand(&info, hkdf::HKDF_SHA256).and_then(|it| it.fill(&mut key));
        debug_assert!(filled.is_ok(), "32 bytes are within what HKDF-SHA256 can give");
        key
    }
}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn checksum(secret: &[u8; 32]) -> [u8; CHECKSUM_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"smg mesh secret checksum");
    context.update(secret);
    let sum = context.finish();
    std::array::from_fn(|i| sum.as_ref()[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "smg1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh88Hm48";

    #[test]
    fn a_secret_survives_being_shown_and_is_not_shown_by_accident() {
        let secret = MeshSecret::generate();
        assert_eq!(MeshSecret::parse(&format!(" {}\n", secret.expose())), Ok(secret.clone()));
        assert_ne!(secret, MeshSecret::generate());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(MeshSecret(std::array::from_fn(|i| i as u8)).expose(), KNOWN);
    }

    #[test]
    fn what_was_not_made_for_it_or_lost_a_character_is_refused_without_being_quoted() {
        let text = MeshSecret::generate().expose();
        assert_eq!(MeshSecret::parse("hunter2"), Err(InvalidSecret::Foreign));
        assert_eq!(MeshSecret::parse(""), Err(InvalidSecret::Foreign));
        assert_eq!(MeshSecret::parse(&text[..52]), Err(InvalidSecret::Length(52)));
        assert_eq!(MeshSecret::parse(&format!("{text}A")), Err(InvalidSecret::Length(54)));
        for at in PREFIX.len()..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut wrong = text.clone();
            wrong.replace_range(at..=at, other);
            let error = MeshSecret::parse(&wrong).unwrap_err();
            assert_eq!(error, InvalidSecret::Checksum);
            assert!(!error.to_string().contains(&wrong[5..20]));
        }
    }

    #[test]
    fn keys_differ_by_purpose_and_by_cluster() {
        let secret = MeshSecret([7; 32]);
        let [a, b] = ["prod", "test"].map(|it| ClusterName::parse(it).unwrap());
        let keys = [
            secret.derive(Purpose::Authority, &a),
            secret.derive(Purpose::Authority, &b),
            secret.derive(Purpose::Seal, &a),
        ];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
        assert_eq!(keys[0], MeshSecret([7; 32]).derive(Purpose::Authority, &a));
    }
}
