//! A member over a slow way, asked as openraft asks: a heartbeat's time for each call, then again.

use std::sync::Arc;
use std::time::Duration;

use openraft::CommittedLeaderId;
use openraft::EntryPayload;
use openraft::RaftNetwork as _;
use openraft::Vote;
use openraft::error::RPCError;
use openraft::network::RPCOption;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::raft::BATCH_ENTRIES_MAX;
use crate::raft::LogId;
use crate::raft::Opaque;
use crate::raft::TypeConfig;
use crate::raft::faults::Fault;
use crate::raft::faults::plant;
use crate::raft::frame::Answer;
use crate::raft::frame::Badge;
use crate::raft::frame::Frame;
use crate::raft::frame::Message;
use crate::raft::network::Asking;
use crate::raft::network::Mesh;
use crate::raft::network::Network;
use crate::raft::network::Way;
use crate::raft::nobody::Nobody;
use crate::storage::GroupId;
use crate::transport::RequestError;
use crate::transport::lanes::Lane;

const HEARTBEAT: Duration = Duration::from_millis(250);
const ME: StorageId = StorageId(1);
const OTHER: StorageId = StorageId(2);

/// A member at the end of a link that carries so many bytes a second, with a disk that takes so long for each message.
struct Slow {
    bytes_per_second: f64,
    fsync: Duration,
    state: Mutex<State>,
}

struct State {
    /// Up to where it has the log.
    has: u64,
    /// The link is taken until then.
    free: Instant,
    /// When each message came in which it was asked, and how many entries that had.
    heard: Vec<(Instant, usize)>,
}

impl Mesh for Slow {
    fn ask(&self, _: StorageId, _: Lane, bytes: Vec<u8>, limit: Duration) -> Asking<'_> {
        Box::pin(async move {
            let there = {
                let mut state = self.state.lock();
                state.free =
                    state.free.max(Clock.now()) + Duration::from_secs_f64(bytes.len() as f64 / self.bytes_per_second);
                state.free
            };
            let answered = async {
                tokio::time::sleep_until(there).await;
                let Some(Frame { message: Message::Append(request), .. }) = Frame::decode(&bytes) else {
                    panic!("{bytes:?}")
                };
                if !request.entries.is_empty() {
                    Clock.sleep(self.fsync).await;
                }
                let mut state = self.state.lock();
                state.heard.push((Clock.now(), request.entries.len()));
                let prev = request.prev_log_id.map_or(0, |it| it.index);
                if prev > state.has {
                    return Answer::Append(AppendEntriesResponse::Conflict).encode().unwrap();
                }
                state.has = state.has.max(prev + request.entries.len() as u64);
                Answer::Append(AppendEntriesResponse::Success).encode().unwrap()
            };
            tokio::time::timeout(limit, answered).await.map_err(|_late| RequestError::Timeout)
        })
    }
}

fn id(index: u64) -> Option<LogId> {
    (index > 0).then(|| LogId::new(CommittedLeaderId::new(1, ME), index))
}

fn request(from: u64, upto: u64, bytes: usize) -> AppendEntriesRequest<TypeConfig> {
    let entry =
        |index| openraft::Entry { log_id: id(index).unwrap(), payload: EntryPayload::Normal(Opaque(vec![7; bytes])) };
    AppendEntriesRequest {
        vote: Vote::new_committed(1, ME),
        prev_log_id: id(from),
        leader_commit: None,
        entries: (from + 1..=upto).map(entry).collect(),
    }
}

fn member(bytes_per_second: f64, fsync: Duration) -> Arc<Slow> {
    let state = Mutex::new(State { has: 0, free: Clock.now(), heard: Vec::new() });
    Arc::new(Slow { bytes_per_second, fsync, state })
}

fn way(member: &Arc<Slow>) -> Way {
    let badge = Badge { cluster: 1, boot: 1, nonce: 1, since: 0 };
    let network = Network {
        mesh: Arc::<Slow>::clone(member),
        group: GroupId::CONTROL,
        papers: Arc::new(Nobody(badge)),
        heard: Arc::default(),
        sending: Arc::default(),
        heartbeat: HEARTBEAT,
    };
    Way::new(network, OTHER)
}

/// As openraft replicates `entries` of `bytes` each; how long it takes, if it is done within `limit`.
async fn replicated(member: &Arc<Slow>, entries: u64, bytes: usize, limit: Duration) -> Option<Duration> {
    let (mut way, begun, mut matched, mut hint) = (way(member), Clock.now(), 0, (BATCH_ENTRIES_MAX, 0));
    while matched < entries && Clock.now() - begun < limit {
        let batch = if hint.1 > 0 { hint.0.min(BATCH_ENTRIES_MAX) } else { BATCH_ENTRIES_MAX };
        hint.1 = u64::saturating_sub(hint.1, 1);
        let upto = entries.min(matched + batch);
        let called = Clock.now();
        let call = way.append_entries(request(matched, upto, bytes), RPCOption::new(HEARTBEAT));
        match tokio::time::timeout(HEARTBEAT, call).await.expect("it ends before openraft ends it") {
            Ok(answer) => {
                matched = match answer {
                    AppendEntriesResponse::Success => upto,
                    AppendEntriesResponse::PartialSuccess(at) => at.unwrap().index,
                    other => panic!("{other:?}"),
                };
                let state = member.state.lock();
                assert!(matched <= state.has, "it was told that the member has {matched}, and it has {}", state.has);
                assert!(
                    state.heard.iter().any(|it| it.0 >= called),
                    "a lease began with a call in which the member heard nothing"
                );
            }
            Err(RPCError::PayloadTooLarge(it)) => hint = (it.entries_hint(), 10),
            Err(_) => Clock.sleep(HEARTBEAT / 5).await,
        }
    }
    (matched >= entries).then(|| Clock.now() - begun)
}

#[tokio::test(start_paused = true)]
async fn a_member_far_behind_catches_up_over_a_link_that_carries_no_whole_message_in_a_heartbeat() {
    // 1,000 entries of 4 KB take 20 s of such a link.
    let member = member(200e3, Duration::ZERO);
    let took = replicated(&member, 1000, 4096, Duration::from_secs(600)).await;
    assert!(took.is_some_and(|it| it < Duration::from_secs(60)), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn sent_again_at_the_same_size_they_never_arrive() {
    plant(Some(Fault::LateIsSentAgain));
    let took = replicated(&member(200e3, Duration::ZERO), 1000, 4096, Duration::from_secs(600)).await;
    plant(None);
    assert_eq!(took, None);
}

#[tokio::test(start_paused = true)]
async fn an_entry_larger_than_a_heartbeat_carries_is_there_in_the_end() {
    let member = member(60e3, Duration::ZERO);
    let took = replicated(&member, 4, 200 << 10, Duration::from_secs(600)).await;
    assert!(took.is_some_and(|it| it < Duration::from_secs(140)), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_longer_than_a_heartbeat_for_each_message_gets_large_ones() {
    let member = member(1e9, Duration::from_millis(300));
    let took = replicated(&member, 1000, 1000, Duration::from_secs(600)).await;
    assert!(took.is_some_and(|it| it < Duration::from_secs(20)), "{took:?}");
    let largest = member.state.lock().heard.iter().map(|it| it.1).max();
    assert_eq!(largest, Some(BATCH_ENTRIES_MAX as usize));
}

#[tokio::test(start_paused = true)]
async fn a_fast_way_asks_once_for_each_message() {
    let member = member(1e9, Duration::from_millis(2));
    let took = replicated(&member, 640, 1000, Duration::from_secs(600)).await;
    assert!(took.is_some_and(|it| it < Duration::from_secs(1)), "{took:?}");
    assert_eq!(member.state.lock().heard.len(), 10);
}
