//! What goes into the core and what comes out.

use std::time::Duration;

use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::replication::admin::Change;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Refusal;
use crate::replication::dots::Actor;
use crate::replication::store::Batch;
use crate::replication::tables::TableId;
use crate::transport::lanes::Lane;

/// A node that is not down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: where messages go.
    pub node: NodeId,
    /// Its data directory and life: what it writes under.
    pub actor: Actor,
}

/// An edit of an admin table. Values are (field, version of its encoding, bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A new instance. The id is random.
    Add(TableId, InstanceId, u16, Vec<(u16, u8, Vec<u8>)>),
    /// Some of its fields.
    Set(TableId, InstanceId, Vec<(u16, u8, Vec<u8>)>),
    /// It is gone, for good.
    Delete(TableId, InstanceId),
}

/// What happens to the core.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed. Several times a second.
    Tick,
    /// The members that are not down, without this node.
    Members(Vec<Member>),
    /// A member was forgotten for good: its rows go, and are not taken again.
    Forget(StorageId),
    /// A message of that node arrived; transport vouches for the name.
    Received(NodeId, Vec<u8>),
    /// Somebody edits here. All edits are made, or none.
    Edit(u64, Vec<Edit>),
    /// This node's rows of an owned table; None removes one.
    Publish(TableId, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// The batch is durable.
    Stored(u64),
    /// A write failed. Nothing is acknowledged any more.
    StoreFailed,
}

/// Why an edit was not made. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The edit's or the table's bound: the caller's fault.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such admin table: a bug of the caller.
    #[error("no such admin table")]
    NoTable,
    /// Too many edits wait for their acknowledgement: try again.
    #[error("too many edits at a time")]
    Busy,
    /// The disk failed: restart the node once it is well.
    #[error("the data directory could not be written: mend the disk and restart this node, its log says why")]
    DiskFailed,
    /// The node is stopping: ask again after the restart.
    #[error("this node is stopping")]
    Closing,
}

/// How far an edit is when it is answered. It is durable here in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whether another member has it on disk too, or there is none.
    pub is_safe: bool,
    /// Members that have not acknowledged it yet. They get it as soon as they can be reached.
    pub pending: Vec<NodeId>,
}

/// What the core wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a frame. It may get lost.
    Send(NodeId, Lane, Vec<u8>),
    /// Make the rows durable, in order, then say [`Event::Stored`] with the number.
    Store(u64, Batch),
    /// Answer whoever edited.
    Answer(u64, Result<Settled, EditError>),
    /// An instance changed: views follow.
    Changed(TableId, Change),
    /// Owners' rows changed: views read them anew.
    RowsChanged(TableId),
    /// An edit made here is on the disk of every member, this long after it was made.
    Everywhere(Duration),
}

/// What was refused or given up, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages of nodes that are not members.
    pub strangers: u64,
    /// Frames that could not be read.
    pub garbage: u64,
    /// Tables that a peer has and this release does not.
    pub unknown_tables: u64,
    /// Entries whose stamps were too far ahead.
    pub stamps_ahead: u64,
    /// Entries or rows beyond a bound.
    pub too_much: u64,
    /// Rows that came from somebody other than their owner says, or of an owner that is not here.
    pub not_owner: u64,
    /// Claims about this node's own rows that it never made.
    pub refuted: u64,
    /// Times a table's bytes per second were used up.
    pub deferred: u64,
    /// Pushes given up; anti-entropy carries them.
    pub pushes_left: u64,
    /// Another process writes under this node's name: its data directory is a copy.
    pub impostors: u64,
}

/// One table as `/cluster/health` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Which.
    pub table: TableId,
    /// Its name.
    pub name: &'static str,
    /// Whether it was never exchanged in the last [`RED_AFTER`](super::RED_AFTER) rounds although there are members.
    pub is_red: bool,
    /// Whether it was compared with any member since there are members; true where there are none.
    pub is_in_force: bool,
    /// Instances, or rows of all owners.
    pub entries: usize,
    /// Starts of nodes that ever edited it and gaps in what is known of them; 0 for tables of owned rows.
    pub lives: usize,
    /// Bytes of frames sent for it since the start. Digests, which are of all tables, are not counted here.
    pub bytes_sent: u64,
}
