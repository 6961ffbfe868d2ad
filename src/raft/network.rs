//! The way to the other members of a group: openraft's messages become frames, and what comes of them becomes what openraft must know.
//!
//! A peer that cannot be dialled is *unreachable* and left alone for a heartbeat; everything else is a *network* error and tried again at once, because it may
//! have been one lost packet. Who answered, and when, is kept: whether a voter is lost is decided by this and not by membership.
//!
//! Pieces of snapshots go on the bulk lane, so that no heartbeat waits behind one. A member of an older release does not answer there; it gets the rest of that snapshot on the lane of everything else, as before.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::EmptyNode;
use openraft::OptionalSend;
use openraft::RaftNetwork;
use openraft::RaftNetworkFactory;
use openraft::Snapshot;
use openraft::Vote;
use openraft::error::Fatal;
use openraft::error::InstallSnapshotError;
use openraft::error::NetworkError;
use openraft::error::RPCError;
use openraft::error::RaftError;
use openraft::error::RemoteError;
use openraft::error::ReplicationClosed;
use openraft::error::StreamingError;
use openraft::error::Unreachable;
use openraft::network::Backoff;
use openraft::network::RPCOption;
use openraft::network::snapshot_transport::Chunked;
use openraft::network::snapshot_transport::SnapshotTransport as _;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::InstallSnapshotRequest;
use openraft::raft::InstallSnapshotResponse;
use openraft::raft::SnapshotResponse;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;
use parking_lot::Mutex;

use super::TypeConfig;
use super::frame::Answer;
use super::frame::Badge;
use super::frame::Frame;
use super::frame::Message;
use super::frame::Refusal;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::storage::GroupId;
use crate::transport::RequestError;
use crate::transport::lanes::Lane;

/// A piece of a snapshot, and its fsync at the other end, may take this long before it is sent again. The transport waits 10 s for an answer.
pub(super) const PIECE_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer that is waited for.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, RequestError>> + Send + 'a>>;

/// How the members of a group are asked. Over the transport in a node, over a network in memory in a simulation.
pub trait Mesh: Send + Sync + 'static {
    /// Asks the node that has this data directory now: on [`Lane::Raft`], or on [`Lane::Bulk`] with a piece of a snapshot.
    fn ask(&self, to: StorageId, lane: Lane, bytes: Vec<u8>, limit: Duration) -> Asking<'_>;

    /// Whether this group neither speaks nor listens here now: a fault on purpose.
    fn is_paused(&self, _group: GroupId) -> bool {
        false
    }
}

/// What a node shows to the others of a group, and knows of them.
pub trait Papers: Send + Sync + 'static {
    /// Who this node is.
    fn badge(&self) -> Badge;
    /// The latest start of that data directory that is known, and what it drew.
    fn life_of(&self, storage: StorageId) -> Option<(u64, u64)>;
    /// A member did not hear this node.
    fn refused(&self, by: StorageId, why: Refusal);
}

/// When each member last answered. BOUND: members of the group.
pub(super) type Heard = Arc<Mutex<BTreeMap<StorageId, Instant>>>;

/// Bytes that each member has got of the snapshot that it is being sent. BOUND: members of the group.
pub(super) type Sending = Arc<Mutex<BTreeMap<StorageId, u64>>>;

/// See the file's header.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) group: GroupId,
    pub(super) papers: Arc<dyn Papers>,
    pub(super) heard: Heard,
    pub(super) sending: Sending,
    pub(super) heartbeat: Duration,
}

/// The way to one member.
pub(super) struct Way {
    network: Network,
    to: StorageId,
    /// Where the pieces of the snapshot go that is being sent.
    pieces: Lane,
}

/// While this lives it is told that a member is being sent a snapshot.
struct Told(Sending, StorageId);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, to: StorageId, _node: &EmptyNode) -> Way {
        Way { network: self.clone(), to, pieces: Lane::Bulk }
    }
}

type Failed<E> = RPCError<StorageId, EmptyNode, E>;

fn broken<E: std::error::Error>(why: impl Display) -> Failed<E> {
    RPCError::Network(NetworkError::new(&std::io::Error::other(why.to_string())))
}

impl Network {
    /// Whether a member misses a leader. One that does not answer says nothing, and so no.
    pub(super) async fn misses_a_leader(self, whom: StorageId, limit: Duration) -> bool {
        let mut way = Way { network: self, to: whom, pieces: Lane::Bulk };
        match way.say::<RaftError<StorageId>>(Message::Canvass, limit).await {
            Ok(Answer::Canvassed(misses)) => misses,
            Ok(Answer::Refused(why)) => why.refusal() == Some(Refusal::Unreadable),
            Ok(_) | Err(_) => false,
        }
    }
}

impl Way {
    async fn ask<E: std::error::Error>(&mut self, message: Message, limit: Duration) -> Result<Answer, Failed<E>> {
        match self.say(message, limit).await? {
            // Whoever refuses does not replicate.
            Answer::Refused(why) => {
                why.refusal().into_iter().for_each(|it| self.network.papers.refused(self.to, it));
                let why = why.refusal().map_or("a reason of a newer release", Refusal::as_str);
                Err(RPCError::Unreachable(Unreachable::new(&std::io::Error::other(why))))
            }
            answer => {
                self.network.heard.lock().insert(self.to, Clock.now());
                Ok(answer)
            }
        }
    }

    async fn say<E: std::error::Error>(&mut self, message: Message, limit: Duration) -> Result<Answer, Failed<E>> {
        let Network { mesh, group, papers, .. } = &self.network;
        if mesh.is_paused(*group) {
            Clock.sleep(limit).await;
            return Err(broken(RequestError::Timeout));
        }
        let lane = match message {
            Message::Snapshot(_) => self.pieces,
            Message::Append(_) | Message::Vote(_) | Message::Canvass => Lane::Raft,
        };
        let (to_life, badge) = (papers.life_of(self.to), papers.badge());
        let frame = Frame { group: *group, to: self.to, to_life, badge, message };
        let bytes = frame.encode().map_err(broken)?;
        let answer = mesh.ask(self.to, lane, bytes, limit).await;
        if lane == Lane::Bulk && matches!(answer, Err(RequestError::Unanswered)) {
            // The same piece is sent again at once.
            self.pieces = Lane::Raft;
        }
        let answer = answer.map_err(|error| match error {
            RequestError::NoLink => RPCError::Unreachable(Unreachable::new(&error)),
            RequestError::Lost | RequestError::Timeout | RequestError::Unanswered | RequestError::TooLarge => {
                broken(error)
            }
        })?;
        Answer::decode(&answer).map_err(broken)
    }
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<StorageId>, Failed<RaftError<StorageId>>> {
        match self.ask(Message::Append(request), option.hard_ttl()).await? {
            Answer::Append(answer) => Ok(answer),
            other => Err(broken(format!("answered something else: {other:?}"))),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<StorageId>, Failed<RaftError<StorageId, InstallSnapshotError>>> {
        let sent = request.offset + request.data.len() as u64;
        let limit = PIECE_TIMEOUT.min(option.hard_ttl());
        let answer = loop {
            let begun = Clock.now();
            match self.ask(Message::Snapshot(request.clone()), limit).await {
                // It is being put in place there. Whoever asks again waits for the same.
                Err(RPCError::Network(_)) if request.done && Clock.now() >= begun + limit => {}
                answer => break answer?,
            }
        };
        match answer {
            Answer::Snapshot(answer) => {
                self.network.sending.lock().insert(self.to, sent);
                Ok(answer)
            }
            Answer::Mismatch(mismatch) => {
                Err(RPCError::RemoteError(RemoteError::new(self.to, RaftError::APIError(mismatch.into()))))
            }
            other => Err(broken(format!("answered something else: {other:?}"))),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<StorageId>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<StorageId>, StreamingError<TypeConfig, Fatal<StorageId>>> {
        self.pieces = Lane::Bulk;
        self.network.sending.lock().insert(self.to, 0);
        let _told = Told(Arc::clone(&self.network.sending), self.to);
        Chunked::send_snapshot(self, vote, snapshot, cancel, option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<StorageId>,
        option: RPCOption,
    ) -> Result<VoteResponse<StorageId>, Failed<RaftError<StorageId>>> {
        match self.ask(Message::Vote(request), option.hard_ttl()).await? {
            Answer::Vote(answer) => Ok(answer),
            other => Err(broken(format!("answered something else: {other:?}"))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.heartbeat))
    }
}
