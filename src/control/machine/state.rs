//! What the commands have made. Ground state is the log; this is derived from it and can be made again, from the log or from its rows.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::command::Command;
use super::command::MINT_SHARES_MAX;
use super::command::NAME_BYTES_MAX;
use super::command::Outcome;
use super::command::Refusal;
use super::command::Register;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::limits::DROPPED_MAX;
use crate::base::limits::FORGOTTEN_MAX;
use crate::base::limits::MINTS_BYTES_MAX;
use crate::base::limits::MINTS_MAX;
use crate::base::limits::STORAGES_MAX;
use crate::control::faults::Fault;
use crate::control::faults::planted;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::raft::Coded as _;
use crate::raft::Machine;
use crate::raft::RowChange;
use crate::raft::Rows;
use crate::raft::Unreadable;
use crate::storage::GroupId;
use crate::storage::codec;

/// A data directory that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its latest start.
    pub boot: u64,
    /// What that start drew.
    pub nonce: u64,
    /// Where in the log it was first registered.
    pub since: u64,
    /// The node it belongs to.
    pub node: String,
    /// Where that stands; empty: it does not say.
    pub zone: String,
    /// The highest level that its release can work at.
    pub level_max: u32,
}

/// What there is one of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    cluster: Option<ClusterId>,
    level: u32,
    /// Highest epoch of any mint that was dropped: the same limit, made anew, begins above it.
    dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Minted {
    mint: Mint,
    /// Where in the log that was.
    at: u64,
}

impl Minted {
    /// As its row has it.
    fn bytes_len(&self) -> usize {
        codec::encode(self).map_or(usize::MAX, |it| it.len())
    }
}

/// What became of a limit's shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintChange {
    /// These are the last ones.
    Put(Mint),
    /// There is no such limit any more.
    Dropped(LimitId),
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    head: Head,
    storages: BTreeMap<StorageId, Registration>,
    /// And where in the log that was.
    forgotten: BTreeMap<StorageId, u64>,
    mints: BTreeMap<LimitId, Minted>,
    /// Limits that there are no more, and where in the log that was.
    dropped: BTreeMap<LimitId, u64>,
    /// Where other groups began.
    groups: BTreeMap<GroupId, StorageId>,
    /// Derived: bytes of all mints.
    mint_bytes: usize,
    /// Derived: what was last done to the shares of which limit, by where in the log that was.
    mint_log: BTreeMap<u64, LimitId>,
}

/// One row: its kind is the first byte of its key and never another's.
enum Key {
    Head,
    Storage(StorageId),
    Forgotten(StorageId),
    Mint(LimitId),
    Dropped(LimitId),
    Group(GroupId),
}

impl Key {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Head => vec![1],
            Self::Storage(it) => [&[2], &it.0.to_be_bytes()[..]].concat(),
            Self::Forgotten(it) => [&[3], &it.0.to_be_bytes()[..]].concat(),
            Self::Mint(it) => [&[4], &it.0.to_be_bytes()[..]].concat(),
            Self::Dropped(it) => [&[5], &it.0.to_be_bytes()[..]].concat(),
            Self::Group(it) => [&[6], &it.0.to_be_bytes()[..]].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let storage = |rest: &[u8]| Some(StorageId(u128::from_be_bytes(rest.try_into().ok()?)));
        let limit = |rest: &[u8]| Some(LimitId(u64::from_be_bytes(rest.try_into().ok()?)));
        match bytes.split_first()? {
            (1, []) => Some(Self::Head),
            (2, rest) => storage(rest).map(Self::Storage),
            (3, rest) => storage(rest).map(Self::Forgotten),
            (4, rest) => limit(rest).map(Self::Mint),
            (5, rest) => limit(rest).map(Self::Dropped),
            (6, rest) => Some(Self::Group(GroupId(u16::from_be_bytes(rest.try_into().ok()?)))),
            _ => None,
        }
    }
}

/// Other groups of a cluster. Each costs heartbeats, fsyncs and a part of memory of its own.
const GROUPS_MAX: usize = 16;

type Changes = Vec<RowChange>;

fn put<T: Serialize>(changes: &mut Changes, key: &Key, value: &T) {
    // Every type of a row has an encoding, and none comes near the codec's bound.
    let value = codec::encode(value).expect("rows have an encoding");
    changes.push((key.encode(), Some(value)));
}

impl Machine for State {
    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
        fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, Unreadable> {
            codec::decode(value).map_err(|_damage| Unreadable)
        }
        match Key::decode(key).ok_or(Unreadable)? {
            Key::Head => self.head = read(value)?,
            Key::Storage(storage) => drop(self.storages.insert(storage, read(value)?)),
            Key::Forgotten(storage) => drop(self.forgotten.insert(storage, read(value)?)),
            Key::Mint(limit) => {
                let minted: Minted = read(value)?;
                self.mint_bytes += minted.bytes_len();
                self.mint_log.insert(minted.at, limit);
                self.mints.insert(limit, minted);
            }
            Key::Dropped(limit) => {
                let at = read(value)?;
                self.mint_log.insert(at, limit);
                self.dropped.insert(limit, at);
            }
            Key::Group(group) => drop(self.groups.insert(group, read(value)?)),
        }
        Ok(())
    }

    fn step(&mut self, _: &dyn Rows, index: u64, command: &[u8], changes: &mut Changes) -> Result<Vec<u8>, Unreadable> {
        let outcome = self.decide(index, Command::decode(command)?, changes);
        outcome.encode().map_err(|_bug| Unreadable)
    }
}

// === what is decided ===

impl State {
    /// Takes one command; says in `changes` which rows are now otherwise. `index`: its place in the log.
    pub fn decide(&mut self, index: u64, command: Command, changes: &mut Changes) -> Outcome {
        let needs = command.level();
        match (self.head.cluster, &command) {
            (None, Command::Found { .. }) => {}
            (None, _) => return Outcome::Refused(Refusal::NotFounded),
            (Some(_), _) if needs > self.head.level => return Outcome::Refused(Refusal::LevelTooLow(needs)),
            (Some(_), _) => {}
        }
        let decided = match command {
            Command::Found { cluster, level } => self.found(cluster, level, changes),
            Command::Register(register) => self.register(index, register, changes),
            Command::Forget { storage } => self.forget(index, storage, changes),
            Command::PutMint { seen, mint } => self.put_mint(index, seen, mint, changes),
            Command::DropMint { limit, seen } => self.drop_mint(index, limit, seen, changes),
            Command::RaiseLevel { to } => self.raise(to, changes),
            Command::BeginGroup { group, at } => self.begin_group(group, at, changes),
        };
        match decided {
            Ok(true) => Outcome::Changed,
            Ok(false) => Outcome::Unchanged,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn found(&mut self, cluster: ClusterId, level: u32, changes: &mut Changes) -> Result<bool, Refusal> {
        match self.head.cluster {
            Some(known) if known == cluster => return Ok(false),
            Some(known) => return Err(Refusal::OtherCluster(known)),
            None => {}
        }
        self.head = Head { cluster: Some(cluster), level, dropped: 0 };
        put(changes, &Key::Head, &self.head);
        Ok(true)
    }

    fn register(&mut self, index: u64, register: Register, changes: &mut Changes) -> Result<bool, Refusal> {
        let Register { storage, boot, nonce, node, zone, level_max } = register;
        if self.forgotten.contains_key(&storage) {
            return Err(Refusal::Forgotten);
        }
        if level_max < self.head.level {
            return Err(Refusal::TooOld(self.head.level));
        }
        if let Some(long) = [&node, &zone].map(String::len).into_iter().find(|it| *it > NAME_BYTES_MAX) {
            return Err(Refusal::TooLong(long as u64));
        }
        let known = self.storages.get(&storage);
        if let Some(known) = known {
            let is_copy = boot < known.boot || boot == known.boot && nonce != known.nonce;
            if is_copy && !planted(Fault::CopiesRegister) {
                return Err(Refusal::Copy { known: known.boot, boot });
            }
        } else if self.storages.len() >= STORAGES_MAX {
            return Err(Refusal::TooMany(STORAGES_MAX as u64));
        }
        let since = known.map_or(index, |it| it.since);
        let now = Registration { boot, nonce, since, node, zone, level_max };
        if known == Some(&now) {
            return Ok(false);
        }
        put(changes, &Key::Storage(storage), &now);
        self.storages.insert(storage, now);
        Ok(true)
    }

    fn forget(&mut self, index: u64, storage: StorageId, changes: &mut Changes) -> Result<bool, Refusal> {
        if self.forgotten.contains_key(&storage) {
            return Ok(false);
        }
        if self.storages.remove(&storage).is_none() {
            return Err(Refusal::Unknown);
        }
        changes.push((Key::Storage(storage).encode(), None));
        if self.forgotten.len() >= FORGOTTEN_MAX {
            // The one that was forgotten first is the least likely to come back; if it does, it is a learner like any other.
            let oldest = self.forgotten.iter().min_by_key(|it| *it.1).map(|it| *it.0);
            if let Some(oldest) = oldest {
                self.forgotten.remove(&oldest);
                changes.push((Key::Forgotten(oldest).encode(), None));
            }
        }
        put(changes, &Key::Forgotten(storage), &index);
        self.forgotten.insert(storage, index);
        Ok(true)
    }

    fn put_mint(&mut self, index: u64, seen: u64, mint: Mint, changes: &mut Changes) -> Result<bool, Refusal> {
        let limit = mint.limit;
        let known = self.mints.get(&limit);
        if known.is_some_and(|it| it.mint == mint) {
            return Ok(false);
        }
        let current = known.map_or(0, |it| it.mint.epoch);
        let floor = known.map_or(self.head.dropped, |it| it.mint.epoch);
        let is_stale = seen != current || mint.epoch <= floor;
        if is_stale && !planted(Fault::MintsOverwrite) {
            return Err(Refusal::Stale(floor));
        }
        let is_sound = mint.shares.len() <= MINT_SHARES_MAX && mint.check(known.map(|it| &it.mint)).is_ok();
        if !is_sound && !planted(Fault::MintsAreNotChecked) {
            return Err(Refusal::Unsound(limit));
        }
        if known.is_none() && self.mints.len() >= MINTS_MAX {
            return Err(Refusal::TooMany(MINTS_MAX as u64));
        }
        let new = Minted { mint, at: index };
        let bytes = self.mint_bytes - known.map_or(0, Minted::bytes_len) + new.bytes_len();
        if bytes > MINTS_BYTES_MAX {
            return Err(Refusal::TooLong(bytes as u64));
        }
        self.mint_bytes = bytes;
        put(changes, &Key::Mint(limit), &new);
        if let Some(before) = self.mints.insert(limit, new) {
            self.mint_log.remove(&before.at);
        }
        if let Some(at) = self.dropped.remove(&limit) {
            self.mint_log.remove(&at);
            changes.push((Key::Dropped(limit).encode(), None));
        }
        self.mint_log.insert(index, limit);
        Ok(true)
    }

    fn drop_mint(&mut self, index: u64, limit: LimitId, seen: u64, changes: &mut Changes) -> Result<bool, Refusal> {
        let Some(known) = self.mints.get(&limit) else { return Ok(false) };
        if known.mint.epoch != seen {
            return Err(Refusal::Stale(known.mint.epoch));
        }
        self.mint_bytes -= known.bytes_len();
        self.head.dropped = self.head.dropped.max(known.mint.epoch);
        self.mint_log.remove(&known.at);
        self.mints.remove(&limit);
        changes.push((Key::Mint(limit).encode(), None));
        put(changes, &Key::Head, &self.head);
        if self.dropped.len() >= DROPPED_MAX {
            let oldest = self.dropped.iter().min_by_key(|it| *it.1).map(|it| (*it.0, *it.1));
            if let Some((oldest, at)) = oldest {
                self.dropped.remove(&oldest);
                self.mint_log.remove(&at);
                changes.push((Key::Dropped(oldest).encode(), None));
            }
        }
        put(changes, &Key::Dropped(limit), &index);
        self.dropped.insert(limit, index);
        self.mint_log.insert(index, limit);
        Ok(true)
    }

    fn raise(&mut self, to: u32, changes: &mut Changes) -> Result<bool, Refusal> {
        if to <= self.head.level {
            return Ok(false);
        }
        let behind = self.storages.iter().find(|it| it.1.level_max < to).map(|it| *it.0);
        if let Some(behind) = behind.filter(|_| !planted(Fault::LevelsRiseAlone)) {
            return Err(Refusal::HeldBack(behind));
        }
        self.head.level = to;
        put(changes, &Key::Head, &self.head);
        Ok(true)
    }
}

impl State {
    fn begin_group(&mut self, group: GroupId, at: StorageId, changes: &mut Changes) -> Result<bool, Refusal> {
        if !self.storages.contains_key(&at) {
            return Err(Refusal::Unknown);
        }
        if self.groups.contains_key(&group) {
            return Ok(false);
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(Refusal::TooMany(GROUPS_MAX as u64));
        }
        put(changes, &Key::Group(group), &at);
        self.groups.insert(group, at);
        Ok(true)
    }
}

// === what a person decides about a stopped node ===

impl State {
    /// Goes on as another cluster, with `me` alone: all others belong to the one that is lost. Shares, the level and who was forgotten stay.
    pub fn refound(&mut self, cluster: ClusterId, me: StorageId, changes: &mut Changes) {
        self.head.cluster = Some(cluster);
        put(changes, &Key::Head, &self.head);
        let others: Vec<StorageId> = self.storages.keys().copied().filter(|it| *it != me).collect();
        for other in others {
            self.storages.remove(&other);
            changes.push((Key::Storage(other).encode(), None));
        }
        for (group, at) in &mut self.groups {
            *at = me;
            put(changes, &Key::Group(*group), at);
        }
    }
}

// === what is read ===

impl State {
    /// Which cluster this is, once it was founded.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.head.cluster
    }

    /// The level it works at.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.head.level
    }

    /// The highest level that every data directory that takes part can work at.
    #[must_use]
    pub fn level_in_reach(&self) -> u32 {
        self.storages.values().map(|it| it.level_max).min().unwrap_or(self.head.level).max(self.head.level)
    }

    /// The data directories that take part.
    #[must_use]
    pub fn storages(&self) -> &BTreeMap<StorageId, Registration> {
        &self.storages
    }

    /// Whether it was said not to come back.
    #[must_use]
    pub fn is_forgotten(&self, storage: StorageId) -> bool {
        self.forgotten.contains_key(&storage)
    }

    /// At which data directory another group began; None: it has not.
    #[must_use]
    pub fn began_at(&self, group: GroupId) -> Option<StorageId> {
        self.groups.get(&group).copied()
    }

    /// The shares of a limit.
    #[must_use]
    pub fn mint(&self, limit: LimitId) -> Option<&Mint> {
        self.mints.get(&limit).map(|it| &it.mint)
    }

    /// What was last done to the shares of limits after an entry of the log, oldest first, and by which entry. What a later entry replaced is left out.
    pub fn mints_after(&self, entry: u64) -> impl Iterator<Item = (u64, MintChange)> {
        self.mint_log.range(entry.saturating_add(1)..).map(|(at, limit)| {
            let put = self.mints.get(limit).map(|it| MintChange::Put(it.mint.clone()));
            (*at, put.unwrap_or(MintChange::Dropped(*limit)))
        })
    }

    /// Highest epoch of any limit that was dropped. One that is made anew begins above it.
    #[must_use]
    pub fn epoch_dropped(&self) -> u64 {
        self.head.dropped
    }
}
