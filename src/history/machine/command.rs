//! What can be asked of the machine, and what it answers. Both travel and lie on disk: a version byte, then a variant; variants and fields are only added at the end, with a feature level.

use serde::Deserialize;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::history::Id;
use crate::history::Item;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::Status;
use crate::raft::Coded;

/// Names a command, however often it is proposed. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandId(pub u128);

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which command.
    pub id: CommandId,
    /// How many commands had been carried out, as far as was known where this one was first proposed: [`super::read::commands`].
    pub seen: u64,
    /// What is asked.
    pub command: Command,
}

/// See [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Something of an owner's.
    Of {
        /// Whose.
        owner: Owner,
        /// How much it may keep.
        room: Room,
        /// What.
        act: Box<Act>,
    },
    /// A part of a command that is too long for an entry.
    Part {
        /// Of which. Random.
        upload: u128,
        /// Which part, from 0 on.
        at: u32,
        /// Its bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The parts, one after the other, are a [`Command::Of`], encoded.
    Run {
        /// Of which.
        upload: u128,
        /// How many parts it has.
        parts: u32,
    },
    /// A node lives that makes responses, or wants to.
    Renew {
        /// Its lease. Another one than before ends the one before.
        lease: Lease,
        /// Grows with each renewal.
        beat: u64,
    },
    /// Nothing was heard of it since this beat: what it makes is nobody's.
    Lapse {
        /// Which.
        lease: Lease,
        /// The last beat that was heard.
        beat: u64,
    },
    /// What expires until now goes.
    Expire {
        /// Milliseconds since 1970 by the leader's clock.
        now_ms: u64,
    },
    /// Rows of an export are put in, where nothing is kept yet. Until the last of them nothing else is taken.
    Restore {
        /// Rows before these.
        at: u64,
        /// Key and value.
        rows: Vec<(ByteBuf, ByteBuf)>,
        /// Whether these are the last ones.
        is_last: bool,
    },
}

/// What an owner may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes. Beyond it nothing new is taken; what began may end.
    pub bytes_max: u64,
}

/// See [`Command::Of`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// A response begins.
    Begin(Box<Begin>),
    /// It ends.
    Finish(Finish),
    /// Its client wants no more of it.
    Cancel {
        /// Which.
        response: Id,
    },
    /// It goes, and all that is its own.
    DeleteResponse {
        /// Which.
        response: Id,
    },
    /// Events of a background response, for those who follow it.
    Events {
        /// Which.
        response: Id,
        /// By which attempt.
        attempt: u32,
        /// The number of the first.
        first: u64,
        /// Opaque.
        #[serde(with = "crate::base::byte_lists")]
        events: Vec<Vec<u8>>,
    },
    /// What nobody makes any more is taken over.
    Claim {
        /// Which.
        response: Id,
        /// By whom.
        lease: Lease,
    },
    /// A conversation is made.
    CreateConversation {
        /// Its name.
        conversation: Id,
        /// For people.
        created_ms: u64,
        /// JSON.
        #[serde(with = "serde_bytes")]
        metadata: Vec<u8>,
        /// Its first items.
        items: Vec<Item>,
        /// Makes the request that made it idempotent.
        key: Option<Idempotency>,
        /// When it goes by itself.
        expires_ms: Option<u64>,
    },
    /// Its metadata are others.
    UpdateConversation {
        /// Which.
        conversation: Id,
        /// JSON.
        #[serde(with = "serde_bytes")]
        metadata: Vec<u8>,
    },
    /// It goes, with its items. Responses that name it stay.
    DeleteConversation {
        /// Which.
        conversation: Id,
    },
    /// Items are added to it.
    AddItems {
        /// Which.
        conversation: Id,
        /// In order.
        items: Vec<Item>,
        /// Makes the request idempotent.
        key: Option<Idempotency>,
    },
    /// An item goes.
    DeleteItem {
        /// Of which.
        conversation: Id,
        /// Which.
        item: Id,
    },
}

/// See [`Act::Begin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Its name.
    pub response: Id,
    /// For people.
    pub created_ms: u64,
    /// What it continues.
    pub previous: Option<Id>,
    /// Where its items go once it has ended.
    pub conversation: Option<Id>,
    /// Its own input, without what came before.
    pub input: Vec<Item>,
    /// JSON, as it is shown, without status, input and output.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Under which lease it is made. None: where only one node writes, and what it leaves when it dies is ended at its next start.
    pub lease: Option<Lease>,
    /// Whether its client waits for it.
    pub is_background: bool,
    /// Makes the request idempotent.
    pub key: Option<Idempotency>,
    /// When it goes by itself.
    pub expires_ms: Option<u64>,
}

/// See [`Act::Finish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Which.
    pub response: Id,
    /// By which attempt, if it is made under a lease.
    pub attempt: Option<u32>,
    /// How it ended.
    pub status: Status,
    /// JSON, as [`Begin::body`].
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// What was made.
    pub output: Vec<Item>,
}

/// A client's key for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// As the client sent it.
    pub key: String,
    /// Of the request: another one with the same key is refused.
    pub fingerprint: u128,
    /// When it is forgotten.
    pub expires_ms: u64,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It did what it says.
    Done,
    /// It was so already.
    Unchanged,
    /// Another request with the same key made this.
    Known(Id),
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The owner has no such record. The client's doing, or it was deleted.
    #[error("there is no `{0}`")]
    NotFound(Id),
    /// The client's doing: a conversation has an item of that name. For others: a bug.
    #[error("there is a `{0}` already")]
    Exists(Id),
    /// The client's doing.
    #[error("`{0}` has not ended: wait for it, or cancel it")]
    Unfinished(Id),
    /// It has ended, so it cannot end again.
    #[error("it has ended: {}", .0.as_str())]
    Ended(Status),
    /// The key was sent with another request. The client's doing.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// The client's doing, or an operator's who allows little.
    #[error(
        "what this tenant keeps is at its limit of bytes: {0}. Delete responses or conversations, or have the limit raised"
    )]
    Full(u64),
    /// More than may be.
    #[error("more than may be, {0}")]
    TooMany(u64),
    /// Another attempt makes it now. Whoever is told this stops.
    #[error("another attempt has taken over")]
    Stale,
    /// Whoever makes it lives.
    #[error("it is being made")]
    Owned,
    /// Whoever makes a response must have a lease.
    #[error("no lease is held")]
    NoLease,
    /// An event or a part is missing before it. The proposer's bug, or it waited too long.
    #[error("what comes before is missing; expected number {0}")]
    Gap(u64),
    /// So many commands came since that nobody knows whether it was carried out.
    #[error("the command is too old")]
    TooOld,
    /// An export is being put in. Whoever does it goes on, or begins again in an empty place.
    #[error("an export is being put in here; {0} rows are")]
    Restoring(u64),
    /// An export is only put in where nothing is kept.
    #[error("there is history here already: an export can only be imported where there is none")]
    NotEmpty,
    /// It is none that this release makes. The proposer's bug.
    #[error("the command is not sound")]
    Unsound,
}

impl Coded for Entry {}

impl Coded for Outcome {}
