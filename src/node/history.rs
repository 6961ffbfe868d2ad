//! The history of this node: where it is kept, and what looks after it.

use std::sync::Arc;

use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::history;
use crate::history::Backend;
use crate::history::Handle;
use crate::history::Memory;
use crate::history::config::Config;
use crate::history::config::Kind;

const TASK: Task = Task { name: "history", stage: Stage::Agree, on_end: OnEnd::StopNode };

/// Starts it. `me`: this data directory, and which start of it this is.
pub(super) fn start(config: &Config, me: (StorageId, u64), entropy: &Entropy, tasks: &Tasks) -> Option<Handle> {
    let backend: Arc<dyn Backend> = match config.history_backend {
        Kind::None => return None,
        Kind::Raft | Kind::Memory | Kind::Postgres | Kind::Redis | Kind::Oracle => Arc::new(Memory::default()),
    };
    let handle = Handle::new(backend, config, me, entropy.clone());
    let tended = handle.clone();
    tasks.spawn(TASK, |stop| history::run(tended, stop));
    Some(handle)
}
