//! Names of records and of those they belong to, parsed once and trusted afterwards.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::base::entropy::Entropy;
use crate::base::ids::TenantId;
use crate::storage::GroupId;

/// Why a name was refused. The caller's fault; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// No id that was ever given looks like that.
    #[error("an id has 1 to {} letters, digits, `-` and `_`", Id::LEN_MAX)]
    Id,
    /// A principal's name that could not be kept.
    #[error("a principal's name has at most {} bytes", Owner::PRINCIPAL_LEN_MAX)]
    Principal,
}

/// A response, a conversation or an item, as clients name it: `resp_`, `conv_`, `msg_` and so on, the group that keeps it, and 160 random bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id(String);

impl Id {
    /// Longest accepted, in bytes. Clients may name items themselves.
    pub const LEN_MAX: usize = 96;

    /// Reads one that a client sent.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let is_plain = text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'));
        if is_plain && (1..=Self::LEN_MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::Id)
        }
    }

    /// A new one. `prefix`: `resp`, `conv`, `msg`, …
    #[must_use]
    pub fn draw(prefix: &str, group: GroupId, entropy: &Entropy) -> Self {
        let words = [entropy.next_u64(), entropy.next_u64()];
        let last = entropy.next_u64() >> 32;
        Self(format!("{prefix}_{:04x}{:016x}{:016x}{last:08x}", group.0, words[0], words[1]))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose a record is. Every key of it begins with this.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    tenant: String,
    /// Empty: all principals of the tenant see it.
    principal: String,
}

impl Owner {
    /// Longest name of a principal, in bytes.
    pub const PRINCIPAL_LEN_MAX: usize = 128;

    /// A tenant's, or one principal's of a tenant.
    pub fn new(tenant: &TenantId, principal: Option<&str>) -> Result<Self, InvalidName> {
        let principal = principal.unwrap_or_default();
        if principal.len() > Self::PRINCIPAL_LEN_MAX {
            return Err(InvalidName::Principal);
        }
        Ok(Self { tenant: tenant.as_str().to_owned(), principal: principal.to_owned() })
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// How its keys begin: lengths first, so that no owner's keys begin with another's.
    pub(super) fn write(&self, key: &mut Vec<u8>) {
        for name in [&self.tenant, &self.principal] {
            // A name that came in a command of another release may be longer than is accepted here; it is cut alike at every node, and `is_sound` refuses it before.
            let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
            key.push(len);
            key.extend(&name.as_bytes()[..usize::from(len)]);
        }
    }

    /// Whether it is one that [`Owner::new`] makes: a command may have been written by anybody.
    pub(super) fn is_sound(&self) -> bool {
        TenantId::parse(&self.tenant).is_ok() && self.principal.len() <= Self::PRINCIPAL_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_group_and_never_repeat() {
        let entropy = Entropy::seeded(1);
        let ids: std::collections::BTreeSet<Id> = (0..1000).map(|_| Id::draw("resp", GroupId(1), &entropy)).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|it| it.as_str().starts_with("resp_0001") && it.as_str().len() == 49));
        assert!(ids.iter().all(|it| Id::parse(it.as_str()).as_ref() == Ok(it)));
        for bad in ["", "a b", "a/b", "a\n", "é", &"x".repeat(97)] {
            assert_eq!(Id::parse(bad), Err(InvalidName::Id), "{bad}");
        }
    }

    #[test]
    fn no_owners_keys_begin_with_anothers() {
        let owner = |tenant: &str, principal: Option<&str>| {
            let mut key = Vec::new();
            Owner::new(&TenantId::parse(tenant).unwrap(), principal).unwrap().write(&mut key);
            key
        };
        let keys =
            [owner("a", None), owner("a", Some("b")), owner("ab", None), owner("a", Some("bc")), owner("b", Some("a"))];
        for (n, one) in keys.iter().enumerate() {
            assert!(keys.iter().enumerate().all(|(m, other)| n == m || !other.starts_with(one)), "{one:?}");
        }
    }
}
