//! What nodes of a group say to each other, as it travels: a badge that tells whether it may be heard, then a message of openraft's.
//!
//! The badge is read before the message is: who serves refuses strangers, copies and lives that are over without a group hearing of them, so that no term
//! is raised by one.

use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::InstallSnapshotRequest;
use openraft::raft::InstallSnapshotResponse;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;
use serde::Deserialize;
use serde::Serialize;

use super::TypeConfig;
use crate::base::ids::StorageId;
use crate::observability::labels::label;
use crate::storage::GroupId;
use crate::transport::lanes::Lane;
use crate::transport::wire;
use crate::transport::wire::WireError;

/// Longest frame.
const BYTES_MAX: usize = Lane::Raft.bytes_max();
/// First byte of every frame on the lane. Messages of areas begin with others.
const FRAME: u8 = 1;
/// First byte of every message of the control group's own.
pub const CONTROL: u8 = 2;
/// First byte of every message of the history group's own.
pub const HISTORY: u8 = 3;

/// Who speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Badge {
    /// The cluster that it belongs to.
    pub cluster: u128,
    /// How often it has started from its data directory.
    pub boot: u64,
    /// Drawn at that start: two processes of one data directory differ in it.
    pub nonce: u64,
    /// Where in the log of the control group its data directory was registered. Whoever has applied that much and does not know it is not deceived.
    pub since: u64,
}

/// One message to one member of one group.
#[derive(Debug, Serialize, Deserialize)]
pub struct Frame {
    /// Which group.
    pub group: GroupId,
    /// Whose data directory it is for: a node id may have got another one since.
    pub to: StorageId,
    /// The latest start of that directory that the sender knows, and what it drew: an earlier one learns here that it is over.
    pub to_life: Option<(u64, u64)>,
    /// Who speaks.
    pub badge: Badge,
    /// What.
    pub message: Message,
}

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// Entries, or none: the leader is there.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A request for a vote.
    Vote(VoteRequest<StorageId>),
    /// A piece of a snapshot.
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Would it be followed: does whoever gets this miss a leader, too? A member of an older release cannot read it, and its refusal is taken for a yes.
    Canvass,
}

label! {
    /// Why a message was not heard.
    pub enum Refusal {
        /// It is of another cluster.
        OtherCluster = "other_cluster",
        /// It is for another data directory.
        OtherStorage = "other_storage",
        /// Its sender is not in the group.
        Outsider = "outsider",
        /// Its sender has been started anew since.
        Over = "over",
        /// Another process has its sender's data directory, or had.
        Copy = "copy",
        /// Its sender was forgotten.
        Forgotten = "forgotten",
        /// This node does not take part in the group, or not yet.
        Absent = "absent",
        /// It could not be read.
        Unreadable = "unreadable",
        /// Too many are being answered. It may be said again.
        Busy = "busy",
        /// This node's disk is full.
        Full = "full",
        /// It is no piece of a snapshot, and came where only those may.
        WrongLane = "wrong_lane",
    }
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To entries.
    Append(AppendEntriesResponse<StorageId>),
    /// To a request for a vote.
    Vote(VoteResponse<StorageId>),
    /// To a piece of a snapshot.
    Snapshot(InstallSnapshotResponse<StorageId>),
    /// The pieces do not fit: begin anew.
    Mismatch(openraft::error::SnapshotMismatch),
    /// It was not heard.
    Refused(RefusalByte),
    /// Whether this member misses a leader.
    Canvassed(bool),
}

/// A [`Refusal`] as it travels: its place in the list, which only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalByte(u8);

impl From<Refusal> for RefusalByte {
    fn from(refusal: Refusal) -> Self {
        use crate::observability::labels::Label as _;
        Self(refusal.index() as u8)
    }
}

impl RefusalByte {
    /// What it says; None: a reason of a newer release.
    #[must_use]
    pub fn refusal(self) -> Option<Refusal> {
        use crate::observability::labels::Label as _;
        Refusal::ALL.get(usize::from(self.0)).copied()
    }
}

impl Message {
    /// Whether whoever gets it needs room for it. A vote does not count: it replaces the last one.
    #[must_use]
    pub fn is_to_be_kept(&self) -> bool {
        match self {
            Self::Append(it) => !it.entries.is_empty(),
            Self::Vote(_) | Self::Canvass => false,
            Self::Snapshot(_) => true,
        }
    }
}

impl Frame {
    /// As it travels.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        Ok([&[FRAME], &wire::encode(self)?[..]].concat())
    }

    /// Reads one. None: it is no frame, or cannot be read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(&[FRAME]).and_then(|it| wire::decode::<Self, BYTES_MAX>(it).ok())
    }
}

impl Answer {
    /// As it travels.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode::<Self, BYTES_MAX>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::fuzz;

    #[test]
    fn a_frame_is_read_back_as_it_was_written() {
        let badge = Badge { cluster: 1 << 100, boot: 2, nonce: 3, since: 4 };
        let message = Message::Vote(VoteRequest::new(openraft::Vote::new(7, StorageId(5)), None));
        let frame = Frame { group: GroupId::CONTROL, to: StorageId(u128::MAX), to_life: None, badge, message };
        let read = Frame::decode(&frame.encode().unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{frame:?}"));
        let answer = Answer::Refused(Refusal::Over.into());
        let Answer::Refused(byte) = Answer::decode(&answer.encode().unwrap()).unwrap() else { panic!("{answer:?}") };
        assert_eq!((byte.refusal(), RefusalByte(200).refusal()), (Some(Refusal::Over), None));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = (Frame::decode(&bytes), Answer::decode(&bytes)); // any answer will do, as long as there is one
        }
    }

    /// Messages of each kind, and answers to them.
    fn valid() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        use openraft::CommittedLeaderId;
        use openraft::EntryPayload;
        use openraft::LogId;
        use openraft::Membership;
        use openraft::SnapshotMeta;
        use openraft::StoredMembership;
        use openraft::Vote;
        let (vote, badge) = (Vote::new_committed(7, StorageId(5)), Badge { cluster: 1, boot: 2, nonce: 3, since: 4 });
        let at = |index| LogId::new(CommittedLeaderId::new(7, StorageId(5)), index);
        let membership = Membership::new(vec![[StorageId(1), StorageId(5)].into()], None);
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(crate::raft::Opaque(vec![1; 40])),
            EntryPayload::Membership(membership.clone()),
        ];
        let entries =
            (4..).zip(payloads).map(|(index, payload)| openraft::Entry { log_id: at(index), payload }).collect();
        let last_membership = StoredMembership::new(Some(at(1)), membership);
        let meta = SnapshotMeta { last_log_id: Some(at(3)), last_membership, snapshot_id: "7-3".to_owned() };
        let messages = [
            Message::Append(AppendEntriesRequest {
                vote,
                prev_log_id: Some(at(3)),
                entries,
                leader_commit: Some(at(2)),
            }),
            Message::Vote(VoteRequest::new(Vote::new(u64::MAX, StorageId(5)), Some(at(3)))),
            Message::Snapshot(InstallSnapshotRequest { vote, meta, offset: 1 << 20, data: vec![7; 50], done: false }),
        ];
        let framed = messages.map(|message| {
            Frame { group: GroupId::CONTROL, to: StorageId(9), to_life: Some((1, 2)), badge, message }.encode().unwrap()
        });
        let answers = [
            Answer::Append(AppendEntriesResponse::Success),
            Answer::Append(AppendEntriesResponse::HigherVote(vote)),
            Answer::Vote(VoteResponse::new(vote, Some(at(3)), true)),
            Answer::Snapshot(InstallSnapshotResponse { vote }),
            Answer::Refused(Refusal::Over.into()),
            Answer::Refused(RefusalByte(200)),
        ];
        (framed.into(), answers.map(|it| it.encode().unwrap()).into())
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_frame_is_read_or_refused(frame in fuzz::damaged(valid().0), answer in fuzz::damaged(valid().1)) {
            fuzz::whole(BYTES_MAX, 2, &frame, Frame::decode, |it| it.encode().unwrap());
            let answer = fuzz::whole(BYTES_MAX, 1, &answer, |it| Answer::decode(it).ok(), |it| it.encode().unwrap());
            if let Some(Answer::Refused(byte)) = answer {
                prop_assert!(byte.refusal().is_none_or(|it| RefusalByte::from(it) == byte), "{byte:?}");
            }
        }
    }
}
