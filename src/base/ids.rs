//! Names, parsed once and trusted afterwards.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Why a name was refused. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than the bound.
    #[error("an id may have at most {max} bytes, this one has: {len}")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A control character: it could forge log lines and headers.
    #[error("an id must not contain control characters")]
    ControlCharacter,
    /// A character that has a meaning in a URI: names of nodes stand in certificates as one.
    #[error("may have letters, digits, `-`, `_` and `.` only, this one has: {0:?}")]
    NotPlain(char),
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        text_id!($(#[$doc])* $name, $max, check);
    };
    ($(#[$doc:meta])* $name:ident, $max:expr, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Longest accepted, in bytes.
            pub const LEN_MAX: usize = $max;

            /// The only way in. Past it nobody checks again.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                $check(text, Self::LEN_MAX).map(|()| Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A model as clients name it.
    ModelId,
    256
);
text_id!(
    /// Who asks: the unit of isolation, limits and accounting.
    TenantId,
    64
);
text_id!(
    /// One request, as it appears in logs, traces and the `x-request-id` header.
    RequestId,
    128
);
text_id!(
    /// One node, as its certificate names it. It outlives restarts.
    NodeId,
    64,
    check_plain
);
text_id!(
    /// The cluster that a node belongs to, as certificates name it.
    ClusterName,
    64,
    check_plain
);
text_id!(
    /// Where a node stands: what fails together. Shown, and used to spread what should not.
    Zone,
    32,
    check_plain
);

/// One data directory: random, made with it, never reused. Shown as `s-` and 32 hex digits. The default is nobody's.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct StorageId(pub u128);

impl StorageId {
    /// Reads `s-0123456789abcdef0123456789abcdef`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex =
            text.strip_prefix("s-").filter(|hex| hex.len() == 32 && hex.bytes().all(|it| it.is_ascii_hexdigit()))?;
        u128::from_str_radix(hex, 16).ok().map(Self)
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s-{:032x}", self.0)
    }
}

impl fmt::Debug for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One cluster: random, made when it was founded. Two clusters of one name differ in it. Shown as `c-` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c-{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One worker: the same number on every node and after every restart, made of its place. Shown as `w-` and 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

impl WorkerId {
    /// The worker at this canonical URL; `via`: the data directory of the only node that reaches it, where it is a local one.
    #[must_use]
    pub fn of(url: &str, via: Option<StorageId>) -> Self {
        let seed = via.map_or(0, |it| xxh3_64(&it.0.to_be_bytes()).max(1));
        Self(xxh3_64_with_seed(url.as_bytes(), seed))
    }

    /// Reads `w-0123456789abcdef`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex =
            text.strip_prefix("w-").filter(|hex| hex.len() == 16 && hex.bytes().all(|it| it.is_ascii_hexdigit()))?;
        u64::from_str_radix(hex, 16).ok().map(Self)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w-{:016x}", self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn check(text: &str, max: usize) -> Result<(), InvalidId> {
    match text {
        "" => Err(InvalidId::Empty),
        text if text.len() > max => Err(InvalidId::TooLong { len: text.len(), max }),
        text if text.chars().any(char::is_control) => Err(InvalidId::ControlCharacter),
        _ => Ok(()),
    }
}

fn check_plain(text: &str, max: usize) -> Result<(), InvalidId> {
    check(text, max)?;
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        Some(odd) => Err(InvalidId::NotPlain(odd)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_cannot_leave_their_place_in_a_uri() {
        assert_eq!(NodeId::parse("a/b"), Err(InvalidId::NotPlain('/')));
        assert_eq!(ClusterName::parse("prod eu"), Err(InvalidId::NotPlain(' ')));
        assert_eq!(NodeId::parse("gw-1.rack_2").map(|it| it.to_string()), Ok("gw-1.rack_2".to_owned()));
    }

    #[test]
    fn ids_refuse_what_could_forge_a_line_or_grow_without_bound() {
        assert_eq!(TenantId::parse(""), Err(InvalidId::Empty));
        assert_eq!(TenantId::parse("a\nb"), Err(InvalidId::ControlCharacter));
        assert!(matches!(TenantId::parse(&"x".repeat(65)), Err(InvalidId::TooLong { len: 65, max: 64 })));
        assert_eq!(TenantId::parse("team-a").map(|it| it.to_string()), Ok("team-a".to_owned()));
    }

    #[test]
    fn a_worker_has_the_same_id_everywhere_and_a_local_one_is_its_owner_s() {
        let url = "http://127.0.0.1:8000";
        assert_eq!(WorkerId::of(url, None), WorkerId(0x459c_5878_f4e7_453e));
        assert_ne!(WorkerId::of(url, None), WorkerId::of(url, Some(StorageId(0))));
        assert_ne!(WorkerId::of(url, Some(StorageId(1))), WorkerId::of(url, Some(StorageId(2))));
    }

    #[test]
    fn worker_ids_survive_being_shown() {
        let id = WorkerId(0xABC);
        assert_eq!(WorkerId::parse(&id.to_string()), Some(id));
        for bad in ["w-zz", "w-+123456789abcdef", "w-0123456789abcdef0", "0123456789abcdef", "W-0123456789abcdef"] {
            assert_eq!(WorkerId::parse(bad), None, "{bad}");
        }
    }
}
