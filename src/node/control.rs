//! The control group of this node: where it is kept, how the other nodes are reached, and what it is told at the start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::tables;
use crate::base::entropy::Entropy;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::ids::Zone;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::chaos;
use crate::control;
use crate::control::Config;
use crate::control::Ground;
use crate::control::Handle;
use crate::control::Parts;
use crate::control::Peers;
use crate::control::core::lives::Life;
use crate::control::core::voters::Patience;
use crate::control::machine::LEVEL;
use crate::control::metrics::Metrics;
use crate::membership;
use crate::membership::Member;
use crate::membership::Status;
use crate::observability::metrics::Registry;
use crate::raft;
use crate::raft::Asking;
use crate::storage;
use crate::storage::GroupId;
use crate::storage::Place;
use crate::storage::Store;
use crate::transport;
use crate::transport::Request;
use crate::transport::RequestError;
use crate::transport::identity::Identity;
use crate::transport::lanes::Lane;

/// Its early end is a disk that failed: nothing may be acknowledged after it.
const TASK: Task = Task { name: "control", stage: Stage::Agree, on_end: OnEnd::StopNode };

/// The other nodes, by their data directories.
struct Ways {
    members: membership::Handle,
    transport: transport::Handle,
    chaos: chaos::Handle,
}

impl Ways {
    fn storages(&self, is: impl Fn(&Member) -> bool) -> BTreeSet<StorageId> {
        let (view, me) = (self.members.view(), self.transport.me().storage);
        view.members.iter().filter(|it| is(it) && it.peer.storage != me).map(|it| it.peer.storage).collect()
    }
}

impl raft::Mesh for Ways {
    fn ask(&self, to: StorageId, lane: Lane, bytes: Vec<u8>, limit: Duration) -> Asking<'_> {
        Box::pin(async move {
            let view = self.members.view();
            let found = view.members.iter().find(|it| it.peer.storage == to && it.status.is_active());
            let peer = found.map(|it| &it.peer).ok_or(RequestError::NoLink)?;
            self.transport.request(peer, lane, &bytes, limit).await.map(|it| it.to_vec())
        })
    }

    fn is_paused(&self, group: GroupId) -> bool {
        let group = if group == GroupId::CONTROL { chaos::core::Group::Control } else { chaos::core::Group::History };
        self.chaos.is_raft_paused(group)
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
    pub(super) bulk: mpsc::Receiver<Request>,
    pub(super) chaos: chaos::Handle,
    pub(super) expect: usize,
    pub(super) patience: Patience,
}

/// The data directory of a node without a mesh.
struct Own {
    /// Which directory it is, or will be.
    me: StorageId,
    storage: storage::Handle,
    place: Place,
    /// Who the directory says it is: from the start, or from when it was made. Held, so that no other process can be it.
    identity: Mutex<Option<Arc<Identity>>>,
    zone: String,
    entropy: Entropy,
}

impl Ground for Own {
    fn me(&self) -> StorageId {
        self.me
    }

    fn found(&self) -> Option<Store> {
        self.storage.opened()
    }

    fn open(&self) -> (Config, Option<Store>) {
        let store = self.storage.store();
        let mut identity = self.identity.lock();
        if store.is_some() && identity.is_none() {
            *identity = tables::identity(&self.place, self.me).map(Arc::new);
        }
        // One that was made by somebody else meanwhile is not this node's.
        let own = identity.as_ref().filter(|it| it.storage == self.me);
        let (boot, node) = own.map_or_else(|| (1, String::new()), |it| (it.boot, it.node.as_str().to_owned()));
        let life = Life { boot, nonce: self.entropy.next_u64() };
        let config = config(self.me, life, node, self.zone.clone(), 1, &self.entropy);
        // Under a name that is not on disk nothing is kept: the next start would not be the same member.
        (config, store.filter(|_| own.is_some()))
    }
}

/// Starts the group of a node without a mesh; it is there when something needs it.
pub(super) fn start_alone(
    me: StorageId,
    storage: &storage::Handle,
    place: &Place,
    identity: Option<Arc<Identity>>,
    zone: Option<&Zone>,
    tasks: &Tasks,
) -> Handle {
    let zone = zone.map(|it| it.as_str().to_owned()).unwrap_or_default();
    let (storage, place, entropy) = (storage.clone(), place.clone(), Entropy::from_os());
    let (handle, driver) =
        control::alone(Arc::new(Own { me, storage, place, identity: Mutex::new(identity), zone, entropy }));
    tasks.spawn(TASK, |stop| driver.run(stop));
    handle
}

fn config(me: StorageId, life: Life, node: String, zone: String, expect: usize, entropy: &Entropy) -> Config {
    Config {
        me,
        life,
        node,
        zone,
        level_max: LEVEL,
        expect,
        draw: ClusterId(entropy.next_u128()),
        timing: raft::Timing::default(),
        patience: Patience::default(),
    }
}

/// Starts this node's part. Without a data directory that can be used it has none, and serves; the log says why.
pub(super) fn start(start: Start<'_>, metrics: &mut Registry, tasks: &Tasks) -> Option<Handle> {
    let Start { storage, members, transport, inbox, bulk, chaos, expect, patience } = start;
    let store = storage.store()?;
    let (me, entropy) = (transport.me(), Entropy::from_os());
    let life = Life { boot: me.boot, nonce: entropy.next_u64() };
    let zone = me.zone.as_ref().map(|it| it.as_str().to_owned()).unwrap_or_default();
    let mut config = config(me.storage, life, me.node.as_str().to_owned(), zone, expect, &entropy);
    config.patience = patience;
    let peers = Arc::new(Ways { members, transport, chaos });
    let metrics = Metrics::register(metrics);
    match control::start(Parts { config, store, peers, inbox, bulk, metrics }) {
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
