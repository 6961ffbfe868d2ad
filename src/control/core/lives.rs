//! Which start of each data directory is its latest: what keeps a copy, or a disk brought back from a backup, from voting beside what it is a copy of.
//!
//! Before a voter takes part again it tells each other voter its start number and what that start drew; it goes on once a majority, itself included, has it
//! on disk. Whoever has heard of a later start refuses an earlier one. *Limit:* a copy that reaches only such voters as the original does not reach is
//! not told from a restart; no more can be had without letting one lost voter stop the restart of another.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::base::ids::StorageId;
use crate::base::limits::STORAGES_MAX;
use crate::control::faults::Fault;
use crate::control::faults::planted;
use crate::control::machine::Refusal;

/// One start of a data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// How often it has been started.
    pub boot: u64,
    /// Drawn at that start.
    pub nonce: u64,
}

/// The latest start of each data directory that said so. BOUND: as many as a cluster knows; beyond it a new one is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lives(BTreeMap<StorageId, Life>);

impl Lives {
    /// Takes a start. True: it is news, to be on disk before anybody is told.
    pub fn register(&mut self, storage: StorageId, life: Life) -> Result<bool, Refusal> {
        match self.0.get(&storage) {
            Some(known) if *known == life => return Ok(false),
            Some(known) if life.boot <= known.boot && !planted(Fault::LivesAreForgotten) => {
                return Err(Refusal::Copy { known: known.boot, boot: life.boot });
            }
            None if self.0.len() >= STORAGES_MAX => return Err(Refusal::TooMany(STORAGES_MAX as u64)),
            Some(_) | None => {}
        }
        self.0.insert(storage, life);
        Ok(true)
    }

    /// The latest start.
    #[must_use]
    pub fn get(&self, storage: StorageId) -> Option<Life> {
        self.0.get(&storage).copied()
    }

    /// Whether a new one would be refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() >= STORAGES_MAX
    }

    /// Drops what the cluster does not know.
    pub fn keep(&mut self, is_known: impl Fn(StorageId) -> bool) {
        self.0.retain(|it, _| is_known(*it));
    }
}

/// The registration of one start with the voters.
#[derive(Clone, Debug)]
pub struct Registering {
    me: StorageId,
    voters: BTreeSet<StorageId>,
    accepted: BTreeSet<StorageId>,
}

impl Registering {
    /// With the voters that this disk knows.
    #[must_use]
    pub fn new(me: StorageId, voters: BTreeSet<StorageId>) -> Self {
        Self { me, voters, accepted: BTreeSet::new() }
    }

    /// A voter has it on disk.
    pub fn accepted(&mut self, by: StorageId) {
        self.accepted.insert(by);
    }

    /// Whether this node may take part: a majority knows, or it has no vote.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        let others = self.accepted.intersection(&self.voters).filter(|it| **it != self.me).count();
        !self.voters.contains(&self.me) || (others + 1) * 2 > self.voters.len() || planted(Fault::VotersNeedNotRegister)
    }

    /// Voters that know, this node included, and voters.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.accepted.intersection(&self.voters).count() + 1, self.voters.len())
    }

    /// Whom to tell: also those that are not needed any more.
    pub fn open(&self) -> impl Iterator<Item = StorageId> + '_ {
        let others = self.voters.iter().filter(|it| **it != self.me && !self.accepted.contains(it));
        others.filter(|_| self.voters.contains(&self.me)).copied()
    }
}
