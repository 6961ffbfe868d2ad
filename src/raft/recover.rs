//! A group of one out of what a stopped member has: the way on when a majority is lost for good.
//!
//! It takes everything that lies on this disk for decided, also entries that no majority may have had: giving up what somebody was told is worse than keeping
//! what nobody was. What only the lost members had is gone. The log is put away behind a snapshot, so that whoever joins gets the state whole.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use openraft::CommittedLeaderId;
use openraft::EmptyNode;
use openraft::Entry;
use openraft::EntryPayload;
use openraft::Membership;
use openraft::Vote;

use super::LogId;
use super::Machine;
use super::RowChange;
use super::TypeConfig;
use super::Unreadable;
use super::clear;
use super::state_machine::Kept;
use super::state_machine::SnapshotMeta;
use super::state_machine::StateError;
use super::state_machine::StateMachine;
use super::state_machine::StoredMembership;
use super::state_machine::restored;
use crate::base::ids::StorageId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::GroupRow;
use crate::storage::Store;
use crate::storage::StoreError;
use crate::storage::codec;
use crate::storage::keys::Key;

/// Why a group was not recovered. The disk's fault, or this release is too old. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in it.
    #[error("the group's state holds what this release cannot read")]
    Unreadable(#[from] Unreadable),
    /// A state that was on its way from another member has not come whole.
    #[error("a snapshot was being put in place, and cannot be finished: {0}")]
    Unfinished(String),
}

/// Makes `me` the only member. `settle` has the last word on the state. All or nothing is written; blocks on the disk.
pub fn recover<M: Machine>(
    store: &Store,
    group: GroupId,
    me: StorageId,
    also: Batch,
    settle: impl FnOnce(&mut M, &mut Vec<RowChange>),
) -> Result<(), RecoverError> {
    if M::IS_ITS_ROWS {
        return recover_rows::<M>(store, group, me, also);
    }
    let rows = store.group_rows(group)?;
    let mut machine: M = restored(&rows)?;
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = rows.into_iter().collect();
    let mut last = store.read::<LogId>(Key::Applied(group))?;
    for entry in store.scan::<Entry<TypeConfig>>(Key::Entry(group, last.map_or(0, |it| it.index + 1))) {
        let entry = entry?.1;
        if let EntryPayload::Normal(command) = entry.payload {
            let mut changes = Vec::new();
            machine.step(&rows, entry.log_id.index, &command.0, &mut changes)?;
            change(&mut rows, changes);
        }
        last = Some(entry.log_id);
    }
    let mut changes = Vec::new();
    settle(&mut machine, &mut changes);
    change(&mut rows, changes);
    let Alone { vote, at, membership } = alone(store, group, me, last)?;
    let rows: Vec<GroupRow> = rows.into_iter().collect();
    let snapshot = codec::encode(&rows).map_err(StoreError::from)?;
    let meta = SnapshotMeta { snapshot_id: at.to_string(), last_log_id: Some(at), last_membership: membership.clone() };
    let mut batch = also;
    clear(group, &mut batch);
    rows.into_iter().for_each(|(key, value)| batch.put_group_row(group, &key, Some(value)));
    batch.put(Key::Vote(group), &vote)?;
    batch.put(Key::Purged(group), &at)?;
    batch.put(Key::Applied(group), &at)?;
    batch.put(Key::Membership(group), &membership)?;
    batch.put(Key::Snapshot(group), &Kept { meta, rows: snapshot })?;
    Ok(store.write_durably(batch)?)
}

/// What makes `me` the only member.
struct Alone {
    vote: Vote<StorageId>,
    at: LogId,
    membership: StoredMembership,
}

/// `last`: the last entry that the state has.
fn alone(store: &Store, group: GroupId, me: StorageId, last: Option<LogId>) -> Result<Alone, StoreError> {
    let vote: Vote<StorageId> = store.read(Key::Vote(group))?.unwrap_or_default();
    let term = vote.leader_id().term.max(last.map_or(0, |it| it.leader_id.term)) + 1;
    let at = LogId::new(CommittedLeaderId::new(term, me), last.map_or(0, |it| it.index + 1));
    let alone: Membership<StorageId, EmptyNode> = Membership::new(vec![BTreeSet::from([me])], None);
    Ok(Alone { vote: Vote::new(term, me), at, membership: StoredMembership::new(Some(at), alone) })
}

/// The same where the state is its rows: entries that it has not got yet go in one by one, as they would have, and the rows stay where they are.
fn recover_rows<M: Machine>(store: &Store, group: GroupId, me: StorageId, also: Batch) -> Result<(), RecoverError> {
    let last =
        StateMachine::<M>::open(store.clone(), group).and_then(|it| it.catch_up()).map_err(|error| match error {
            StateError::Unreadable(error) => RecoverError::Unreadable(error),
            StateError::Store(error) => RecoverError::Store(error),
            StateError::Exchange(_) | StateError::File(_) => RecoverError::Unfinished(error.to_string()),
        })?;
    let Alone { vote, at, membership } = alone(store, group, me, last)?;
    let meta = SnapshotMeta { snapshot_id: at.to_string(), last_log_id: Some(at), last_membership: membership.clone() };
    let mut batch = also;
    batch.delete_from(Key::Entry(group, 0), None);
    batch.delete(Key::Committed(group));
    batch.put(Key::Vote(group), &vote)?;
    batch.put(Key::Purged(group), &at)?;
    batch.put(Key::Applied(group), &at)?;
    batch.put(Key::Membership(group), &membership)?;
    batch.put(Key::Snapshot(group), &Kept { meta, rows: Vec::new() })?;
    Ok(store.write_durably(batch)?)
}

fn change(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Vec<RowChange>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(rows.insert(key, value)),
            None => drop(rows.remove(&key)),
        }
    }
}
