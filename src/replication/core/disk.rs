//! What the core keeps on disk, and how it reads it back.
//!
//! A row is an entry, a context or the rows of one owner; its value is `transport::wire`'s version byte and bincode. Rows and the
//! context they belong to go in one batch, or a restart would take an unfinished write for a DELETE. *Invariant:* a row that
//! cannot be read is never skipped: starting fails.

use std::time::Duration;

use super::Content;
use super::Core;
use super::Effect;
use super::Owed;
use crate::base::ids::StorageId;
use crate::replication::admin::Admin;
use crate::replication::admin::Change;
use crate::replication::admin::Entry;
use crate::replication::admin::Key;
use crate::replication::dots::Dots;
use crate::replication::faults::Fault;
use crate::replication::faults::planted;
use crate::replication::messages::FRAME_BYTES_MAX;
use crate::replication::owned::Owned;
use crate::replication::owned::PartDelta;
use crate::replication::owned::Refusal;
use crate::replication::owned::Rule;
use crate::replication::store::Batch;
use crate::replication::store::Row;
use crate::replication::store::StoreError;
use crate::replication::tables::Kind;
use crate::replication::tables::Spec;
use crate::replication::tables::TableId;
use crate::transport::wire;
use crate::transport::wire::WireError;

/// Largest value that is read back. A context of very many lives and an owner's rows must fit.
const VALUE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Why the tables could not be read back. Restore the data directory, or start with an empty one: the others have the tables.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Damaged, or written by a newer release.
    #[error("a row of table {table} cannot be read: {source}")]
    Damaged {
        /// Which table.
        table: u16,
        /// What is wrong.
        source: WireError,
    },
    /// Rows of an owner beyond what a release of ours lets it have.
    #[error("rows of table {table} cannot be taken: {source}")]
    Refused {
        /// Which table.
        table: u16,
        /// Why.
        source: Refusal,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row that no release of ours writes there.
    #[error("a row of table {0} has no meaning")]
    Meaningless(u16),
}

/// Key of the row that holds the context. Entries' keys are longer.
const CONTEXT: &[u8] = &[];

pub(super) fn change_row(id: TableId, admin: &Admin, change: &Change) -> Row {
    let key = match change {
        Change::Put(key, _) | Change::Gone(key, _) => *key,
    };
    let entry = admin.find(key.id).filter(|(it, _)| **it == key).map(|(_, entry)| entry);
    Row { table: id, key: key_bytes(key), value: entry.and_then(|it| wire::encode(it).ok()) }
}

pub(super) fn context_row(id: TableId, admin: &Admin) -> Option<Row> {
    if planted(Fault::ContextIsNotWritten) {
        return None;
    }
    Some(Row { table: id, key: CONTEXT.to_vec(), value: wire::encode(admin.context()).ok() })
}

/// The row of one owner's rows, where the table keeps them on disk.
pub(super) fn part_row(spec: &Spec, owned: &Owned, owner: StorageId) -> Option<Row> {
    let Kind::Owned(Rule::Keep, _) = spec.kind else { return None };
    let boot = owned.heads().into_iter().find(|it| it.0 == owner).map_or(0, |it| it.1);
    let part = owned.delta(Duration::ZERO, owner, boot, 0, usize::MAX);
    Some(Row { table: spec.id, key: owner.0.to_be_bytes().to_vec(), value: part.and_then(|it| wire::encode(&it).ok()) })
}

fn key_bytes(key: Key) -> Vec<u8> {
    let Key { id, birth } = key;
    let mut bytes = id.0.to_be_bytes().to_vec();
    bytes.extend(birth.actor.storage.0.to_be_bytes());
    bytes.extend(birth.actor.boot.to_be_bytes());
    bytes.extend(birth.count.to_be_bytes());
    bytes
}

fn key_of(bytes: &[u8]) -> Option<Key> {
    use crate::replication::admin::InstanceId;
    use crate::replication::dots::Actor;
    use crate::replication::dots::Dot;
    let (id, rest) = bytes.split_first_chunk()?;
    let (storage, rest) = rest.split_first_chunk()?;
    let (boot, rest) = rest.split_first_chunk()?;
    let actor = Actor { storage: StorageId(u128::from_be_bytes(*storage)), boot: u64::from_be_bytes(*boot) };
    let count = u64::from_be_bytes(rest.try_into().ok()?);
    Some(Key { id: InstanceId(u128::from_be_bytes(*id)), birth: Dot { actor, count } })
}

impl Core {
    /// Asks for a batch to be made durable; what is owed then is paid. An empty batch waits for those before it.
    pub(super) fn store(&mut self, batch: Batch, owed: Vec<Owed>, effects: &mut Vec<Effect>) {
        if batch.is_empty() && owed.is_empty() {
            return;
        }
        self.tokens += 1;
        self.owed.insert(self.tokens, owed);
        effects.push(Effect::Store(self.tokens, batch));
    }

    /// Reads everything back.
    pub(super) fn load(&mut self, rows: Batch) -> Result<(), LoadError> {
        for row in rows {
            // A table that this release does not have stays on disk for the one that does.
            let (Some(value), Some(table)) = (row.value, self.tables.get_mut(&row.table)) else { continue };
            let damaged = |source| LoadError::Damaged { table: row.table.0, source };
            let refused = |source| LoadError::Refused { table: row.table.0, source };
            match &mut table.content {
                Content::Admin(admin) if row.key == CONTEXT => {
                    admin.restore_context(wire::decode::<Dots, VALUE_BYTES_MAX>(&value).map_err(damaged)?);
                }
                Content::Admin(admin) => {
                    let key = key_of(&row.key).ok_or(LoadError::Meaningless(row.table.0))?;
                    admin.restore(key, wire::decode::<Entry, VALUE_BYTES_MAX>(&value).map_err(damaged)?);
                }
                Content::Owned(owned) => {
                    let part = wire::decode::<PartDelta, VALUE_BYTES_MAX>(&value).map_err(damaged)?;
                    owned.apply(Duration::ZERO, part).map_err(refused)?;
                }
            }
        }
        for table in self.tables.values() {
            if let Content::Admin(admin) = &table.content {
                self.hlc.saw(admin.latest());
            }
        }
        Ok(())
    }
}
