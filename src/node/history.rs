//! The history of this node: where it is kept, and what looks after it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Runtime;

use super::error::Error;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::control;
use crate::history;
use crate::history::Absent;
use crate::history::Backend;
use crate::history::External;
use crate::history::Handle;
use crate::history::InvalidKeys;
use crate::history::Keys;
use crate::history::Memory;
use crate::history::config::Config;
use crate::history::config::Kind;
use crate::history::external::InvalidUrl;
use crate::history::group;
use crate::observability::metrics::Registry;
use crate::storage;
use crate::storage::Durability;
use crate::storage::Store;

const TEND: Task = Task { name: "history", stage: Stage::Agree, on_end: OnEnd::StopNode };
/// Its early end is a disk that failed: nothing may be acknowledged after it.
const GROUP: Task = Task { name: "history_group", stage: Stage::Agree, on_end: OnEnd::StopNode };

/// Ends the thread of the group.
const THREAD: Task = Task { name: "history_thread", stage: Stage::Carry, on_end: OnEnd::Log };

/// What it stands on.
pub(super) struct Start<'a> {
    pub(super) storage: &'a storage::Handle,
    /// None with a mesh and a data directory that cannot be used.
    pub(super) control: Option<&'a control::Handle>,
    /// This data directory, and which start of it this is.
    pub(super) me: (StorageId, u64),
    pub(super) entropy: &'a Entropy,
    /// See [`keys`].
    pub(super) keys: Option<Keys>,
}

/// The data directory.
struct Own(storage::Handle);

impl group::Ground for Own {
    fn found(&self) -> Option<Store> {
        self.0.opened()
    }

    fn open(&self) -> Option<Store> {
        self.0.store()
    }
}

/// Reads the keys that seal content, if it is to be sealed. To be called before anything runs: a wrong file is the operator's to mend. Blocks on the disk.
pub(super) fn keys(config: &Config) -> Result<Option<Keys>, InvalidKeys> {
    config.history_key_file.as_ref().map(|it| Keys::read(Path::new(it))).transpose()
}

/// Starts it. None: nothing is kept, as asked.
pub(super) fn start(
    config: &Config,
    start: &Start<'_>,
    metrics: &mut Registry,
    tasks: &Tasks,
) -> Result<Option<Handle>, Error> {
    let backend: Arc<dyn Backend> = match config.history_backend {
        Kind::None => return Ok(None),
        Kind::Raft => replicated(config, start, metrics, tasks)?,
        Kind::Memory => Arc::new(Memory::default()),
        kind @ (Kind::Postgres | Kind::Redis | Kind::Oracle) => {
            let url = config.history_url.as_ref().ok_or(InvalidUrl::Missing)?;
            Arc::new(External::start(kind, url, start.entropy, metrics, tasks)?)
        }
    };
    let handle = Handle::new(backend, config, start.keys.clone(), start.me, start.entropy.clone());
    let tended = handle.clone();
    tasks.spawn(TEND, |stop| history::run(tended, stop));
    Ok(Some(handle))
}

/// In the cluster. Where nothing is to be kept, it is in memory, until the restart, as everything else is there.
fn replicated(
    config: &Config,
    start: &Start<'_>,
    metrics: &mut Registry,
    tasks: &Tasks,
) -> Result<Arc<dyn Backend>, Error> {
    let metrics = group::metrics::Metrics::register(metrics);
    if start.storage.durability() == Durability::Off {
        tracing::warn!("responses and conversations are kept in memory, until the restart: there is no data directory");
        return Ok(Arc::new(Memory::default()));
    }
    let Some(control) = start.control else {
        // A node of a cluster that kept them for itself would not find those of others.
        tracing::error!("responses and conversations cannot be kept: the data directory cannot be used");
        return Ok(Arc::new(Absent));
    };
    let ground = Arc::new(Own(start.storage.clone()));
    // A thread of its own: what many write must not delay membership.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let backend = {
        let _here = runtime.enter();
        let (backend, driver) = group::start(control.clone(), ground, config.purge_within, metrics);
        tasks.spawn(GROUP, |stop| driver.run(stop));
        backend
    };
    let thread = Thread::run(runtime)?;
    tasks.spawn(THREAD, |stop| async move {
        stop.cancelled().await;
        drop(thread);
    });
    Ok(Arc::new(backend))
}

/// A thread with a runtime. It ends, with all that runs on it, when this is dropped: also when the node's own runtime is, however that came.
struct Thread {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn run(runtime: Runtime) -> std::io::Result<Self> {
        let stop = Stop::new();
        let stopped = stop.clone();
        let named = std::thread::Builder::new().name("history".to_owned());
        let thread = named.spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.cancel();
        // A panic in it was logged.
        self.thread.take().into_iter().for_each(|it| drop(it.join()));
    }
}
