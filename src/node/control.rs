//! The control group of this node: where it is kept, how the other nodes are reached, and what it is told at the start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::entropy::Entropy;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::control;
use crate::control::Config;
use crate::control::Handle;
use crate::control::Parts;
use crate::control::Peers;
use crate::control::core::lives::Life;
use crate::control::machine::LEVEL;
use crate::control::metrics::Metrics;
use crate::membership;
use crate::membership::Member;
use crate::membership::Status;
use crate::observability::metrics::Registry;
use crate::raft;
use crate::raft::Asking;
use crate::storage;
use crate::transport;
use crate::transport::Request;
use crate::transport::RequestError;
use crate::transport::lanes::Lane;

/// Its early end is a disk that failed: nothing may be acknowledged after it.
const TASK: Task = Task { name: "control", stage: Stage::Agree, on_end: OnEnd::StopNode };

/// The other nodes, by their data directories.
struct Ways {
    members: membership::Handle,
    transport: transport::Handle,
}

impl Ways {
    fn storages(&self, is: impl Fn(&Member) -> bool) -> BTreeSet<StorageId> {
        let (view, me) = (self.members.view(), self.transport.me().storage);
        view.members.iter().filter(|it| is(it) && it.peer.storage != me).map(|it| it.peer.storage).collect()
    }
}

impl raft::Mesh for Ways {
    fn ask(&self, to: StorageId, bytes: Vec<u8>, limit: Duration) -> Asking<'_> {
        Box::pin(async move {
            let view = self.members.view();
            let found = view.members.iter().find(|it| it.peer.storage == to && it.status.is_active());
            let peer = found.map(|it| &it.peer).ok_or(RequestError::NoLink)?;
            self.transport.request(peer, Lane::Raft, &bytes, limit).await.map(|it| it.to_vec())
        })
    }
}

impl Peers for Ways {
    fn active(&self) -> BTreeSet<StorageId> {
        self.storages(|it| it.status.is_active())
    }

    fn left(&self) -> BTreeSet<StorageId> {
        self.storages(|it| it.status == Status::Left)
    }
}

/// What it is started with.
pub(super) struct Start<'a> {
    pub(super) storage: &'a storage::Handle,
    pub(super) members: membership::Handle,
    pub(super) transport: transport::Handle,
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) expect: usize,
}

/// Starts this node's part. Without a data directory that can be used it has none, and serves; the log says why.
pub(super) fn start(start: Start<'_>, metrics: &mut Registry, tasks: &Tasks) -> Option<Handle> {
    let Start { storage, members, transport, inbox, expect } = start;
    let store = storage.store()?;
    let (me, entropy) = (transport.me(), Entropy::from_os());
    let config = Config {
        me: me.storage,
        life: Life { boot: me.boot, nonce: entropy.next_u64() },
        node: me.node.as_str().to_owned(),
        zone: me.zone.as_ref().map(|it| it.as_str().to_owned()).unwrap_or_default(),
        level_max: LEVEL,
        expect,
        draw: ClusterId(u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64())),
        timing: raft::Timing::default(),
        patience: control::core::voters::Patience::default(),
    };
    let peers = Arc::new(Ways { members, transport });
    let metrics = Metrics::register(metrics);
    match control::start(Parts { config, store, peers, inbox, metrics }) {
        Ok((handle, driver)) => {
            tasks.spawn(TASK, |stop| driver.run(stop));
            Some(handle)
        }
        Err(error) => {
            tracing::error!(%error, "this node takes no part in the control group: what it kept of it cannot be used");
            None
        }
    }
}
