//! The policies, one file each, and the table that names them.
//!
//! A policy chooses one of the candidates and may keep a memory of its own. It is pure: time and random numbers come
//! with the question, and whoever owns the memory holds the lock. *Invariant:* what it returns is an available worker
//! not yet tried, or `None` when there is none; the fallback for that case is the router's.

pub mod ask;
mod bucket;
mod cache_aware;
mod consistent_hashing;
mod manual;
mod power_of_two;
mod prefix_hash;
mod random;
mod ring;
mod round_robin;

use std::fmt;

use smallvec::SmallVec;

pub use self::ask::Ask;
pub use self::ask::Holding;
use crate::base::ids::WorkerId;
use crate::routing::config::Config;
use crate::routing::draw::Draw;
use crate::routing::route::Reason;

/// A policy's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which candidate.
    pub index: usize,
    /// Why.
    pub reason: Reason,
}

/// A policy without a memory: any number of threads ask it at once.
pub trait Policy: Send + Sync {
    /// Chooses.
    fn choose(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice>;
}

/// A policy with a memory of one model's requests.
pub trait Remembering: Send {
    /// Chooses, and remembers it.
    fn choose(&mut self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice>;

    /// A copy to try a decision on, for explanations.
    fn rehearsal(&self) -> Box<dyn Remembering>;

    /// How many keys it remembers.
    fn keys(&self) -> usize {
        0
    }
}

/// A policy at work for one model.
pub enum Instance {
    /// Shared by all threads.
    Plain(Box<dyn Policy>),
    /// To be locked by its owner.
    Remembering(Box<dyn Remembering>),
}

/// One line of [`POLICIES`].
pub struct Entry {
    /// As configured, in headers and in metrics.
    pub name: &'static str,
    /// What it does, for people.
    pub doc: &'static str,
    /// Makes one for a model.
    pub make: fn(&Config) -> Instance,
    /// Whether it wants to know who holds the prompt's prefixes.
    pub reads_prefixes: bool,
    /// Whether it binds routing keys to workers, which all nodes should know.
    pub binds_keys: bool,
    /// How it chooses where other nodes are asked in between; none: it goes by this node's own counts.
    pub two_steps: Option<TwoSteps>,
}

/// A choice with a question to other nodes in it.
pub struct TwoSteps {
    /// Which candidates' load it wants to know.
    pub shortlist: fn(&Ask<'_, '_>, &mut Draw) -> Shortlisted,
    /// Which of them it is, now that it is known; none: none of them can be used any more.
    pub settle: fn(&Ask<'_, '_>, &[WorkerId]) -> Option<Choice>,
}

/// Candidates in a policy's shortlist. More cost an owner more of the time that it is asked within, and gain little (ROUTING.md 4.2).
pub const SHORTLIST_MAX: usize = 8;

/// Where the candidates of a shortlist stand.
pub type Shortlisted = SmallVec<[usize; SHORTLIST_MAX]>;

/// Every policy there is.
#[rustfmt::skip]
pub static POLICIES: &[Entry] = &[
    Entry { name: "cache_aware", doc: "the cheapest of a few: tokens queued, tokens not in its cache, requests in flight", make: |_| plain(cache_aware::CacheAware), reads_prefixes: true, binds_keys: false, two_steps: Some(cache_aware::TWO_STEPS) },
    Entry { name: "round_robin", doc: "each worker in turn", make: |_| remembering(round_robin::RoundRobin::default()), reads_prefixes: false, binds_keys: false, two_steps: None },
    Entry { name: "random", doc: "any worker, evenly", make: |_| plain(random::Random), reads_prefixes: false, binds_keys: false, two_steps: None },
    Entry { name: "power_of_two", doc: "the less loaded of two drawn at random", make: |_| plain(power_of_two::PowerOfTwo), reads_prefixes: false, binds_keys: false, two_steps: None },
    Entry { name: "consistent_hashing", doc: "by routing key, else by tenant and beginning of the prompt; bounded load", make: |config| remembering(consistent_hashing::ConsistentHashing::new(config)), reads_prefixes: false, binds_keys: false, two_steps: None },
    Entry { name: "prefix_hash", doc: "by the beginning of the prompt; bounded load", make: |config| remembering(prefix_hash::PrefixHash::new(config)), reads_prefixes: false, binds_keys: false, two_steps: None },
    Entry { name: "manual", doc: "a routing key stays with its worker", make: |config| remembering(manual::Manual::new(config)), reads_prefixes: false, binds_keys: true, two_steps: None },
    Entry { name: "bucket", doc: "short prompts to some workers, long ones to others", make: |_| remembering(bucket::Bucket::default()), reads_prefixes: false, binds_keys: false, two_steps: None },
];

fn plain(policy: impl Policy + 'static) -> Instance {
    Instance::Plain(Box::new(policy))
}

fn remembering(policy: impl Remembering + 'static) -> Instance {
    Instance::Remembering(Box::new(policy))
}

/// A policy's name that is known to be in [`POLICIES`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyName(usize);

/// There is no such policy. The caller's fault; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {}", names())]
pub struct UnknownPolicy;

fn names() -> String {
    POLICIES.iter().map(|it| format!("`{}`", it.name)).collect::<Vec<_>>().join(", ")
}

impl PolicyName {
    /// The first of the table: `cache_aware`.
    pub const DEFAULT: Self = Self(0);

    /// The only way in.
    pub fn parse(text: &str) -> Result<Self, UnknownPolicy> {
        POLICIES.iter().position(|it| it.name == text).map(Self).ok_or(UnknownPolicy)
    }

    /// Its line of the table.
    #[must_use]
    pub fn entry(self) -> &'static Entry {
        &POLICIES[self.0]
    }

    /// As configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.entry().name
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
