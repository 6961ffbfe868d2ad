//! What members of an older release say in a group, and what they left of it on disk, is read.

use openraft::CommittedLeaderId;
use openraft::EmptyNode;
use openraft::Entry;
use openraft::EntryPayload;
use openraft::Membership;
use openraft::SnapshotMeta;
use openraft::Vote;
use openraft::error::SnapshotMismatch;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::InstallSnapshotRequest;
use openraft::raft::InstallSnapshotResponse;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;

use super::LogId;
use super::Opaque;
use super::TypeConfig;
use super::frame::Answer;
use super::frame::Badge;
use super::frame::Frame;
use super::frame::Message;
use super::frame::Refusal;
use super::state_machine::Kept;
use super::state_machine::StoredMembership;
use crate::base::ids::StorageId;
use crate::base::older::Older;
use crate::storage::GroupId;
use crate::storage::codec;

fn at(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(7, StorageId(u128::MAX)), index)
}

fn vote() -> Vote<StorageId> {
    Vote::new_committed(300, StorageId(5))
}

fn membership() -> Membership<StorageId, EmptyNode> {
    let voters = |them: &[u128]| them.iter().map(|it| StorageId(*it)).collect();
    Membership::new(vec![voters(&[5, 6]), voters(&[5, 6, 7])], std::collections::BTreeSet::from([StorageId(8)]))
}

fn entries() -> Vec<Entry<TypeConfig>> {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Opaque(b"\x01\x05\x02".to_vec())),
        EntryPayload::Membership(membership()),
    ];
    payloads.into_iter().zip(70_000..).map(|(payload, index)| Entry { log_id: at(index), payload }).collect()
}

fn meta() -> SnapshotMeta<StorageId, EmptyNode> {
    let last_membership = StoredMembership::new(Some(at(2)), membership());
    SnapshotMeta { last_log_id: Some(at(70_000)), last_membership, snapshot_id: "7-70000".to_owned() }
}

fn frames() -> Vec<(&'static str, Frame)> {
    let append = AppendEntriesRequest {
        vote: vote(),
        prev_log_id: Some(at(69_999)),
        entries: entries(),
        leader_commit: Some(at(69_998)),
    };
    let snapshot =
        InstallSnapshotRequest { vote: vote(), meta: meta(), offset: 1 << 20, data: b"piece".to_vec(), done: true };
    let badge = Badge { cluster: 1 << 100, boot: 2, nonce: u64::MAX, since: 4 };
    let frame = |message, to_life| Frame { group: GroupId(1), to: StorageId(6), to_life, badge, message };
    vec![
        ("append", frame(Message::Append(append), Some((3, 4)))),
        ("vote", frame(Message::Vote(VoteRequest::new(Vote::new(8, StorageId(5)), Some(at(3)))), None)),
        ("snapshot", frame(Message::Snapshot(snapshot), None)),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let voted = VoteResponse { vote: vote(), vote_granted: true, last_log_id: Some(at(3)) };
    let mut mismatch = SnapshotMismatch { expect: ("a".to_owned(), 0).into(), got: ("b".to_owned(), 300).into() };
    mismatch.got.offset += 1;
    vec![
        ("appended", Answer::Append(AppendEntriesResponse::Success)),
        ("appended_partly", Answer::Append(AppendEntriesResponse::PartialSuccess(Some(at(9))))),
        ("conflict", Answer::Append(AppendEntriesResponse::Conflict)),
        ("higher_vote", Answer::Append(AppendEntriesResponse::HigherVote(vote()))),
        ("voted", Answer::Vote(voted)),
        ("installed", Answer::Snapshot(InstallSnapshotResponse { vote: vote() })),
        ("mismatch", Answer::Mismatch(mismatch)),
        ("refused", Answer::Refused(Refusal::Full.into())),
    ]
}

#[test]
fn what_an_older_release_said_and_kept_in_a_group_is_read() {
    let mut now: Vec<_> = frames().iter().map(|(name, it)| (*name, it.encode().unwrap())).collect();
    now.extend(answers().iter().map(|(name, it)| (*name, it.encode().unwrap())));
    for (name, entry) in ["entry_blank", "entry_command", "entry_membership"].into_iter().zip(entries()) {
        now.push((name, codec::encode(&entry).unwrap()));
    }
    let kept = || Kept { meta: meta(), rows: b"rows".to_vec() };
    now.push(("row_vote", codec::encode(&vote()).unwrap()));
    now.push(("row_log_id", codec::encode(&at(70_000)).unwrap()));
    now.push(("row_committed", codec::encode(&Some(at(70_000))).unwrap()));
    now.push(("row_membership", codec::encode(&StoredMembership::new(Some(at(2)), membership())).unwrap()));
    now.push(("row_snapshot", codec::encode(&kept()).unwrap()));
    let older = Older::of("src/raft/older.hex", &now);

    // openraft's messages cannot be compared, and say all that they have.
    for (name, frame) in frames() {
        assert_eq!(format!("{:?}", Frame::decode(older.bytes(name)).unwrap()), format!("{frame:?}"));
    }
    for (name, answer) in answers() {
        assert_eq!(format!("{:?}", Answer::decode(older.bytes(name)).unwrap()), format!("{answer:?}"));
    }
    for (name, entry) in ["entry_blank", "entry_command", "entry_membership"].into_iter().zip(entries()) {
        assert_eq!(codec::decode::<Entry<TypeConfig>>(older.bytes(name)).unwrap(), entry);
    }
    assert_eq!(codec::decode::<Vote<StorageId>>(older.bytes("row_vote")).unwrap(), vote());
    assert_eq!(codec::decode::<LogId>(older.bytes("row_log_id")).unwrap(), at(70_000));
    assert_eq!(codec::decode::<Option<LogId>>(older.bytes("row_committed")).unwrap(), Some(at(70_000)));
    let stored = codec::decode::<StoredMembership>(older.bytes("row_membership")).unwrap();
    assert_eq!(stored, StoredMembership::new(Some(at(2)), membership()));
    let Kept { meta: read, rows } = codec::decode(older.bytes("row_snapshot")).unwrap();
    assert_eq!((read, rows), (meta(), b"rows".to_vec()));
}
