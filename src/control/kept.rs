//! What a data directory keeps of its group beside the group's own rows: how far it is in becoming one of a cluster, and what it told others. And what a person may
//! do to that while the node is stopped.

use super::core::bootstrap::Kept;
use super::core::bootstrap::Stage;
use super::core::lives::Lives;
use super::error::Unusable;
use super::machine::State;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::raft;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::StoreError;
use crate::storage::keys::Key;

pub(super) const GROUP: GroupId = GroupId::CONTROL;
/// Every group that a data directory may be in: a directory that is no longer the one it was is in none of them.
const GROUPS: [GroupId; 2] = [GROUP, GroupId::HISTORY];

/// Whether this release can read what a data directory has of its group. A node must not begin on what it cannot read: it would take part in nothing, or stop in the middle.
/// Blocks on the disk.
pub fn check(store: &Store) -> Result<(), Unusable> {
    store.read::<Kept>(Key::Own(GROUP)).map_err(|error| Unusable(error.to_string()))?;
    raft::check::<State>(store, GROUP).map_err(|error| Unusable(error.to_string()))
}

/// What this data directory keeps of its group, or begins with.
pub(super) fn kept_by(store: &Store, me: StorageId) -> Result<Kept, StoreError> {
    match store.read::<Kept>(Key::Own(GROUP))? {
        Some(kept) if kept.storage == me => Ok(kept),
        other => {
            // What another data directory was in its group, this one is not: it begins as a follower, in the same cluster or in none.
            let only = other.and_then(|it| it.stage.cluster().or(it.only));
            let kept = Kept { storage: me, stage: Stage::Fresh, only, lives: Lives::default() };
            let mut batch = Batch::default();
            GROUPS.into_iter().for_each(|it| raft::clear(it, &mut batch));
            batch.put(Key::Own(GROUP), &kept)?;
            store.write_durably(batch)?;
            Ok(kept)
        }
    }
}

/// Has it on disk.
pub(super) async fn keep(store: &Store, kept: &Kept) -> Result<(), StoreError> {
    let kept = kept.clone();
    let write = move |store: &Store| {
        let mut batch = Batch::default();
        batch.put(Key::Own(GROUP), &kept)?;
        store.write_durably(batch)
    };
    store.on_disk(write).await
}

/// Which data directory this store says it is. None: it has had to do with no group.
pub fn whose(store: &Store) -> Result<Option<StorageId>, StoreError> {
    Ok(store.read::<Kept>(Key::Own(GROUP))?.map(|it| it.storage))
}

/// Takes back the grant that a stopped node's data directory has given. False: it belongs to a cluster. Blocks on the disk.
pub fn reset(store: &Store) -> Result<bool, StoreError> {
    let Some(kept) = store.read::<Kept>(Key::Own(GROUP))? else { return Ok(true) };
    if kept.stage.cluster().is_some() {
        return Ok(false);
    }
    let mut batch = Batch::default();
    batch.put(Key::Own(GROUP), &Kept { stage: Stage::Fresh, ..kept })?;
    store.write_durably(batch)?;
    Ok(true)
}

/// Makes a stopped member's data directory a cluster of its own, with what it has: for when a majority of the voters is lost for good. `draw`: the id of the new
/// cluster; the old one's nodes do not belong to it. None: the directory belongs to no cluster. Blocks on the disk.
pub fn recover(store: &Store, draw: ClusterId) -> Result<Option<ClusterId>, raft::RecoverError> {
    let kept = store.read::<Kept>(Key::Own(GROUP))?;
    let Some(kept) = kept.filter(|it| it.stage.cluster().is_some()) else { return Ok(None) };
    let me = kept.storage;
    let mut batch = Batch::default();
    batch.put(Key::Own(GROUP), &Kept { stage: Stage::Member { cluster: draw }, lives: Lives::default(), ..kept })?;
    raft::recover(store, GROUP, me, batch, |state: &mut State, changes| state.refound(draw, me, changes))?;
    Ok(Some(draw))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::entropy::Entropy;
    use crate::storage::memory::Disk;

    /// A value as a release after this one may write it, and one that was cut short.
    const UNREADABLE: [&[u8]; 3] = [&[2, 0, 0, 0], &[1], &[]];

    fn with(write: impl FnOnce(&mut Batch)) -> Result<(), Unusable> {
        let store = Store::in_memory(Disk::new(Entropy::seeded(1), Duration::ZERO));
        kept_by(&store, StorageId(1)).expect("it is new");
        let mut batch = Batch::default();
        write(&mut batch);
        store.write_durably(batch).expect("it is written");
        check(&store)
    }

    #[test]
    fn what_another_release_wrote_of_a_group_is_told_before_anything_stands_on_it() {
        assert_eq!(with(|_| {}), Ok(()), "nothing yet");
        let keys = [
            Key::Own(GROUP),
            Key::Vote(GROUP),
            Key::Committed(GROUP),
            Key::Purged(GROUP),
            Key::Applied(GROUP),
            Key::Membership(GROUP),
            Key::Snapshot(GROUP),
            Key::Entry(GROUP, 1),
        ];
        for key in keys {
            for bytes in UNREADABLE {
                let told = with(|it| it.put_raw(key, bytes.to_vec())).expect_err("it cannot be read").to_string();
                assert!(told.contains("use the release that wrote it"), "{key:?}: {told}");
            }
        }
        let other = Key::Own(GroupId(GROUP.0 + 1));
        assert_eq!(with(|it| it.put_raw(other, vec![2])), Ok(()), "another group's is its own to tell");
    }
}
