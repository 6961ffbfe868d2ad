//! The task that looks after this node's part in the history group.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::committer;
use super::messages::Answer;
use super::messages::Question;
use super::metrics::Metrics;
use super::purge;
use super::reader;
use super::shared::Replicated;
use super::shared::Shared;
use super::shared::is_silent_when_full;
use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::base::tasks::Stop;
use crate::control;
use crate::control::Carried;
use crate::control::ControlError;
use crate::control::Standing;
use crate::control::core::voters::Change;
use crate::control::core::voters::Seen;
use crate::control::machine::Command;
use crate::control::machine::Outcome;
use crate::control::tenure;
use crate::control::tenure::HAND_OVER_LIMIT;
use crate::control::tenure::Tenure;
use crate::history::machine::History;
use crate::raft;
use crate::raft::Group;
use crate::raft::Nobody;
use crate::storage::GroupId;
use crate::storage::Store;

const GROUP: GroupId = GroupId::HISTORY;
/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(250);
/// The same of a node whose cluster keeps nothing yet, and is asked for nothing.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// A decision of the control group takes no longer, unless it has no leader.
const CONTROL_LIMIT: Duration = Duration::from_secs(5);

/// The data directory of this node.
pub trait Ground: Send + Sync + 'static {
    /// The store, if it is open already. Makes nothing.
    fn found(&self) -> Option<Store>;
    /// The store, made if need be. None: nothing can be kept. Blocks on the disk.
    fn open(&self) -> Option<Store>;
}

/// Why the driver ended. The disk's fault, or this node's release is too old for what is on it; either way this node must not go on acknowledging.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Start(#[from] raft::StartError),
    #[error("the history group has stopped: {0}")]
    Stopped(String),
}

/// See the file's header.
pub struct Driver {
    shared: Arc<Shared>,
    ground: Arc<dyn Ground>,
    /// Committer and reader.
    serving: JoinSet<()>,
    /// Stands for election. BOUND: one.
    candidacy: JoinSet<()>,
    /// Takes off the disk what was deleted. BOUND: one.
    purging: JoinSet<()>,
    /// How soon. 0: it is left to time.
    purge_within: Duration,
    /// BOUND: one change of members at a time.
    changing: JoinSet<()>,
    tenure: Tenure,
    is_wanted: bool,
    /// Whether it was looked at what is on disk.
    has_looked: bool,
    has_told: bool,
}

/// Starts it over the control group's members. The driver is to be run as a task.
pub fn start(
    control: control::Handle,
    ground: Arc<dyn Ground>,
    purge_within: Duration,
    metrics: Metrics,
) -> (Replicated, Driver) {
    let (shared, commands, reads) = Shared::new(control, metrics);
    let shared = Arc::new(shared);
    shared.control.carry(&(Arc::clone(&shared) as Arc<dyn Carried>));
    let mut serving = JoinSet::new();
    serving.spawn(raft::owned(committer::run(Arc::clone(&shared), commands)));
    serving.spawn(raft::owned(reader::run(Arc::clone(&shared), reads)));
    let (candidacy, purging, changing) = Default::default();
    let (tenure, is_wanted, has_looked, has_told) = Default::default();
    let driver = Driver {
        shared: Arc::clone(&shared),
        ground,
        serving,
        candidacy,
        purging,
        purge_within,
        changing,
        tenure,
        is_wanted,
        has_looked,
        has_told,
    };
    (Replicated(shared), driver)
}

impl Driver {
    /// Runs until its stage stops, or the node has to: it then ends early, having said why.
    pub async fn run(mut self, stop: Stop) {
        let mut ended = self.drive(&stop).await;
        if let (Ok(()), Some(group)) = (&ended, self.hand_over()) {
            ended = tenure::until_another_leads(&group, self.drive(&Stop::new())).await;
        }
        if let Err(ended) = ended {
            tracing::error!(error = %ended, "stopping, so that nothing is acknowledged that may be lost");
        }
        self.serving.abort_all();
        if let Some(group) = self.shared.group.swap(None) {
            group.stop().await;
        }
    }

    async fn drive(&mut self, stop: &Stop) -> Result<(), Ended> {
        loop {
            self.tick().await?;
            let group = self.shared.group.load_full();
            let mut pass = pin!(pass(self.pause(group.is_some())));
            let mut failed = pin!(failed(group));
            // ORDER: what was changed is looked at with the next tick. A change that is refused at once is not made again at once.
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    why = &mut failed => return Err(Ended::Stopped(why)),
                    () = self.shared.wanted.notified(), if !self.is_wanted => {
                        self.is_wanted = true;
                        break;
                    }
                    Some(_) = self.changing.join_next(), if !self.changing.is_empty() => {}
                    () = &mut pass => break,
                }
            }
        }
    }

    /// Until the next look. None: a node alone is looked at once something is asked of it.
    fn pause(&self, is_here: bool) -> Option<Duration> {
        match (&self.shared.peers, is_here || self.is_wanted) {
            (None, _) if is_here || !self.is_wanted => None,
            (Some(_), false) => Some(IDLE_TICK),
            _ => Some(TICK),
        }
    }

    async fn tick(&mut self) -> Result<(), Ended> {
        let status = self.shared.control.status();
        let is_member = matches!(status.standing, Standing::Member(_));
        match self.shared.group.load_full() {
            Some(group) if is_member => self.tend(&group),
            Some(group) => {
                // The control group does not let this node take part any more.
                if matches!(status.standing, Standing::Expelled(_)) {
                    self.shared.group.store(None);
                    group.stop().await;
                }
                Ok(())
            }
            None => self.begin(is_member).await,
        }
    }

    // === how it comes to be ===

    async fn begin(&mut self, is_member: bool) -> Result<(), Ended> {
        let is_alone = self.shared.peers.is_none();
        if is_alone && !std::mem::replace(&mut self.has_looked, true) {
            self.is_wanted |= self.is_on_disk().await;
        }
        let began_at = self.shared.control.read(|it| it.began_at(GROUP)).flatten();
        if let (Some(at), true) = (began_at, is_member) {
            return self.take_part(at).await;
        }
        let leader = if is_alone { Some(self.shared.me) } else { self.shared.control.leader() };
        let Some(at) = leader.filter(|_| self.is_wanted) else { return Ok(()) };
        let command = Command::BeginGroup { group: GROUP, at };
        match raft::owned(self.shared.control.propose(&command, CONTROL_LIMIT)).await {
            // Taken part in at the next look.
            Ok(Outcome::Changed | Outcome::Unchanged) => {}
            Ok(Outcome::Refused(why)) => self.tell(&why),
            Err(error @ ControlError::NoCluster(_)) => self.tell(&error),
            Err(_) => {} // again at the next look
        }
        Ok(())
    }

    /// Whether this data directory has the group already.
    async fn is_on_disk(&self) -> bool {
        let ground = Arc::clone(&self.ground);
        let is_there = move || {
            let voters = ground.found().map(|store| raft::voters_on_disk(&store, GROUP));
            voters.is_some_and(|it| it.is_ok_and(|it| !it.is_empty()))
        };
        tokio::task::spawn_blocking(is_there).await.unwrap_or(false)
    }

    fn tell(&mut self, why: &dyn std::fmt::Display) {
        // Asked for again whenever somebody wants it.
        self.is_wanted = false;
        if !std::mem::replace(&mut self.has_told, true) {
            tracing::warn!(%why, "history cannot begin");
        }
    }

    async fn take_part(&mut self, began_at: StorageId) -> Result<(), Ended> {
        let shared = &self.shared;
        let ground = Arc::clone(&self.ground);
        let Some(store) = open(ground).await else { return Ok(()) };
        let (timing, _) = shared.control.timing();
        let (mesh, papers): (Arc<dyn raft::Mesh>, Arc<dyn raft::Papers>) = match shared.control.ways() {
            Some((peers, papers)) => (peers, papers),
            None => {
                let nobody = Arc::new(Nobody::default());
                (Arc::clone(&nobody) as _, nobody)
            }
        };
        let parts = raft::Parts { me: shared.me, group: GROUP, store, mesh, papers, timing };
        let group = Arc::new(Group::start(parts).await?);
        let stopped = |error: raft::ProposeError| Ended::Stopped(error.to_string());
        if began_at == shared.me {
            // Does nothing where the log has begun.
            group.found().await.map_err(stopped)?;
        }
        if shared.peers.is_none() {
            group.lead().await.map_err(stopped)?;
        } else {
            let standing = Arc::clone(&group);
            self.candidacy.spawn(raft::owned(async move { standing.stand().await }));
        }
        if !self.purge_within.is_zero() {
            let metrics = shared.metrics.clone();
            self.purging.spawn(raft::owned(purge::run(Arc::clone(&group), self.purge_within, metrics)));
        }
        shared.group.store(Some(group));
        tracing::debug!(%began_at, "this node takes part in the history group");
        Ok(())
    }

    // === while it is there ===

    fn tend(&mut self, group: &Arc<Group<History>>) -> Result<(), Ended> {
        let (now, status, me) = (Clock.now(), group.status(), self.shared.me);
        if let Some(why) = status.stopped {
            return Err(Ended::Stopped(why));
        }
        let is_leader = status.leader == Some(me);
        self.shared.metrics.stands(is_leader, &status);
        let Some(peers) = self.shared.peers.clone() else { return Ok(()) };
        self.make_room_for_another(group, &status, is_leader);
        let since = self.tenure.look(now, me, &status, "history");
        if let Some(since) = since.filter(|_| self.changing.is_empty()) {
            let (heard, left, active) = (group.heard(), peers.left(), peers.active());
            let (_, patience) = self.shared.control.timing();
            let change = self.shared.control.read(|state| {
                let seen = Seen { me, since, status: &status, state, heard: &heard, active: &active, left: &left };
                patience.next(now, &seen)
            });
            change.flatten().into_iter().for_each(|it| self.change(Arc::clone(group), it));
        }
        Ok(())
    }

    /// A leader whose disk is full wants another to lead. With three voters the other has this one's vote, so that nothing stops meanwhile, and where all are full all can still be read. With
    /// more, this one must fall silent to be missed.
    fn make_room_for_another(&mut self, group: &Arc<Group<History>>, status: &raft::Status, is_leader: bool) {
        let is_full = !group.has_room();
        group.yields(is_full && is_silent_when_full(status));
        if is_full && is_leader && self.changing.is_empty() {
            self.hand_over();
        }
    }

    fn change(&mut self, group: Arc<Group<History>>, change: Change) {
        tracing::info!(?change, "changing who is in the history group");
        self.changing.spawn(raft::owned(async move { tenure::make(&group, change).await }));
    }

    /// A leader that stops, or has no room, wants another to lead: the follower that is furthest is to stand for election. None: this node does not lead, or nobody follows.
    fn hand_over(&mut self) -> Option<Arc<Group<History>>> {
        let (group, me) = (self.shared.group.load_full()?, self.shared.me);
        let others = tenure::successors(&group.status(), me, &self.shared.peers.as_ref()?.active());
        if others.is_empty() {
            return None;
        }
        let shared = Arc::clone(&self.shared);
        self.changing.spawn(raft::owned(async move {
            for to in others {
                // Unheard, or refused by all, another is elected without it.
                let answer = timeout(HAND_OVER_LIMIT, shared.ask(to, Question::Stand)).await;
                if matches!(answer, Ok(Some(Answer::Stands(true)))) {
                    return;
                }
            }
        }));
        Some(group)
    }
}

/// Waits until it has stopped for good.
async fn failed(group: Option<Arc<Group<History>>>) -> String {
    match group {
        Some(group) => group.failed().await,
        None => std::future::pending().await,
    }
}

async fn pass(pause: Option<Duration>) {
    match pause {
        Some(pause) => Clock.sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Opens the store, beside the runtime if it is not open yet.
async fn open(ground: Arc<dyn Ground>) -> Option<Store> {
    if let Some(store) = ground.found() {
        return Some(store);
    }
    let opened = tokio::task::spawn_blocking(move || ground.open()).await;
    opened.ok().flatten()
}
