//! What is kept. These lie on disk: fields are only added at the end, with a feature level (ADR 17).

use serde::Deserialize;
use serde::Serialize;

use super::Id;
use crate::base::ids::StorageId;

/// How a response stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// In the background, not begun.
    Queued,
    /// Begun.
    InProgress,
    /// Ended well.
    Completed,
    /// Ended by a fault. What was made before is kept.
    Failed,
    /// Ended early: a limit of tokens, a filter.
    Incomplete,
    /// Ended by its client.
    Cancelled,
}

impl Status {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Self::Queued | Self::InProgress => false,
            Self::Completed | Self::Failed | Self::Incomplete | Self::Cancelled => true,
        }
    }

    /// As clients see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Under what a node makes responses. Ordered: a later one of a data directory ends those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease {
    /// Its data directory.
    pub storage: StorageId,
    /// How often that has been started.
    pub boot: u64,
    /// Counts the leases of that start: one that lapsed is followed by another.
    pub number: u64,
}

/// Who makes a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Counts takeovers. Only writes of the last one are taken.
    pub attempt: u32,
    /// Under which lease.
    pub lease: Lease,
}

/// A response, without its body and its items, which are rows of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// When it was made, in milliseconds since 1970, by the clock of the node that made it. For people.
    pub created_ms: u64,
    /// How it stands.
    pub status: Status,
    /// What it continues.
    pub previous: Option<Id>,
    /// Responses before it in its chain.
    pub depth: u32,
    /// Where its items go once it has ended.
    pub conversation: Option<Id>,
    /// Items of its input.
    pub inputs: u32,
    /// Items of its output.
    pub outputs: u32,
    /// Events that can be followed.
    pub events: u64,
    /// Whether its client waits for it.
    pub is_background: bool,
    /// Who makes it.
    pub job: Option<Job>,
    /// When it goes by itself.
    pub expires_ms: Option<u64>,
    /// What its rows take, in bytes.
    pub bytes: u64,
}

/// A conversation, without its items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// When it was made. For people.
    pub created_ms: u64,
    /// What its client noted: JSON. Opaque here.
    #[serde(with = "serde_bytes")]
    pub metadata: Vec<u8>,
    /// Place of the next item. Never given again.
    pub next: u64,
    /// Items that it has.
    pub items: u32,
    /// When it goes by itself.
    pub expires_ms: Option<u64>,
    /// What its rows take, in bytes.
    pub bytes: u64,
}

/// One item: a message, a call of a tool, its result, reasoning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its name.
    pub id: Id,
    /// JSON. Opaque here.
    #[serde(with = "serde_bytes")]
    pub json: Vec<u8>,
}

/// What an owner keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Responses.
    pub responses: u64,
    /// Conversations.
    pub conversations: u64,
    /// Bytes of all of it, keys not counted.
    pub bytes: u64,
}
