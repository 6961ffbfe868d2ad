//! The limits of this node: the control group as limits need it, and what they are started with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::ids::StorageId;
use crate::base::tasks::Tasks;
use crate::control;
use crate::control::machine::Command;
use crate::control::machine::MintChange;
use crate::control::machine::Outcome;
use crate::limits;
use crate::limits::Config;
use crate::limits::Definition;
use crate::limits::Handle;
use crate::limits::Others;
use crate::limits::Parts;
use crate::limits::group::Change;
use crate::limits::group::Changes;
use crate::limits::group::Doing;
use crate::limits::group::Proposal;
use crate::limits::group::Proposed;
use crate::limits::metrics::Metrics;
use crate::observability::metrics::Registry;

/// A confirmation is a heartbeat and its answers. Later than this the group has no majority.
const CONFIRM_LIMIT: Duration = Duration::from_secs(1);
/// A decision takes two fsyncs and two ways.
const PROPOSE_LIMIT: Duration = Duration::from_secs(2);

struct Group(control::Handle);

impl limits::group::Group for Group {
    fn leader(&self) -> Option<StorageId> {
        self.0.leader()
    }

    fn leads(&self) -> Option<u64> {
        self.0.leads()
    }

    fn confirm(&self, term: u64) -> Doing<'_, bool> {
        Box::pin(self.0.confirm(term, CONFIRM_LIMIT))
    }

    fn changes(&self, after: u64) -> Changes {
        let change = |(at, change)| match change {
            MintChange::Put(mint) => (at, Change::Minted(mint)),
            MintChange::Dropped(limit) => (at, Change::Gone(limit)),
        };
        let read = |state: &control::machine::State| Changes {
            changes: state.mints_after(after).map(change).collect(),
            epoch_dropped: state.epoch_dropped(),
        };
        self.0.read(read).unwrap_or_default()
    }

    fn propose(&self, term: u64, proposal: Proposal) -> Doing<'_, Proposed> {
        let command = match proposal {
            Proposal::Mint { seen, mint } => Command::PutMint { seen, mint },
            Proposal::Drop { seen, limit } => Command::DropMint { limit, seen },
        };
        Box::pin(async move {
            match self.0.lead(term, &command, PROPOSE_LIMIT).await {
                Ok(Outcome::Changed | Outcome::Unchanged) => Proposed::Decided,
                Ok(Outcome::Refused(why)) => {
                    tracing::debug!(%why, "a division of a limit was refused");
                    Proposed::Refused
                }
                Err(_) => Proposed::Unanswered,
            }
        })
    }
}

/// What it is started with.
pub(super) struct Start {
    pub(super) control: Option<control::Handle>,
    pub(super) definitions: watch::Receiver<Arc<[Definition]>>,
    /// This node's data directory, and which start of it this is.
    pub(super) me: (StorageId, u64),
    /// None: a node without a mesh.
    pub(super) others: Option<Others>,
}

/// Starts them. A node without a control group divides none.
pub(super) fn start(start: Start, config: &Config, metrics: &mut Registry, tasks: &Tasks) -> Handle {
    let Start { control, definitions, me, others } = start;
    let metrics = Metrics::register(metrics);
    let settings = config.settings();
    let Some(control) = control else { return Handle::nowhere(settings.on_isolation) };
    let group = Arc::new(Group(control));
    limits::start(Parts { settings, definitions, group, me, others, metrics }, tasks)
}
