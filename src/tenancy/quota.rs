//! What a tenant, a key or a model may use in the whole cluster: so many requests and tokens a second and a minute, so many requests open at a time.
//!
//! Each is a field of its row, the same in all tables, so that two that are set at once at two nodes are both set. The limit's number comes from the row's instance and the field: a tenant that is
//! removed and added again has other limits, and a budget is never that of an earlier one.

use std::sync::Arc;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::Definition;
use crate::limits::Kind;
use crate::limits::LimitId;
use crate::limits::mint::UNITS_MAX;
use crate::observability::labels::Label as _;
use crate::observability::labels::label;
use crate::replication::admin::InstanceId;

label! {
    /// Whose a limit is.
    pub enum Scope {
        /// A key's.
        Key = "key",
        /// A tenant's: of all its keys together.
        Tenant = "tenant",
        /// A model's, whoever asks for it.
        Model = "model",
    }
}

/// Whose one limit is, by name. Shown as ``key `ci` ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// A key's, a tenant's, a model's.
    pub scope: Scope,
    /// Which of them.
    pub name: Arc<str>,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.scope.as_str(), self.name)
    }
}

label! {
    /// A window.
    #[derive(PartialOrd, Ord)]
    pub enum Per {
        /// A second.
        Second = "second",
        /// A minute.
        Minute = "minute",
    }
}

impl Per {
    /// In milliseconds.
    #[must_use]
    pub fn ms(self) -> u32 {
        match self {
            Self::Second => 1_000,
            Self::Minute => 60_000,
        }
    }
}

/// What one limit counts, and in which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct What {
    /// Requests, tokens, or requests that are open.
    pub kind: Kind,
    /// In which windows; none for what is counted at a time.
    pub per: Option<Per>,
}

impl What {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let windowed =
            Kind::WINDOWED.iter().flat_map(|kind| Per::ALL.iter().map(|per| Self { kind: *kind, per: Some(*per) }));
        windowed.chain([Self { kind: Kind::Streams, per: None }])
    }

    /// Reads `requests` or `tokens`, and `second` or `minute`; or `streams` and nothing.
    #[must_use]
    pub fn parse(kind: &str, per: &str) -> Option<Self> {
        Self::all().find(|it| it.kind.as_str() == kind && it.per() == per)
    }

    /// The window as people write it; empty where there is none.
    #[must_use]
    pub fn per(self) -> &'static str {
        self.per.map_or("", Per::as_str)
    }

    /// Its length in milliseconds; 0 where there is none.
    pub(super) fn window_ms(self) -> u32 {
        self.per.map_or(0, Per::ms)
    }

    /// The number of its field in a row of any of the tables. Never given again.
    pub(super) fn field(self) -> u16 {
        let kind = match self.kind {
            Kind::Requests => 16,
            Kind::Tokens => 18,
            Kind::Streams => 20,
        };
        kind + u16::from(self.per == Some(Per::Minute))
    }

    /// The limit of a row's instance.
    pub(super) fn limit(self, of: InstanceId) -> LimitId {
        let name = [&of.0.to_le_bytes()[..], &self.field().to_le_bytes()].concat();
        LimitId(xxh3_64(&name))
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.per {
            Some(per) => write!(f, "{} per {}", self.kind.as_str(), per.as_str()),
            None => write!(f, "{} at a time", self.kind.as_str()),
        }
    }
}

/// A number that no limit can be. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a limit is a whole number from 0 to {UNITS_MAX}, or none")]
pub struct InvalidQuota;

/// Units a window, by what they count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas(pub(super) SmallVec<[(What, Quota); 2]>);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Units a window.
    pub units: u64,
    /// When it was set, in milliseconds since 1970: orders the edits of a limit, for people.
    pub revision: u64,
}

/// A limit that a request takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applies {
    /// Whose it is.
    pub scope: Scope,
    /// What it counts.
    pub what: What,
    /// Units a window.
    pub units: u64,
    /// What holds it to that.
    pub limit: LimitId,
}

impl Quotas {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, each with the limit of this instance that holds to it.
    pub(super) fn shown(&self, of: InstanceId) -> Vec<(What, u64, LimitId)> {
        self.iter().map(|(what, it)| (what, it.units, what.limit(of))).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (What, Quota)> + '_ {
        self.0.iter().copied()
    }

    /// As the group divides them.
    pub(super) fn definitions(&self, of: InstanceId) -> impl Iterator<Item = Definition> + '_ {
        self.iter().map(move |(what, Quota { units, revision })| Definition {
            limit: what.limit(of),
            revision,
            kind: what.kind,
            window_ms: what.window_ms(),
            units,
        })
    }
}

/// Checks a number that somebody wants to be a limit.
pub fn checked(units: Option<u64>) -> Result<Option<u64>, InvalidQuota> {
    if units.is_some_and(|it| it > UNITS_MAX) { Err(InvalidQuota) } else { Ok(units) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_field_and_a_limit_of_its_own_that_do_not_change() {
        let fields: Vec<_> = What::all().map(|it| (it.to_string(), it.field())).collect();
        let known = [
            ("requests per second", 16),
            ("requests per minute", 17),
            ("tokens per second", 18),
            ("tokens per minute", 19),
            ("streams at a time", 20),
        ];
        assert_eq!(fields, known.map(|it| (it.0.to_owned(), it.1)));
        let limits: BTreeSet<_> = (0..100).flat_map(|n| What::all().map(move |it| it.limit(InstanceId(n)))).collect();
        assert_eq!(limits.len(), 500);
        assert!(What::all().all(|it| What::parse(it.kind.as_str(), it.per()) == Some(it)));
        assert_eq!(
            (What::parse("streams", "second"), checked(Some(1 << 40)), checked(None)),
            (None, Err(InvalidQuota), Ok(None))
        );
    }
}
