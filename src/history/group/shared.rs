//! What the driver, the committer, the reader and those who hold the backend share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::committer;
use super::messages::Answer;
use super::messages::Message;
use super::messages::Question;
use super::metrics::Metrics;
use super::reader;
use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::control;
use crate::control::Carried;
use crate::control::Peers;
use crate::control::Serving;
use crate::control::Standing;
use crate::history::backend::Backend;
use crate::history::backend::Doing;
use crate::history::backend::Reading;
use crate::history::backend::Unavailable;
use crate::history::faults::Fault;
use crate::history::faults::planted;
use crate::history::machine::Batch;
use crate::history::machine::Entry;
use crate::history::machine::History;
use crate::history::machine::Outcome;
use crate::history::machine::Outcomes;
use crate::history::machine::read;
use crate::raft;
use crate::raft::Coded as _;
use crate::raft::Group;
use crate::raft::ProposeError;
use crate::raft::frame;
use crate::storage::GroupId;
use crate::transport::lanes::Lane;

/// One attempt. A commit takes two fsyncs and two ways; a disk that is busy may take a second for each.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);

/// See the file's header.
pub(super) struct Shared {
    pub(super) me: StorageId,
    pub(super) control: control::Handle,
    /// None: a node without a mesh.
    pub(super) peers: Option<Arc<dyn Peers>>,
    pub(super) metrics: Metrics,
    /// The group, once this node takes part.
    pub(super) group: ArcSwapOption<Group<History>>,
    /// Somebody wants history, and it has not begun.
    pub(super) wanted: Notify,
    /// Who led when somebody was asked last.
    hint: Mutex<Option<StorageId>>,
    /// Who is asked next where nobody is known to lead.
    turn: AtomicUsize,
    commands: mpsc::Sender<committer::Waiting>,
    reads: mpsc::Sender<reader::Waiting>,
}

/// How history is, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether this node takes part.
    pub is_here: bool,
    /// Whether this node's disk has room.
    pub has_room: bool,
    /// How large a snapshot is, about, in bytes. 0: not known yet.
    pub snapshot_bytes: u64,
    /// Whether something was deleted that may still lie in files of this node.
    pub is_to_be_purged: bool,
    /// Leader, voters, how far it is.
    pub group: raft::Status,
}

/// Why an attempt failed, and where to try next.
enum Failed {
    /// At whoever leads.
    Elsewhere,
    /// Where it was tried.
    Here(Unavailable),
}

impl Shared {
    pub(super) fn new(
        control: control::Handle,
        metrics: Metrics,
    ) -> (Self, mpsc::Receiver<committer::Waiting>, mpsc::Receiver<reader::Waiting>) {
        let (commands, waiting) = mpsc::channel(committer::QUEUE_MAX);
        let (reads, reading) = mpsc::channel(reader::QUEUE_MAX);
        let (group, wanted, hint, turn) = Default::default();
        let (me, peers) = (control.me(), control.ways().map(|it| it.0));
        (Self { me, control, peers, metrics, group, wanted, hint, turn, commands, reads }, waiting, reading)
    }

    pub(super) fn status(&self) -> Status {
        let group = self.group.load_full();
        Status {
            is_here: group.is_some(),
            has_room: group.as_ref().is_none_or(|it| it.has_room()),
            snapshot_bytes: group.as_ref().map_or(0, |it| it.snapshot_bytes()),
            is_to_be_purged: group.as_ref().is_some_and(|it| it.is_to_be_purged()),
            group: group.map(|it| it.status()).unwrap_or_default(),
        }
    }

    fn leads(&self) -> Option<Arc<Group<History>>> {
        self.group.load_full().filter(|it| it.status().leader == Some(self.me))
    }

    /// Whom to ask: whoever leads as far as this node knows, else anybody, who may know.
    fn target(&self) -> Option<StorageId> {
        let group = self.group.load();
        if group.is_none() {
            self.wanted.notify_one();
        }
        let leader = group.as_ref().and_then(|it| it.status().leader).or_else(|| self.hint.lock().take());
        let active = self.peers.as_ref().map(|it| it.active()).unwrap_or_default();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % active.len().max(1);
        let any = || active.iter().nth(turn).copied();
        leader.filter(|it| *it == self.me || active.contains(it)).or_else(any)
    }

    /// One attempt to have commands decided.
    pub(super) async fn commit(&self, commands: Vec<Vec<u8>>) -> Result<Vec<Outcome>, Unavailable> {
        let target = self.target().ok_or(Unavailable::Unreached)?;
        if target == self.me {
            return self.commit_here(commands).await.map_err(Failed::why);
        }
        match self.ask(target, Question::Propose(commands)).await {
            Some(Answer::Done(outcomes)) => Ok(outcomes),
            Some(Answer::NoRoom) => Err(Unavailable::NoRoom),
            other => Err(self.elsewhere(target, other)),
        }
    }

    async fn commit_here(&self, commands: Vec<Vec<u8>>) -> Result<Vec<Outcome>, Failed> {
        let group = self.leads().ok_or(Failed::Elsewhere)?;
        let status = group.status();
        let is_alone = status.voters.len() < 2 && self.control.status().group.voters.len() > 1;
        // BOUND: a leader that hears no majority would gather entries that nobody confirms.
        let is_unheard = status.voters.len() > 1 && status.unanswered.is_some_and(|it| it > ATTEMPT_LIMIT);
        if is_alone || is_unheard {
            return Err(Failed::Here(Unavailable::Unreached));
        }
        let entry = Batch(commands).encode().map_err(|_bug| Failed::Here(Unavailable::Damaged))?;
        match timeout(ATTEMPT_LIMIT, group.propose(entry)).await {
            Ok(Ok(committed)) => match Outcomes::decode(&committed.outcome) {
                Ok(outcomes) => Ok(outcomes.0),
                // An entry that a snapshot brought here was answered to nobody: it is asked for again.
                Err(_unanswered) => Err(Failed::Here(Unavailable::Unreached)),
            },
            Ok(Err(ProposeError::NoRoom)) => Err(Failed::Here(Unavailable::NoRoom)),
            Ok(Err(ProposeError::NotLeader { .. })) => Err(Failed::Elsewhere),
            Ok(Err(ProposeError::Busy(_) | ProposeError::Stopped(_) | ProposeError::TooLarge(_))) | Err(_) => {
                Err(Failed::Here(Unavailable::Unreached))
            }
        }
    }

    /// One attempt to learn how far a read must have come.
    pub(super) async fn index(&self) -> Result<u64, Unavailable> {
        let target = self.target().ok_or(Unavailable::Unreached)?;
        if target == self.me {
            let group = self.leads().ok_or(Unavailable::Unreached)?;
            if !group.has_room() && is_silent_when_full(&group.status()) {
                // To ask for a majority's word is to be heard by it.
                return Err(Unavailable::NoRoom);
            }
            let is_confirmed = timeout(ATTEMPT_LIMIT, group.confirm()).await.unwrap_or(false);
            return if is_confirmed { Ok(group.applied()) } else { Err(Unavailable::Unreached) };
        }
        match self.ask(target, Question::Index).await {
            Some(Answer::Index(index)) => Ok(index),
            other => Err(self.elsewhere(target, other)),
        }
    }

    fn elsewhere(&self, asked: StorageId, answer: Option<Answer>) -> Unavailable {
        if let Some(Answer::NotLeader(leader)) = answer {
            *self.hint.lock() = leader.filter(|it| *it != asked);
        }
        Unavailable::Unreached
    }

    /// Asks another node. None: no answer that can be read.
    pub(super) async fn ask(&self, to: StorageId, question: Question) -> Option<Answer> {
        let cluster = self.control.status().cluster?;
        let bytes = Message { cluster, question }.encode().ok()?;
        let answer = raft::Mesh::ask(&**self.peers.as_ref()?, to, Lane::Raft, bytes, ATTEMPT_LIMIT).await.ok()?;
        Answer::decode(&answer).ok()
    }

    /// Answers another node.
    async fn answer(&self, from: StorageId, question: Question) -> Option<Answer> {
        let leader = self.group.load().as_ref().and_then(|it| it.status().leader);
        match question {
            Question::Stand => {
                let group = self.group.load_full().filter(|it| it.has_room() && leader == Some(from));
                Some(Answer::Stands(match group {
                    Some(group) => group.stand_now().await,
                    None => false,
                }))
            }
            Question::Propose(_) | Question::Index if leader != Some(self.me) => {
                Some(Answer::NotLeader(leader.filter(|it| *it != from)))
            }
            Question::Index => {
                let (answer, answered) = oneshot::channel();
                self.reads.try_send(answer).ok()?;
                timeout(ATTEMPT_LIMIT, answered).await.ok()?.ok()?.ok().map(Answer::Index)
            }
            Question::Propose(commands) => self.decide(commands).await,
        }
    }

    /// Commands of another node go with this node's own.
    async fn decide(&self, commands: Vec<Vec<u8>>) -> Option<Answer> {
        // An entry that cannot be read would stop the group at every node.
        if commands.iter().any(|it| Entry::decode(it).is_err()) {
            return None;
        }
        let until = Clock.now() + ATTEMPT_LIMIT;
        let mut waiting = Vec::with_capacity(commands.len());
        for bytes in commands {
            let (answer, answered) = oneshot::channel();
            self.commands.try_send(committer::Waiting { bytes, until, answer }).ok()?;
            waiting.push(answered);
        }
        let mut outcomes = Vec::with_capacity(waiting.len());
        for answered in waiting {
            match timeout(ATTEMPT_LIMIT, answered).await.ok()?.ok()? {
                Ok(outcome) => outcomes.push(outcome),
                Err(Unavailable::NoRoom) => return Some(Answer::NoRoom),
                Err(_) => return None,
            }
        }
        Some(Answer::Done(outcomes))
    }
}

/// Whether a leader without room stops telling that it leads, so that another does.
pub(super) fn is_silent_when_full(status: &raft::Status) -> bool {
    status.voters.len() > 3
}

impl Failed {
    fn why(self) -> Unavailable {
        match self {
            Self::Elsewhere => Unavailable::Unreached,
            Self::Here(why) => why,
        }
    }
}

/// History in a raft group, as everything above sees it. Clones are the same one.
#[derive(Clone)]
pub struct Replicated(pub(super) Arc<Shared>);

impl Replicated {
    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status()
    }

    async fn proposed(&self, bytes: Vec<u8>, limit: Duration) -> Result<Outcome, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let waiting = committer::Waiting { bytes, until: Clock.now() + limit, answer };
        self.0.commands.try_send(waiting).map_err(|_full| self.busy())?;
        // A moment more than the command has: then its end is told with its reason.
        let told = timeout(limit + committer::RETRY_AFTER + ATTEMPT_LIMIT, answered).await;
        told.ok().and_then(Result::ok).unwrap_or(Err(Unavailable::Unreached))
    }

    async fn have_read(&self, reading: Reading) -> Result<(), Unavailable> {
        let shared = &self.0;
        if shared.peers.is_none() && shared.control.status().standing == Standing::Dormant {
            // A node alone that has never kept anything.
            reading(&BTreeMap::new());
            return Ok(());
        }
        let index = if planted(Fault::ReadsAskNobody) { 0 } else { self.told().await? };
        let group = shared.group.load_full().ok_or(Unavailable::Unreached)?;
        group.until_applied(index).await;
        group.read_rows_on_disk(reading).await.map_err(|_gone| Unavailable::Unreached)
    }

    /// How far whoever leads has come.
    async fn told(&self) -> Result<u64, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.0.reads.try_send(answer).map_err(|_full| self.busy())?;
        answered.await.unwrap_or(Err(Unavailable::Unreached))
    }

    fn busy(&self) -> Unavailable {
        self.0.metrics.unavailable(Unavailable::Busy);
        Unavailable::Busy
    }
}

impl Backend for Replicated {
    fn name(&self) -> &'static str {
        "raft"
    }

    fn commands(&self) -> u64 {
        let group = self.0.group.load();
        group.as_ref().and_then(|it| it.read_rows(read::commands).ok()).unwrap_or_default()
    }

    fn propose(&self, entry: Vec<u8>, limit: Duration) -> Doing<'_, Result<Outcome, Unavailable>> {
        Box::pin(self.proposed(entry, limit))
    }

    fn read(&self, reading: Reading, limit: Duration) -> Doing<'_, Result<(), Unavailable>> {
        Box::pin(async move { timeout(limit, self.have_read(reading)).await.unwrap_or(Err(Unavailable::Unreached)) })
    }

    fn glance(&self, reading: Reading, limit: Duration) -> Doing<'_, Result<(), Unavailable>> {
        let glanced = async {
            let group = self.0.group.load_full().ok_or(Unavailable::Unreached)?;
            group.read_rows_on_disk(move |rows| reading(rows)).await.map_err(|_gone| Unavailable::Unreached)
        };
        Box::pin(async move { timeout(limit, glanced).await.unwrap_or(Err(Unavailable::Unreached)) })
    }

    fn group(&self) -> Option<Status> {
        Some(self.0.status())
    }

    fn snapshot(&self) -> Option<Doing<'_, Result<u64, Unavailable>>> {
        Some(Box::pin(async {
            let group = self.0.group.load_full().ok_or(Unavailable::Unreached)?;
            group.snapshot().await.map_err(|_stopped| Unavailable::Unreached)
        }))
    }

    fn is_watcher(&self) -> bool {
        self.0.leads().is_some()
    }
}

impl Carried for Shared {
    fn id(&self) -> GroupId {
        GroupId::HISTORY
    }

    fn group(&self) -> Option<Arc<dyn raft::Serve>> {
        self.group.load_full().map(|it| it as Arc<dyn raft::Serve>)
    }

    fn first_byte(&self) -> u8 {
        frame::HISTORY
    }

    fn serve(&self, from: StorageId, bytes: Bytes) -> Serving<'_> {
        Box::pin(async move {
            let Message { cluster, question } = Message::decode(&bytes)?;
            let is_own = self.control.status().cluster == Some(cluster);
            let answer = if is_own { self.answer(from, question).await? } else { Answer::OtherCluster };
            answer.encode().ok()
        })
    }
}
