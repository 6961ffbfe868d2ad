//! One group as an area holds it: propose, read, serve what other members say, change who is in it, see how it is.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use openraft::ChangeMembers;
use openraft::Config;
use openraft::EmptyNode;
use openraft::Raft;
use openraft::ServerState;
use openraft::SnapshotPolicy;
use openraft::Vote;
use openraft::error::ClientWriteError;
use openraft::error::Fatal;
use openraft::error::RaftError;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;

use super::BATCH_ENTRIES_MAX;
use super::COMMAND_BYTES_MAX;
use super::LogId;
use super::Machine;
use super::Mesh;
use super::Opaque;
use super::Rows;
use super::Timing;
use super::TypeConfig;
use super::candidacy::Candidacy;
use super::candidacy::Look;
use super::candidacy::Seen;
use super::faults::Fault;
use super::faults::planted;
use super::frame::Answer;
use super::frame::Message;
use super::frame::Refusal;
use super::log::Log;
use super::network::Heard;
use super::network::Network;
use super::network::PIECE_TIMEOUT;
use super::network::Papers;
use super::network::Sending;
use super::receiving::Receiving;
use super::runtime;
use super::state_machine::Kept as KeptSnapshot;
use super::state_machine::StateMachine;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::StoreError;
use crate::storage::keys::Key;
use crate::transport::lanes::BULK_BYTES_PER_SECOND;

/// Entries between two snapshots. More makes a log that takes longer to replay, fewer writes snapshots for little.
const SNAPSHOT_AFTER: u64 = 1024;
/// Entries kept behind a snapshot, for a follower that is a little late.
const KEPT_BEHIND: u64 = 256;
/// A piece of a snapshot. A member of an older release gets it on the lane of heartbeats, so it must be through well within one.
const PIECE_BYTES: u64 = 256 << 10;
/// Putting a snapshot in place may take this long. Less, and a large one is sent again and again.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Groups whose members may all be sent a snapshot at the same time.
const GROUPS: u64 = 2;
/// Members that may be sent a snapshot at the same time. More than there are in any group.
const RECEIVERS_MAX: u64 = 70;

// A piece that waits for one to each other member of both groups still has most of its time.
const _: () =
    assert!(GROUPS * RECEIVERS_MAX * PIECE_BYTES * 1000 / BULK_BYTES_PER_SECOND < PIECE_TIMEOUT.as_millis() as u64 / 3);

type Metrics = openraft::RaftMetrics<StorageId, EmptyNode>;

/// Why a group did not start. The store's fault, or this node's release is too old for it. Nothing was changed; the node must not take part.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The rows or the log cannot be read.
    #[error("the group cannot be read: {0}")]
    State(String),
    /// Timings that contradict each other. A bug or a setting.
    #[error("the group's timings do not fit: {0}")]
    Timing(String),
    /// openraft refused what it found.
    #[error("the group's log cannot be used: {0}")]
    Log(String),
}

/// Why a command was not answered. Commands are made so that the same one may be proposed again: then it is safe to, in every case but the last.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or none is known to. Where this node led when it was asked, the command may still take effect.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<StorageId>,
    },
    /// It is another change of members, and one is under way or was not yet committed. Nothing was changed; ask again later.
    #[error("another change of the group's members is under way: {0}")]
    Busy(String),
    /// The group has stopped: its store failed. The command may or may not take effect; the node stops.
    #[error("the group has stopped: {0}")]
    Stopped(String),
    /// This node's disk is full. Nothing was changed; ask again when there is room, or when another leads.
    #[error("the disk of the node that leads the group is full")]
    NoRoom,
    /// Longer than [`COMMAND_BYTES_MAX`]. The caller's bug; nothing was changed.
    #[error("the command has {0} bytes, more than an entry may have")]
    TooLarge(usize),
}

/// A command that a majority has on disk, and that has taken effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// What the machine answered.
    pub outcome: Vec<u8>,
}

/// How a group is, as this member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Who leads.
    pub leader: Option<StorageId>,
    /// In which term.
    pub term: u64,
    /// Who votes. In the middle of a change: who will.
    pub voters: BTreeSet<StorageId>,
    /// Whether a change of voters is only half made.
    pub is_joint: bool,
    /// Who follows without a vote.
    pub learners: BTreeSet<StorageId>,
    /// The last entry this member has.
    pub last: u64,
    /// The last entry that has taken effect here.
    pub applied: u64,
    /// At the leader: how far each follower has come.
    pub matched: BTreeMap<StorageId, u64>,
    /// At the leader: how many bytes each member has got of the snapshot that it is being sent.
    pub sending: BTreeMap<StorageId, u64>,
    /// At the leader: for how long no majority has answered.
    pub unanswered: Option<Duration>,
    /// Why it has stopped for good, if it has.
    pub stopped: Option<String>,
}

/// What a group is made of.
pub struct Parts {
    /// This node's data directory.
    pub me: StorageId,
    /// Which group.
    pub group: GroupId,
    /// Where it is kept.
    pub store: Store,
    /// How others are reached.
    pub mesh: Arc<dyn Mesh>,
    /// What this node shows them.
    pub papers: Arc<dyn Papers>,
    /// How patient it is.
    pub timing: Timing,
}

/// A group as whoever hears frames for it sees it.
pub trait Serve: Send + Sync + 'static {
    /// Answers another member. Whoever calls has looked at the badge.
    fn answer(&self, message: Message) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
    /// Whether this disk has room for what it may have to keep.
    fn has_room(&self) -> bool;
}

impl<M: Machine> Serve for Group<M> {
    fn answer(&self, message: Message) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.serve(message))
    }

    fn has_room(&self) -> bool {
        Self::has_room(self)
    }
}

/// One group. Clones are the same one.
#[derive(Clone)]
pub struct Group<M: Machine> {
    me: StorageId,
    pub(super) raft: Raft<TypeConfig>,
    pub(super) store: Store,
    pub(super) state: StateMachine<M>,
    heard: Heard,
    sending: Sending,
    pub(super) receiving: Receiving,
    candidacy: Arc<Mutex<Candidacy>>,
    network: Network,
}

impl<M: Machine> Group<M> {
    /// Takes up what is in the store; a store without the group waits until it is founded here or a leader speaks.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let Parts { me, group, store, mesh, papers, timing } = parts;
        let config = config(timing).validate().map_err(|error| StartError::Timing(error.to_string()))?;
        let state = StateMachine::open(store.clone(), group).map_err(|error| StartError::State(error.to_string()))?;
        let (heard, sending) = (Heard::default(), Sending::default());
        let network = Network {
            mesh,
            group,
            papers,
            heard: Arc::clone(&heard),
            sending: Arc::clone(&sending),
            heartbeat: timing.heartbeat,
        };
        let log = Log::new(store.clone(), group).beside_state();
        let raft = Raft::new(me, Arc::new(config), network.clone(), log, state.clone())
            .await
            .map_err(|error| StartError::Log(error.to_string()))?;
        let candidacy = Arc::new(Mutex::new(Candidacy::new(Clock.now(), timing)));
        let receiving = Receiving::default();
        Ok(Self { me, raft, store, state, heard, sending, receiving, candidacy, network })
    }

    /// Makes the group, with this node as its only voter. Does nothing where there is one already.
    pub async fn found(&self) -> Result<(), ProposeError> {
        use openraft::error::InitializeError;
        let alone = BTreeMap::from([(self.me, EmptyNode {})]);
        match self.raft.initialize(alone).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    /// Leads a group of one at once. A group that is not looked at by a clock ([`Timing::alone`]) would wait for an election for ever.
    pub async fn lead(&self) -> Result<(), ProposeError> {
        let stopped = |error: Fatal<StorageId>| ProposeError::Stopped(error.to_string());
        let leads =
            self.raft.with_raft_state(|state| state.server_state == ServerState::Leader).await.map_err(stopped)?;
        if leads {
            return Ok(());
        }
        self.raft.trigger().elect().await.map_err(stopped)?;
        // Its own vote, on its own disk, is all that it takes.
        let mut metrics = self.raft.metrics();
        let led = metrics.wait_for(|it| it.current_leader == Some(self.me) || it.running_state.is_err()).await;
        match led.ok().and_then(|it| status(&it).stopped) {
            Some(why) => Err(ProposeError::Stopped(why)),
            None => Ok(()),
        }
    }

    /// Whether this disk has room for more entries, and for a snapshot of them.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.store.room_for(2 * self.state.snapshot_bytes()).is_ok() || planted(Fault::FullDisksTakeCommands)
    }

    /// How large a snapshot is, about, in bytes. 0: none was made or came yet.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        self.state.snapshot_bytes()
    }

    /// Lets another lead while this disk is full: it takes no commands, so it does not tell others that it leads. Nor does it [stand](Self::stand).
    pub fn yields(&self, is_full: bool) {
        self.raft.runtime_config().heartbeat(!is_full);
    }

    /// Stands for election whenever nobody leads for too long. Runs until the group has stopped; without it this member only votes.
    pub async fn stand(&self) {
        let entropy = runtime::entropy();
        loop {
            let look = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow();
                let (voters, leader) = (metrics.membership_config.voter_ids().collect(), metrics.current_leader);
                let seen = Seen { me: self.me, leader, voters: &voters };
                self.candidacy.lock().look(Clock.now(), &seen, entropy.unit())
            };
            match look {
                Look::Wait(until) => Clock.sleep(until.saturating_duration_since(Clock.now())).await,
                // Again after a while, as if nobody had voted for it.
                Look::Stand if !self.has_room() || !self.would_be_followed().await => {}
                Look::Stand => {
                    if self.raft.trigger().elect().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether a majority misses a leader. Who does not answer within two heartbeats does not count.
    async fn would_be_followed(&self) -> bool {
        if planted(Fault::NobodyIsCanvassed) {
            return true;
        }
        let voters: BTreeSet<StorageId> = self.raft.metrics().borrow().membership_config.voter_ids().collect();
        let limit = 2 * self.network.heartbeat;
        let others = voters.iter().filter(|it| **it != self.me);
        let mut asked: FuturesUnordered<_> =
            others.map(|it| self.network.clone().misses_a_leader(*it, limit)).collect();
        let mut missing = usize::from(voters.contains(&self.me));
        while 2 * missing <= voters.len() {
            match asked.next().await {
                Some(misses) => missing += usize::from(misses),
                None => return false,
            }
        }
        true
    }

    /// Whether this member misses a leader. One that leads does only if it wants another to.
    fn misses_a_leader(&self) -> bool {
        if self.raft.metrics().borrow().current_leader == Some(self.me) {
            return !self.has_room();
        }
        self.candidacy.lock().misses_a_leader(Clock.now())
    }

    /// Stands for election now: the leader wants it to. False: it has stopped.
    pub async fn stand_now(&self) -> bool {
        self.raft.trigger().elect().await.is_ok()
    }

    /// Waits until another one leads.
    pub async fn is_led_by_another(&self) {
        let mut metrics = self.raft.metrics();
        let _ = metrics.wait_for(|it| it.current_leader.is_some_and(|it| it != self.me)).await; // it has stopped: nobody is waited for
    }

    /// Whoever has this vote leads as far as this member can know: it will be followed.
    fn follows(&self, vote: &Vote<StorageId>) {
        if *vote >= self.raft.metrics().borrow().vote {
            self.candidacy.lock().led(Clock.now());
        }
    }

    /// Proposes a command. When this returns it is on the disks of a majority and in force here.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Committed, ProposeError> {
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge(command.len()));
        }
        if !self.has_room() {
            return Err(ProposeError::NoRoom);
        }
        let written = self.raft.client_write(Opaque(command)).await.map_err(not_proposed)?;
        Ok(Committed { index: written.log_id.index, outcome: written.data.0 })
    }

    /// A majority confirms, after this was called, that this member leads; what was decided before that has then taken effect here. False: it does not lead, or nobody
    /// confirms it. With a majority that is silent it takes as long as a heartbeat; give it a limit.
    pub async fn confirm(&self) -> bool {
        if planted(Fault::LeadersConfirmThemselves) {
            return self.status().leader == Some(self.me);
        }
        self.raft.ensure_linearizable().await.is_ok()
    }

    /// Reads what has taken effect here: maybe not the newest.
    pub fn read<R>(&self, read: impl FnOnce(&M) -> R) -> R {
        self.state.read(read)
    }

    /// Reads the rows of what has taken effect here: maybe not the newest. They do not change meanwhile.
    pub fn read_rows<R>(&self, read: impl FnOnce(&dyn Rows) -> R) -> R {
        read(&self.state.rows())
    }

    /// Lets go of the log up to what has taken effect here, but for what followers that are a little late may need. Answers up to where.
    pub async fn snapshot(&self) -> Result<u64, ProposeError> {
        let applied = self.applied();
        let stopped = |error: Fatal<StorageId>| ProposeError::Stopped(error.to_string());
        self.raft.trigger().snapshot().await.map_err(stopped)?;
        Ok(applied)
    }

    /// Waits until an entry has taken effect here.
    pub async fn until_applied(&self, index: u64) {
        self.state.until_applied(index).await;
    }

    /// The last entry that has taken effect here.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.state.applied()
    }

    /// Reads rows where waiting for the disk is allowed.
    pub async fn read_rows_on_disk<R, F>(&self, read: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&dyn Rows) -> R + Send + 'static,
    {
        let state = self.state.clone();
        self.store.on_disk(move |_| Ok(read(&state.rows()))).await
    }

    /// Lets these follow.
    pub async fn add_learner(&self, whom: StorageId) -> Result<(), ProposeError> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(whom, EmptyNode {})])), true).await
    }

    /// Makes these the voters, in one change. Who votes no longer is out of the group.
    pub async fn set_voters(&self, voters: BTreeSet<StorageId>) -> Result<(), ProposeError> {
        self.raft.change_membership(voters, false).await.map(drop).map_err(not_proposed)
    }

    /// Lets a follower go.
    pub async fn remove_learner(&self, whom: StorageId) -> Result<(), ProposeError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([whom])), true).await
    }

    async fn change(&self, change: ChangeMembers<StorageId, EmptyNode>, retain: bool) -> Result<(), ProposeError> {
        self.raft.change_membership(change, retain).await.map(drop).map_err(not_proposed)
    }

    /// Answers another member. Whoever calls has looked at the badge.
    pub async fn serve(&self, message: Message) -> Answer {
        let absent = || Answer::Refused(Refusal::Absent.into()); // it has stopped
        let is_too_much = message.is_to_be_kept() && !self.has_room();
        match &message {
            Message::Append(it) => self.follows(&it.vote),
            Message::Snapshot(it) => self.follows(&it.vote),
            Message::Vote(_) | Message::Canvass => {}
        }
        match message {
            Message::Append(it) if is_too_much => self.serve_without_room(it).await,
            Message::Snapshot(_) if is_too_much => Answer::Refused(Refusal::Full.into()),
            Message::Append(it) => self.raft.append_entries(it).await.map_or_else(|_| absent(), Answer::Append),
            Message::Vote(it) => {
                let answer = self.raft.vote(it).await;
                if answer.as_ref().is_ok_and(|it| it.vote_granted) {
                    self.candidacy.lock().heard(Clock.now());
                }
                answer.map_or_else(|_| absent(), Answer::Vote)
            }
            Message::Snapshot(it) => self.take_piece(it).await,
            Message::Canvass => Answer::Canvassed(self.misses_a_leader()),
        }
    }

    /// A full disk takes no entries, but who leads is known: a member that did not would stand for election again and again. The leader is refused, so
    /// it says the same a heartbeat later.
    async fn serve_without_room(&self, request: AppendEntriesRequest<TypeConfig>) -> Answer {
        match self.raft.append_entries(AppendEntriesRequest { entries: Vec::new(), ..request }).await {
            Ok(AppendEntriesResponse::Success) => Answer::Refused(Refusal::Full.into()),
            Ok(answer) => Answer::Append(answer),
            Err(_stopped) => Answer::Refused(Refusal::Absent.into()),
        }
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { sending: self.sending.lock().clone(), ..status(&self.raft.metrics().borrow()) }
    }

    /// Waits until it has stopped for good, and says why: its store failed.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        let ended = metrics.wait_for(|it| it.running_state.is_err()).await;
        ended.map_or_else(|_gone| "it was stopped".to_owned(), |it| status(&it).stopped.unwrap_or_default())
    }

    /// When each member last answered this one.
    #[must_use]
    pub fn heard(&self) -> BTreeMap<StorageId, Instant> {
        self.heard.lock().clone()
    }

    /// Ends it here, in good order.
    pub async fn stop(&self) {
        let _ = self.raft.shutdown().await; // an error is a panic in it, which was logged
    }
}

/// The voters of a group as this disk knows them, before it is started: those of every change that may be in force. None: there is no group here.
pub fn voters_on_disk(store: &Store, group: GroupId) -> Result<BTreeSet<StorageId>, StoreError> {
    type Stored = openraft::StoredMembership<StorageId, EmptyNode>;
    let applied: Option<Stored> = store.read(Key::Membership(group))?;
    let mut voters: BTreeSet<StorageId> = applied.iter().flat_map(|it| it.membership().voter_ids()).collect();
    for entry in store.scan::<openraft::Entry<TypeConfig>>(Key::Entry(group, 0)) {
        if let openraft::EntryPayload::Membership(it) = entry?.1.payload {
            voters.extend(it.voter_ids());
        }
    }
    Ok(voters)
}

/// Whether this release can read all that a store has of a group: what a newer one wrote must be told before anything stands on it. Reads it whole; blocks on the disk.
pub fn check<M: Machine>(store: &Store, group: GroupId) -> Result<(), StartError> {
    let unusable = |error: StoreError| StartError::Log(error.to_string());
    StateMachine::<M>::open(store.clone(), group).map_err(|error| StartError::State(error.to_string()))?;
    store.read::<Vote<StorageId>>(Key::Vote(group)).map_err(unusable)?;
    for key in [Key::Purged(group), Key::Applied(group)] {
        store.read::<LogId>(key).map_err(unusable)?;
    }
    store.read::<Option<LogId>>(Key::Committed(group)).map_err(unusable)?;
    store.read::<KeptSnapshot>(Key::Snapshot(group)).map_err(unusable)?;
    voters_on_disk(store, group).map_err(unusable)?;
    Ok(())
}

/// Removes all of a group from a store: its data directory has another id now, and must not vote as the one it was.
pub fn clear(group: GroupId, batch: &mut Batch) {
    let keys: [fn(GroupId) -> Key; 8] = [
        Key::Vote,
        Key::Committed,
        Key::Purged,
        Key::Applied,
        Key::Membership,
        Key::Snapshot,
        Key::Installing,
        Key::Removed,
    ];
    keys.into_iter().for_each(|key| batch.delete(key(group)));
    batch.delete_from(Key::Entry(group, 0), None);
    batch.clear_group_rows(group);
}

fn config(timing: Timing) -> Config {
    let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "smg".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        // A leader waits for so long for what confirms that it leads.
        election_timeout_min: millis(timing.lease * 2 / 3),
        // The lease. Who stands, and when, is `candidacy`'s.
        election_timeout_max: millis(timing.lease),
        enable_elect: false,
        install_snapshot_timeout: millis(INSTALL_TIMEOUT),
        snapshot_max_chunk_size: PIECE_BYTES,
        max_payload_entries: BATCH_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
        max_in_snapshot_log_to_keep: KEPT_BEHIND,
        replication_lag_threshold: SNAPSHOT_AFTER,
        purge_batch_size: BATCH_ENTRIES_MAX,
        ..Config::default()
    }
}

fn not_proposed(error: RaftError<StorageId, ClientWriteError<StorageId, EmptyNode>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(it)) => ProposeError::NotLeader { leader: it.leader_id },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(it)) => ProposeError::Busy(it.to_string()),
        RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.to_string()),
    }
}

fn status(metrics: &Metrics) -> Status {
    let membership = metrics.membership_config.membership();
    let configs = membership.get_joint_config();
    let index = |it: Option<super::LogId>| it.map_or(0, |it| it.index);
    let matched = metrics.replication.iter().flatten().map(|(id, at)| (*id, index(*at)));
    Status {
        leader: metrics.current_leader,
        term: metrics.current_term,
        voters: configs.last().cloned().unwrap_or_default(),
        is_joint: configs.len() > 1,
        learners: membership.learner_ids().collect(),
        last: metrics.last_log_index.unwrap_or(0),
        applied: index(metrics.last_applied),
        matched: matched.collect(),
        sending: BTreeMap::new(),
        unanswered: metrics.millis_since_quorum_ack.map(Duration::from_millis),
        stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}
