//! The replicated tables of this node: whose they are, and the data directory they lie in.

use super::error::Error;
use super::mesh::Mesh;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::base::tasks::Tasks;
use crate::observability::metrics::Registry;
use crate::replication;
use crate::replication::Peers;
use crate::replication::core::Member;
use crate::replication::dots::Actor;
use crate::replication::store::Batch;
use crate::replication::store::Row;
use crate::replication::store::Store;
use crate::replication::store::StoreError;
use crate::replication::tables::Kind;
use crate::replication::tables::TABLES;
use crate::storage;
use crate::storage::Place;
use crate::transport::identity::Identity;

/// Tables and what must live as long as they do.
pub(super) struct Tables {
    pub(super) handle: replication::Handle,
    /// Keeps other processes from writing under this node's name.
    pub(super) identity: Option<Identity>,
}

/// Reads them back and starts them: with the mesh replicated, without it this node's alone.
pub(super) fn start(
    storage: &storage::Handle,
    place: &Place,
    mesh: Option<(Member, Peers)>,
    metrics: &mut Registry,
    tasks: &Tasks,
) -> Result<Tables, Error> {
    let (me, peers, identity) = match mesh {
        Some((me, peers)) => (me, Some(peers), None),
        None => {
            let me = StorageId(Entropy::from_os().next_u128());
            let identity = identity(place, me);
            (member(identity.as_ref(), me), None, identity)
        }
    };
    let counts = replication::metrics::Metrics::register(metrics);
    let handle = replication::start(me, Box::new(Disk(storage.clone())), peers, counts, tasks)?;
    replication::metrics::register(metrics, handle.clone());
    Ok(Tables { handle, identity })
}

/// This node in the mesh.
pub(super) fn member_of(mesh: &Mesh) -> Member {
    let actor = Actor { storage: mesh.identity.storage, boot: mesh.identity.boot };
    Member { node: mesh.members.me.clone(), actor }
}

/// Who a node without a mesh is on disk, where there is a directory already; `me`: who it becomes where there is none. One that is copied or cannot be used does no harm here: what is written
/// under a name that was never used before merges with everything.
pub(super) fn identity(place: &Place, me: StorageId) -> Option<Identity> {
    let path = match place {
        Place::Nowhere => return None,
        Place::Named(path) => path,
        Place::Default(path) => Some(path).filter(|it| it.exists())?,
    };
    let wall_ms = u64::try_from(Clock.wall().as_millis()).unwrap_or(u64::MAX);
    let opened = Identity::open_as(path, wall_ms, &Entropy::from_os(), me);
    opened.inspect_err(|error| tracing::debug!(%error, "this node writes its tables under a new name")).ok()
}

fn member(identity: Option<&Identity>, me: StorageId) -> Member {
    let entropy = Entropy::from_os();
    let (name, storage, boot) = match identity {
        Some(it) => (it.node.as_str().to_owned(), it.storage, it.boot),
        None => (format!("n-{:016x}", entropy.next_u64()), me, 1),
    };
    let node = NodeId::parse(&name).expect("letters, digits and a dash");
    Member { node, actor: Actor { storage, boot } }
}

/// Rows of tables in the data directory.
struct Disk(storage::Handle);

impl Store for Disk {
    fn load(&self) -> Result<Batch, StoreError> {
        let row = |(table, key, value)| Row { table: replication::tables::TableId(table), key, value };
        let rows = self.0.rows().map_err(|error| StoreError(error.to_string()))?;
        Ok(rows.into_iter().map(row).collect())
    }

    fn append(&mut self, batch: Batch) -> Result<(), StoreError> {
        let is_decision =
            batch.iter().any(|row| TABLES.iter().any(|it| it.id == row.table && matches!(it.kind, Kind::Admin(_))));
        let rows = batch.into_iter().map(|row| (row.table.0, row.key, row.value)).collect();
        self.0.write(rows, is_decision).map_err(|error| StoreError(error.to_string()))
    }
}
