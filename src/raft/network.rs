//! The way to the other members of a group: openraft's messages become frames, and what comes of them becomes what openraft must know.
//!
//! A peer that cannot be dialled is *unreachable* and left alone for a heartbeat; everything else is a *network* error and tried again at once, because it may
//! have been one lost packet. Who answered, and when, is kept: whether a voter is lost is decided by this and not by membership.
//!
//! Pieces of snapshots go on the bulk lane, so that no heartbeat waits behind one. A member of an older release does not answer there; it gets the rest of that snapshot on the lane of everything else, as before.

#![expect(clippy::result_large_err, reason = "the error is the one that openraft's trait asks for")]

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
use openraft::error::PayloadTooLarge;
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
use super::faults::Fault;
use super::faults::planted;
use super::flight::About;
use super::flight::Fits;
use super::flight::Flight;
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

/// Entries, their way and their fsync at the other end may take this long before they are given up. Anything slower gets fewer of them at a time, see [`Fits`].
const ENTRIES_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// Entries that were sent and not heard of in time.
    flight: Option<Flight<Result<Vec<u8>, RequestError>>>,
    fits: Fits,
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
        Way::new(self.clone(), to)
    }
}

type Failed<E> = RPCError<StorageId, EmptyNode, E>;

fn broken<E: std::error::Error>(why: impl Display) -> Failed<E> {
    RPCError::Network(NetworkError::new(&std::io::Error::other(why.to_string())))
}

impl Network {
    /// Whether a member misses a leader. One that does not answer says nothing, and so no.
    pub(super) async fn misses_a_leader(self, whom: StorageId, limit: Duration) -> bool {
        let mut way = Way::new(self, whom);
        match way.say::<RaftError<StorageId>>(Message::Canvass, limit).await {
            Ok(Answer::Canvassed(misses)) => misses,
            Ok(Answer::Refused(why)) => why.refusal() == Some(Refusal::Unreadable),
            Ok(_) | Err(_) => false,
        }
    }
}

impl Way {
    pub(super) fn new(network: Network, to: StorageId) -> Self {
        let fits = Fits::new(network.heartbeat);
        Self { network, to, pieces: Lane::Bulk, flight: None, fits }
    }

    async fn ask<E: std::error::Error>(&mut self, message: Message, limit: Duration) -> Result<Answer, Failed<E>> {
        let answer = self.say(message, limit).await?;
        self.taken(answer)
    }

    /// Who answers is there. Who refuses is as good as gone.
    fn taken<E: std::error::Error>(&self, answer: Answer) -> Result<Answer, Failed<E>> {
        match answer {
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
        if self.network.mesh.is_paused(self.network.group) {
            Clock.sleep(limit).await;
            return Err(broken(RequestError::Timeout));
        }
        let lane = match message {
            Message::Snapshot(_) => self.pieces,
            Message::Append(_) | Message::Vote(_) | Message::Canvass => Lane::Raft,
        };
        let bytes = self.frame(message)?;
        let answer = self.network.mesh.ask(self.to, lane, bytes, limit).await;
        if lane == Lane::Bulk && matches!(answer, Err(RequestError::Unanswered)) {
            // The same piece is sent again at once.
            self.pieces = Lane::Raft;
        }
        read(answer)
    }

    fn frame<E: std::error::Error>(&self, message: Message) -> Result<Vec<u8>, Failed<E>> {
        let Network { group, papers, .. } = &self.network;
        let (to_life, badge) = (papers.life_of(self.to), papers.badge());
        Frame { group: *group, to: self.to, to_life, badge, message }.encode().map_err(broken)
    }

    /// Sends entries, or waits for the answer to those that an earlier call sent. `limit`: the call's own.
    async fn send(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<AppendEntriesResponse<StorageId>, Failed<RaftError<StorageId>>> {
        let (begun, wanted) = (Clock.now(), About::of(&request));
        let (vote, leader_commit) = (request.vote, request.leader_commit);
        let known = self.flight.take().filter(|it| it.about.begins(&wanted) && !planted(Fault::LateIsSentAgain));
        let is_late = known.is_some();
        let mut flight = match known {
            Some(flight) => flight,
            None if wanted.entries > self.fits.entries() => {
                return Err(PayloadTooLarge::new_entries_hint(self.fits.entries()).into());
            }
            None => {
                let (mesh, to, bytes) =
                    (Arc::clone(&self.network.mesh), self.to, self.frame(Message::Append(request))?);
                Flight::new(wanted, async move { mesh.ask(to, Lane::Raft, bytes, ENTRIES_TIMEOUT).await })
            }
        };
        if !flight.is_there {
            let Some((answer, took)) = flight.answer(limit).await else {
                self.flight = Some(flight);
                return Err(broken("the entries are still on their way"));
            };
            match &answer {
                Ok(_) => self.fits.took(flight.about.entries, Some(took)),
                Err(RequestError::Timeout) => self.fits.took(flight.about.entries, None),
                Err(_) => {}
            }
            let answer = appended(self.taken(read(answer)?)?)?;
            if !is_late || !matches!(answer, AppendEntriesResponse::Success) {
                return Ok(answer);
            }
            flight.is_there = true;
        }
        let last = flight.about.last;
        self.flight = Some(flight);
        let now = AppendEntriesRequest { vote, prev_log_id: last, leader_commit, entries: Vec::new() };
        let answer = self.ask(Message::Append(now), limit.saturating_sub(Clock.now() - begun)).await?;
        self.flight = None;
        match appended(answer)? {
            AppendEntriesResponse::Success if last == wanted.last => Ok(AppendEntriesResponse::Success),
            AppendEntriesResponse::Success => Ok(AppendEntriesResponse::PartialSuccess(last)),
            AppendEntriesResponse::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote)),
            other => Err(broken(format!("what was sent is not there any more: {other}"))),
        }
    }
}

fn appended<E: std::error::Error>(answer: Answer) -> Result<AppendEntriesResponse<StorageId>, Failed<E>> {
    match answer {
        Answer::Append(answer) => Ok(answer),
        other => Err(broken(format!("answered something else: {other:?}"))),
    }
}

fn read<E: std::error::Error>(answer: Result<Vec<u8>, RequestError>) -> Result<Answer, Failed<E>> {
    let answer = answer.map_err(|error| match error {
        RequestError::NoLink => RPCError::Unreachable(Unreachable::new(&error)),
        RequestError::Lost | RequestError::Timeout | RequestError::Unanswered | RequestError::TooLarge => broken(error),
    })?;
    Answer::decode(&answer).map_err(broken)
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<StorageId>, Failed<RaftError<StorageId>>> {
        if request.entries.is_empty() || self.network.mesh.is_paused(self.network.group) {
            return appended(self.ask(Message::Append(request), option.hard_ttl()).await?);
        }
        // Before openraft's own limit, with which the call would go and not say why.
        self.send(request, option.hard_ttl() * 4 / 5).await
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
