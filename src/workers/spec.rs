//! What an operator says of a worker, and how a later word changes it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::address::Origin;
use crate::base::ids::ModelId;
use crate::base::ids::StorageId;
use crate::base::secret::Secret;
use crate::replication::sources::Place;

/// Everything an operator can say of a worker.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its URL in canonical form.
    pub url: String,
    /// The data directory of the only node that reaches it, where it is a local one.
    pub via: Option<StorageId>,
    /// Its key.
    pub api_key: Option<Secret>,
    /// The models it serves; empty: ask it.
    pub models: Vec<ModelId>,
    /// Kept and shown for tools; no policy reads it.
    pub priority: u32,
    /// How dear its prefill is: a worker of cost 2 counts as half as fast.
    pub cost: f32,
    /// Kept and shown for tools.
    pub labels: BTreeMap<String, String>,
    /// Whether it gets no new requests.
    pub is_draining: bool,
}

impl Spec {
    /// As a source names it: a place and perhaps a key.
    #[must_use]
    pub fn named(origin: &Origin, api_key: Option<Secret>) -> Self {
        Self {
            url: origin.url(),
            via: None,
            api_key,
            models: Vec::new(),
            priority: PRIORITY,
            cost: 1.0,
            labels: BTreeMap::new(),
            is_draining: false,
        }
    }
}

impl Spec {
    /// Where it is, in words that no other worker has: two nodes may each have a worker at the same loopback address.
    #[must_use]
    pub fn label(&self) -> Cow<'_, str> {
        match self.via {
            None => Cow::Borrowed(&self.url),
            Some(owner) => Cow::Owned(format!("{} via {owner}", self.url)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { url: self.url.clone(), via: self.via }
    }
}

/// The priority of a worker that was given none, as other gateways have it.
pub const PRIORITY: u32 = 50;

/// Who says that a worker is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Flags, environment or file.
    Config,
    /// The admin API.
    Api,
}

impl Source {
    /// As shown in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Api => "api",
        }
    }
}

/// What is to be changed; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new key, or (`Some(None)`) none.
    pub api_key: Option<Option<Secret>>,
    /// See [`Spec::models`].
    pub models: Option<Vec<ModelId>>,
    /// See [`Spec::priority`].
    pub priority: Option<u32>,
    /// See [`Spec::cost`].
    pub cost: Option<f32>,
    /// All labels: what is not named is dropped.
    pub labels: Option<BTreeMap<String, String>>,
    /// See [`Spec::is_draining`].
    pub draining: Option<bool>,
}

impl Change {
    /// The changed spec.
    pub fn apply(self, spec: &mut Spec) {
        fn set<T>(field: &mut T, given: Option<T>) {
            if let Some(value) = given {
                *field = value;
            }
        }
        set(&mut spec.api_key, self.api_key);
        set(&mut spec.models, self.models);
        set(&mut spec.priority, self.priority);
        set(&mut spec.cost, self.cost);
        set(&mut spec.labels, self.labels);
        set(&mut spec.is_draining, self.draining);
    }
}
