//! What a decision says, and what is told back about it.

use std::sync::Arc;

use crate::base::ids::WorkerId;
use crate::dialects::form::Usage;
use crate::observability::labels::label;
use crate::routing::models::Model;

/// One decision: who answers, why, and what was expected.
#[derive(Debug)]
pub struct Route {
    /// Who answers.
    pub worker: WorkerId,
    /// The policy that decided, as it is configured.
    pub policy: &'static str,
    /// Why this worker.
    pub reason: Reason,
    /// Prompt tokens that its cache is expected to hold.
    pub expected_cached_tokens: u64,
    /// Prompt tokens that it is expected to compute. An estimate; at least 1.
    pub new_tokens: u64,
    /// What [`Feedback`] needs to learn from the outcome. Hashes and numbers only.
    pub placed: Placed,
}

/// Opaque memory of one decision, for [`Feedback`]. Dropping it is always allowed: nothing is learned then.
#[derive(Debug)]
pub struct Placed {
    pub(super) model: Arc<Model>,
    /// Bytes the token estimate was made from; 0 where there were none.
    pub(super) size: u64,
    pub(super) expected_cached_tokens: u64,
    pub(super) hints: Option<Box<Hints>>,
}

/// The prefix map entries behind a decision.
#[derive(Debug)]
pub(super) struct Hints {
    /// Who was chosen.
    pub worker: WorkerId,
    /// The worker's slot in the map when it was placed.
    pub slot: u16,
    /// Bytes of the prompt that the worker was believed to hold.
    pub held_bytes: u32,
    /// Age of that belief in ticks of the map.
    pub age: u16,
    /// Chain hashes of the boundaries beyond `held_bytes`, which this placement announced.
    pub announced: Vec<u64>,
}

label! {
    /// Why a worker was chosen.
    pub enum Reason {
        /// Cheapest, and part of the prompt is expected in its cache.
        Prefix = "prefix",
        /// Cheapest; nothing of the prompt is expected in its cache.
        Load = "load",
        /// The caller named it.
        Target = "target",
        /// Its routing key is bound to it.
        Bound = "bound",
        /// Its routing key was bound to it just now.
        Assigned = "assigned",
        /// The key's place on the ring.
        Ring = "ring",
        /// The ring's first worker is over its share or out: the next one.
        RingSpill = "ring_spill",
        /// Its turn.
        Turn = "turn",
        /// Drawn.
        Drawn = "drawn",
        /// Its band of prompt lengths.
        Band = "band",
        /// Every worker of the band is out: a neighbour's.
        BandSpill = "band_spill",
        /// Every worker is out: the best of them is tried anyway.
        LastResort = "last_resort",
    }
}

/// Why there is no worker. Nothing was changed by any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No worker serves the model. The cluster's state or the client's model name; try later or another name.
    #[error("no worker serves this model")]
    NoWorkers,
    /// Every worker of the model has failed this request already. The upstream's fault; answer the last failure.
    #[error("every worker of this model was tried")]
    AllTried,
    /// The caller insists on a worker that does not serve the model. The client's fault.
    #[error("the target worker does not serve this model: {0}")]
    TargetUnknown(WorkerId),
    /// The caller insists on a worker that takes no new request. Try later, or without a target.
    #[error("the target worker takes no requests now: {0}")]
    TargetUnavailable(WorkerId),
}

/// What the router is told after a decision.
#[derive(Debug)]
pub enum Feedback<'a> {
    /// The worker answered; what it says the prompt cost. Absent numbers teach nothing: absent is not zero.
    Served {
        /// From [`Route::placed`].
        placed: &'a Placed,
        /// As the worker reported it.
        usage: Usage,
    },
    /// The attempt failed before the worker can have read the prompt: it does not hold it after all.
    NotServed {
        /// From [`Route::placed`].
        placed: &'a Placed,
    },
    /// The worker was removed, or restarted with an empty cache: nothing it held counts any longer.
    Forgotten(WorkerId),
    /// It did not answer this node for a while and nothing tells whether it restarted, or another node says so: forgotten here. Other
    /// nodes are not told, or one bad cable would make all of them forget.
    Doubted(WorkerId),
}
