//! What can be asked of the machine, and what it answers. Both travel and lie on disk: a version byte, then a variant; variants and fields are only added
//! at the end, and a new one has a feature level below which it is refused.

use serde::Deserialize;
use serde::Serialize;

use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::mint::SHARES_LEN_MAX;
use crate::raft::COMMAND_BYTES_MAX;
use crate::raft::Coded;
use crate::storage::GroupId;

/// Longest name of a node or a zone.
pub const NAME_BYTES_MAX: usize = 64;
/// Shares in one mint: as many as a limit is divided over, and as many that are on their way out.
pub const MINT_SHARES_MAX: usize = 2 * SHARES_LEN_MAX;
/// The most that one of them takes: sixteen bytes of a name and three numbers, each with its length.
const SHARE_BYTES_MAX: usize = 48;

const _: () = assert!(MINT_SHARES_MAX * SHARE_BYTES_MAX + 128 < COMMAND_BYTES_MAX);

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The cluster begins. The first one counts.
    Found {
        /// Drawn by the founder.
        cluster: ClusterId,
        /// The level it begins at.
        level: u32,
    },
    /// A data directory has been started.
    Register(Register),
    /// A data directory will not come back.
    Forget {
        /// Which.
        storage: StorageId,
    },
    /// The shares of a limit are given out anew, if nobody did since.
    PutMint {
        /// The epoch that the proposer knew; 0: none.
        seen: u64,
        /// The shares. Their epoch is higher than any that the limit had.
        mint: Mint,
    },
    /// There is no such limit any more, if nobody gave out its shares since.
    DropMint {
        /// Which.
        limit: LimitId,
        /// The epoch that the proposer knew.
        seen: u64,
    },
    /// From here on the cluster works at this level.
    RaiseLevel {
        /// Never lower than before.
        to: u32,
    },
    /// Another group of this cluster begins, at one data directory. The first one counts: two that began would decide apart.
    BeginGroup {
        /// Which group.
        group: GroupId,
        /// Whose directory.
        at: StorageId,
    },
}

/// See [`Command::Register`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Which.
    pub storage: StorageId,
    /// How often it has been started.
    pub boot: u64,
    /// Drawn at this start: two processes on copies of one directory differ in it.
    pub nonce: u64,
    /// The node it belongs to.
    pub node: String,
    /// Where that stands; empty: it does not say.
    pub zone: String,
    /// The highest level that its release can work at.
    pub level_max: u32,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It changed the state.
    Changed,
    /// The state was already so.
    Unchanged,
    /// It was refused; nothing was changed.
    Refused(Refusal),
}

/// Why a command was refused. All are the asker's to mend, and asking the same again gives the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is no cluster yet.
    #[error("the cluster has not been founded")]
    NotFounded,
    /// There is one, and it is another.
    #[error("this is cluster {0}")]
    OtherCluster(ClusterId),
    /// A later start of that data directory is known, or another of the same number.
    #[error(
        "this data directory is a copy or an old backup (start {known} of it is known, this is {boot}); rejoin with `smg mesh bootstrap --new-storage`"
    )]
    Copy {
        /// The latest start that is known.
        known: u64,
        /// The one that was refused.
        boot: u64,
    },
    /// Somebody said that it will not come back.
    #[error("this data directory was forgotten (`smg members forget`); rejoin with `smg mesh bootstrap --new-storage`")]
    Forgotten,
    /// Its release cannot work at the cluster's level.
    #[error("the cluster works at feature level {0}, which this release does not know; use a newer one")]
    TooOld(u32),
    /// The level cannot be raised while this data directory's node runs an older release.
    #[error("{0} runs a release that does not know that level; upgrade its node, or forget it")]
    HeldBack(StorageId),
    /// The command is of a higher level than the cluster's.
    #[error("needs feature level {0}; raise it with `smg upgrade finalize` when every node runs the new release")]
    LevelTooLow(u32),
    /// No such data directory.
    #[error("no such data directory is registered")]
    Unknown,
    /// Somebody else was first.
    #[error("the limit's shares were given out anew since: epoch {0}")]
    Stale(u64),
    /// As many as may be are kept.
    #[error("there are as many as may be: {0}")]
    TooMany(u64),
    /// A name or a mint is longer than may be.
    #[error("longer than may be: {0} bytes")]
    TooLong(u64),
    /// The shares are not what may follow the ones before. The proposer's bug.
    #[error("the limit's shares do not follow the ones before: {0}")]
    Unsound(LimitId),
}

impl Command {
    /// The level that it needs.
    #[must_use]
    pub fn level(&self) -> u32 {
        match self {
            Self::Found { .. }
            | Self::Register(_)
            | Self::Forget { .. }
            | Self::PutMint { .. }
            | Self::DropMint { .. }
            | Self::RaiseLevel { .. } => 1,
            Self::BeginGroup { .. } => 2,
        }
    }
}

impl Coded for Command {}

impl Coded for Outcome {}
