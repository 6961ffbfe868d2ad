//! What handlers are given: the handles and views a request needs, and nothing that builds them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::tasks::Stop;
use crate::base::tasks::Tasks;
use crate::chaos;
use crate::control;
use crate::history;
use crate::ledger;
use crate::membership;
use crate::observability::traces::span::Tracer;
use crate::replication;
use crate::routing::Router;
use crate::routing::edits::PolicyEdits;
use crate::storage;
use crate::tenancy;
use crate::tenancy::admission::Admission;
use crate::tenancy::budget::Budgets;
use crate::tenancy::keys::ANONYMOUS;
use crate::tenancy::keys::Keys;
use crate::tenancy::keys::Principal;
use crate::workers::edits::Edits;
use crate::workers::prober::Prober;
use crate::workers::registry::Registry;

use super::config::Config;
use super::error::ApiError;
use super::intake::Intake;
use super::metrics::Metrics;

/// Handles and views for the edge.
pub struct Gateway {
    /// Who may ask.
    pub keys: Arc<Keys>,
    /// Changes who may.
    pub tenants: tenancy::edits::Edits,
    /// How much in a second and a minute.
    pub budgets: Budgets,
    /// How many at a time.
    pub admission: Admission,
    /// How much body.
    pub intake: Intake,
    /// Who answers.
    pub registry: Arc<Registry>,
    /// Finds out what was just added.
    pub prober: Prober,
    /// Changes who answers.
    pub edits: Edits,
    /// Who is chosen.
    pub router: Arc<Router>,
    /// Changes how.
    pub policies: PolicyEdits,
    /// Whether changes survive a restart.
    pub storage: storage::Handle,
    /// What all nodes know.
    pub tables: replication::Handle,
    /// Who else is here; `None` without the mesh.
    pub members: Option<Members>,
    /// What the cluster has agreed on; `None` with a mesh and a data directory that cannot be used.
    pub control: Option<control::Handle>,
    /// Responses and conversations; `None` with `--history-backend none`.
    pub history: Option<history::Handle>,
    /// What is wrong with this node, on purpose.
    pub chaos: chaos::Handle,
    /// What people are shown of this node.
    pub node: ThisNode,
    /// What others have in flight; `None` without the mesh.
    pub ledger: Option<ledger::Handle>,
    /// What happened.
    pub metrics: Metrics,
    /// Spans of what happened.
    pub tracer: Tracer,
    /// Timeouts and bounds.
    pub config: Config,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// How the node is stopping.
    pub phase: Phase,
}

impl Gateway {
    /// Whether the cluster's tables are in force here, or the wait for them is over.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        let patience = self.members.as_ref().map_or(Duration::ZERO, |it| it.join_timeout);
        self.tables.is_in_force(patience)
    }

    /// Lets in whoever the keys let in; nobody without a key while the cluster may have keys that this node has not got yet.
    pub fn admit(&self, principal: Arc<Principal>) -> Result<Arc<Principal>, ApiError> {
        if &*principal.name == ANONYMOUS && !self.has_joined() { Err(ApiError::Joining) } else { Ok(principal) }
    }
}

/// The cluster as this node sees it.
#[derive(Debug)]
pub struct Members {
    /// Who is here.
    pub handle: membership::Handle,
    /// This node.
    pub me: NodeId,
    /// How long it waits for the cluster's tables before it says to be ready without them.
    pub join_timeout: Duration,
}

/// This process.
pub struct ThisNode {
    /// How people know it.
    pub name: String,
    /// When it began.
    pub started: Instant,
    /// What runs in it.
    pub tasks: Tasks,
}

/// Set once each, on the way down.
#[derive(Debug, Default)]
pub struct Phase {
    draining: AtomicBool,
    cut_off: AtomicBool,
    asked: Stop,
}

impl Phase {
    /// An admin wants this node to stop, as SIGTERM would.
    pub fn ask(&self) {
        self.asked.cancel();
    }

    /// Waits for that.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// No new connections; readiness is false.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The drain timeout is over: streams end now, with an error event.
    pub fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }

    /// Whether the node is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether streams must end.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }
}
