//! What nodes say to each other about tables. A frame is `transport::wire`'s version byte, then one [`Message`].
//!
//! Variants and fields are only added at the end; anything else takes another version byte.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::admin::Change;
use super::admin::Key;
use super::admin::Slice;
use super::dots::Dots;
use super::owned::Head;
use super::owned::PartDelta;
use super::tables::TableId;
use crate::transport::wire;
use crate::transport::wire::WireError;

/// Largest frame that is read. A slice has at most a chunk and one entry; a context has its bound.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// See the file's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// How the sender's tables stand. Whoever differs asks.
    Digest {
        /// An answer is not answered again.
        is_answer: bool,
        /// The sender's wall clock.
        wall: Duration,
        /// Table and digest.
        tables: Vec<(TableId, u128)>,
    },
    /// An admin edit, to every member.
    Push {
        /// Numbers it for [`Message::Ack`]; 0: passed on by another than its writer, not acknowledged.
        push: u64,
        /// One event for each change.
        changes: Vec<(TableId, Change)>,
    },
    /// The push is on this disk.
    Ack {
        /// Which.
        push: u64,
    },
    /// Asks for what is missing of an admin table.
    Pull {
        /// Which table.
        table: TableId,
        /// Comes back with the answer.
        nonce: u64,
        /// What the asker knows.
        known: Dots,
        /// Begin after this.
        after: Option<Key>,
    },
    /// Answers a pull.
    Slice {
        /// Which table.
        table: TableId,
        /// The question's.
        nonce: u64,
        /// What was missing.
        slice: Slice,
    },
    /// Asks for what is missing of an owned table.
    PullParts {
        /// Which table.
        table: TableId,
        /// How far the asker is.
        heads: Vec<Head>,
    },
    /// Rows of owners: an answer, or fresh from the owner.
    Parts {
        /// Which table.
        table: TableId,
        /// What was missing.
        parts: Vec<PartDelta>,
        /// Whether that is all.
        is_all: bool,
    },
}

impl Message {
    /// As a frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// From a frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode::<Self, FRAME_BYTES_MAX>(bytes)
    }
}
