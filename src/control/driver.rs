//! The one task that steps the cores of this area: messages and time become events, effects become fsyncs, questions and changes of the group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Carried;
use super::Config;
use super::Peers;
use super::Standing;
use super::core::bootstrap;
use super::core::bootstrap::Effect;
use super::core::bootstrap::Kept;
use super::core::bootstrap::Stage;
use super::core::lives::Registering;
use super::core::voters::Change;
use super::core::voters::Seen;
use super::error::Ended;
use super::handle::Handle;
use super::handle::Way;
use super::kept::GROUP;
use super::kept::keep;
use super::kept::kept_by;
use super::machine::Command;
use super::machine::Outcome;
use super::machine::Refusal;
use super::machine::State;
use super::messages::Answer;
use super::messages::Message;
use super::metrics::Metrics;
use super::shared::Expelled;
use super::shared::Shared;
use super::shared::registered;
use super::tenure;
use super::tenure::HAND_OVER_LIMIT;
use super::tenure::Tenure;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::tasks::Stop;
use crate::raft;
use crate::raft::Group;
use crate::raft::Papers;
use crate::raft::frame;
use crate::storage::Store;
use crate::storage::StoreError;
use crate::transport::Reply;
use crate::transport::Request;
use crate::transport::lanes::Lane;

/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(250);
/// Between two greetings of each other node: of one without a group, and of one with.
const HELLO_EVERY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// An answer that comes later than this is not waited for.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// A registration in the log that was not answered is proposed again after this.
const PROPOSE_LIMIT: Duration = Duration::from_secs(5);
/// Messages that are answered at a time. Beyond it they are refused and counted: whoever asks asks again.
const SERVING_MAX: usize = 256;

/// What it stands on.
pub struct Parts {
    /// What this node is told.
    pub config: Config,
    /// Where it is kept.
    pub store: Store,
    /// The other nodes.
    pub peers: Arc<dyn Peers>,
    /// What they ask.
    pub inbox: mpsc::Receiver<Request>,
    /// Pieces of snapshots.
    pub bulk: mpsc::Receiver<Request>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Reads what is on disk, or begins there. Blocks on the disk. The driver is to be run as a task.
pub fn start(parts: Parts) -> Result<(Handle, Driver), StoreError> {
    let Parts { config, store, peers, inbox, bulk, metrics } = parts;
    let kept = kept_by(&store, config.me)?;
    let core = bootstrap::Core::new(Clock.now(), config.me, kept.stage, config.expect, config.draw, kept.only);
    let shared = Arc::new(Shared {
        peers,
        metrics,
        group: ArcSwapOption::empty(),
        cluster: Mutex::new(kept.stage.cluster()),
        lives: ArcSwap::from_pointee(kept.lives.clone()),
        standing: ArcSwap::from_pointee(Standing::Outside(core.standing())),
        expelled: Mutex::default(),
        carried: OnceLock::new(),
        config,
    });
    let driver = Driver {
        shared: Arc::clone(&shared),
        store,
        inbox,
        bulk,
        core,
        kept,
        registering: None,
        refusal: None,
        tenure: Tenure::default(),
        hello_at: Clock.now(),
        asking: JoinSet::new(),
        serving: JoinSet::new(),
        changing: JoinSet::new(),
        proposing: JoinSet::new(),
        candidacy: JoinSet::new(),
    };
    Ok((Handle(Way::Meshed(shared)), driver))
}

/// What another node answered, and to what.
enum Answered {
    Hello(StorageId, Option<Answer>),
    Grant(StorageId, Option<Answer>),
    Life(StorageId, Option<Answer>),
}

/// See the file's header.
pub struct Driver {
    shared: Arc<Shared>,
    store: Store,
    inbox: mpsc::Receiver<Request>,
    bulk: mpsc::Receiver<Request>,
    core: bootstrap::Core,
    /// What is on disk.
    kept: Kept,
    /// Voters that are still to hear of this start.
    registering: Option<Registering>,
    /// Why this node must not take part.
    refusal: Option<Refusal>,
    tenure: Tenure,
    hello_at: Instant,
    /// BOUND: a few for each member of the mesh; no round begins before the last one ended.
    asking: JoinSet<Answered>,
    /// BOUND: [`SERVING_MAX`].
    serving: JoinSet<()>,
    /// BOUND: one change of members at a time.
    changing: JoinSet<()>,
    /// BOUND: one command of its own at a time.
    proposing: JoinSet<()>,
    /// Stands for election where it must. BOUND: one, of the group that this node takes part in.
    candidacy: JoinSet<()>,
}

enum Branch {
    Asked(Request),
    Piece(Request),
    Answered(Answered),
    Done,
    Time,
}

impl Driver {
    /// Runs until its stage stops, or the node has to: it then ends early, having said why.
    pub async fn run(mut self, stop: Stop) {
        let mut ended = self.drive(&stop).await;
        if let (Ok(()), Some(group)) = (&ended, self.hand_over()) {
            ended = tenure::until_another_leads(&group, self.go_on(&Stop::new())).await;
        }
        if let Err(ended) = ended {
            tracing::error!(error = %ended, "stopping, so that nothing is acknowledged that may be lost");
        }
        if let Some(group) = self.shared.group.swap(None) {
            group.stop().await;
        }
    }

    async fn drive(&mut self, stop: &Stop) -> Result<(), Ended> {
        match self.kept.stage {
            Stage::Fresh | Stage::Granted { .. } => {}
            Stage::Founding { .. } => self.take_part().await?,
            Stage::Member { .. } => {
                let voters = raft::voters_on_disk(&self.store, GROUP)?;
                self.registering = Some(Registering::new(self.shared.config.me, voters));
            }
        }
        self.go_on(stop).await
    }

    async fn go_on(&mut self, stop: &Stop) -> Result<(), Ended> {
        let mut next = Clock.now();
        loop {
            let branch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = Clock.sleep(next.saturating_duration_since(Clock.now())) => Branch::Time,
                Some(Ok(answered)) = self.asking.join_next(), if !self.asking.is_empty() => Branch::Answered(answered),
                Some(_) = self.serving.join_next(), if !self.serving.is_empty() => Branch::Done,
                Some(_) = self.changing.join_next(), if !self.changing.is_empty() => Branch::Done,
                Some(_) = self.proposing.join_next(), if !self.proposing.is_empty() => Branch::Done,
                request = self.inbox.recv() => match request {
                    Some(request) => Branch::Asked(request),
                    None => return Ok(()), // transport is gone: the node stops
                },
                Some(request) = self.bulk.recv() => Branch::Piece(request),
            };
            match branch {
                Branch::Asked(request) => self.asked(request).await?,
                Branch::Piece(Request { from, bytes, answer }) => {
                    self.serve(from.storage, Lane::Bulk, None, bytes, answer);
                }
                Branch::Answered(answered) => self.answered(answered),
                Branch::Done => {}
                Branch::Time => {
                    self.tick().await?;
                    next = Clock.now() + TICK;
                }
            }
        }
    }

    // === what others ask ===

    async fn asked(&mut self, request: Request) -> Result<(), Ended> {
        let Request { from, bytes, answer } = request;
        let (now, from) = (Clock.now(), from.storage);
        if let Some(carried) = self.shared.carried().filter(|it| bytes.first() == Some(&it.first_byte())) {
            self.serve_carried(carried, from, bytes, answer);
            return Ok(());
        }
        let reply = match Message::decode(&bytes) {
            Some(Message::Hello(said)) => {
                self.core.heard(now, from, said);
                Answer::Said(self.core.says(&self.shared.peers.active()))
            }
            // Not answered, so it is asked again: what is told must be on disk first.
            Some(Message::Grant { .. } | Message::Life { .. }) if !self.has_room() => return Ok(()),
            Some(Message::Grant { expect }) => {
                let mut effects = Vec::new();
                let is_granted = self.core.asked(from, expect as usize, &mut effects);
                self.perform(effects).await?;
                Answer::Granted(is_granted)
            }
            Some(Message::Life { cluster, life }) => match self.kept.stage.cluster() == Some(cluster) {
                true => Answer::Life(self.hear_of(from, life).await?),
                false => Answer::OtherCluster,
            },
            Some(Message::Stand { cluster }) => Answer::Stands(self.stand_for(from, cluster).await),
            message @ (Some(Message::Propose { .. }) | None) => {
                self.serve(from, Lane::Raft, message, bytes, answer);
                return Ok(());
            }
        };
        if let Ok(bytes) = reply.encode() {
            answer.send(bytes.into());
        }
        Ok(())
    }

    /// The leader stops, and wants this node to lead. Nobody else is heard in this: an election costs a leader its office.
    async fn stand_for(&self, from: StorageId, cluster: ClusterId) -> bool {
        let is_own = self.kept.stage.cluster() == Some(cluster) && self.refusal.is_none();
        let group =
            self.shared.group.load_full().filter(|it| is_own && it.has_room() && it.status().leader == Some(from));
        match group {
            Some(group) => group.stand_now().await,
            None => false,
        }
    }

    /// Before a leader stops: the follower that is furthest is to stand for election. None: this node does not lead, or nobody follows.
    fn hand_over(&mut self) -> Option<Arc<Group<State>>> {
        let (group, me, cluster) = (self.shared.group.load_full()?, self.shared.config.me, self.kept.stage.cluster()?);
        let to = *tenure::successors(&group.status(), me, &self.shared.peers.active()).first()?;
        let shared = Arc::clone(&self.shared);
        self.serving.spawn(raft::owned(async move {
            drop(shared.ask(to, &Message::Stand { cluster }, HAND_OVER_LIMIT).await); // unheard, another is elected without it
        }));
        Some(group)
    }

    /// Answers what waits for the group, beside the loop.
    fn serve(&mut self, from: StorageId, lane: Lane, message: Option<Message>, bytes: Bytes, answer: Reply) {
        if self.serving.len() >= SERVING_MAX {
            self.shared.metrics.refused(frame::Refusal::Busy);
            if let (None, Ok(reply)) = (message, frame::Answer::Refused(frame::Refusal::Busy.into()).encode()) {
                answer.send(reply.into());
            }
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.serving.spawn(raft::owned(async move {
            let reply = match message {
                Some(Message::Propose { cluster, command }) => shared.propose_here(cluster, command).await.encode(),
                _ => match shared.serve(from, lane, &bytes).await {
                    Some(it) => it.encode(),
                    // Told at once, whoever asks would ask again at once.
                    None => return Clock.sleep(ASK_LIMIT).await,
                },
            };
            if let Ok(reply) = reply {
                answer.send(reply.into());
            }
        }));
    }

    /// Answers what is another group's, beside the loop. Too many are not answered: whoever asks asks again.
    fn serve_carried(&mut self, carried: Arc<dyn Carried>, from: StorageId, bytes: Bytes, answer: Reply) {
        if self.serving.len() >= SERVING_MAX {
            self.shared.metrics.refused(frame::Refusal::Busy);
            return;
        }
        self.serving.spawn(raft::owned(async move {
            if let Some(reply) = carried.serve(from, bytes).await {
                answer.send(reply.into());
            }
        }));
    }

    /// Another data directory has been started: known to be so, on disk, before it is answered.
    async fn hear_of(
        &mut self,
        from: StorageId,
        life: super::core::lives::Life,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let known = self.shared.group.load().as_ref().and_then(|it| it.read(|state| registered(state, from)));
        let is_forgotten = self.shared.group.load().as_ref().is_some_and(|it| it.read(|it| it.is_forgotten(from)));
        if is_forgotten {
            return Ok(Err(Refusal::Forgotten));
        }
        if let Some(known) = known {
            // What the log has, every voter has heard.
            let _ = self.kept.lives.register(from, known); // an earlier one than was told here
        }
        if self.kept.lives.is_full() {
            // Who is not registered is in no group; it says so again when it is.
            let group = self.shared.group.load_full();
            self.kept
                .lives
                .keep(|it| group.as_ref().is_some_and(|group| group.read(|state| registered(state, it).is_some())));
        }
        match self.kept.lives.register(from, life) {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(false) => {}
            Ok(true) => self.keep().await?,
        }
        self.shared.lives.store(Arc::new(self.kept.lives.clone()));
        Ok(Ok(()))
    }

    fn answered(&mut self, answered: Answered) {
        let now = Clock.now();
        match answered {
            Answered::Hello(from, Some(Answer::Said(said))) => self.core.heard(now, from, said),
            Answered::Grant(from, Some(Answer::Granted(is_granted))) => self.core.answered(now, from, is_granted),
            Answered::Life(from, Some(Answer::Life(Ok(())))) => {
                self.registering.iter_mut().for_each(|it| it.accepted(from));
            }
            Answered::Life(_, Some(Answer::Life(Err(refusal)))) => self.expel(refusal),
            Answered::Hello(..) | Answered::Grant(..) | Answered::Life(..) => {} // asked again
        }
    }

    // === what time brings ===

    async fn tick(&mut self) -> Result<(), Ended> {
        let (now, active) = (Clock.now(), self.shared.peers.active());
        if self.has_room() {
            let mut effects = Vec::new();
            self.core.step(now, &active, &mut effects);
            self.perform(effects).await?;
        }
        let expelled = self.shared.expelled.lock().take();
        match expelled {
            Some(Expelled::Member(why)) => self.expel(refusal_of(why, self.shared.config.life.boot)),
            Some(Expelled::Group(refusal)) => self.expel(refusal),
            None => {}
        }
        if self.refusal.is_some() {
            if let Some(group) = self.shared.group.swap(None) {
                group.stop().await;
            }
        } else {
            self.register(&active).await?;
            self.tend(now, &active).await?;
        }
        self.greet(now, &active);
        self.shared.standing.store(Arc::new(self.standing()));
        Ok(())
    }

    async fn perform(&mut self, effects: Vec<Effect>) -> Result<(), Ended> {
        for effect in effects {
            match effect {
                Effect::Keep(stage) => {
                    self.kept.stage = stage;
                    self.keep().await?;
                    *self.shared.cluster.lock() = stage.cluster();
                }
                Effect::AskGrant(from) => {
                    let shared = Arc::clone(&self.shared);
                    let message = Message::Grant { expect: shared.config.expect as u32 };
                    self.asking.spawn(raft::owned(async move {
                        Answered::Grant(from, shared.ask(from, &message, ASK_LIMIT).await)
                    }));
                }
                Effect::Found(cluster) => {
                    tracing::info!(%cluster, "all grants are there: this node founds the cluster");
                    self.take_part().await?;
                }
                Effect::Join(cluster) => {
                    tracing::info!(%cluster, "joining the cluster that is there");
                    self.take_part().await?;
                }
            }
        }
        Ok(())
    }

    /// Whether a few bytes may be written. A full disk begins nothing, and goes on when there is room.
    fn has_room(&self) -> bool {
        self.store.room_for(0).is_ok()
    }

    async fn keep(&self) -> Result<(), StoreError> {
        keep(&self.store, &self.kept).await
    }

    async fn take_part(&mut self) -> Result<(), Ended> {
        let shared = &self.shared;
        let papers: Arc<dyn Papers> = Arc::clone(shared) as Arc<dyn Papers>;
        let mesh: Arc<dyn raft::Mesh> = Arc::clone(&shared.peers) as Arc<dyn raft::Mesh>;
        let (me, timing) = (shared.config.me, shared.config.timing);
        let parts = raft::Parts { me, group: GROUP, store: self.store.clone(), mesh, papers, timing };
        let group = Arc::new(Group::start(parts).await?);
        self.shared.group.store(Some(Arc::clone(&group)));
        self.candidacy.spawn(raft::owned(async move { group.stand().await }));
        Ok(())
    }

    /// Tells the voters of this start; takes part once a majority knows.
    async fn register(&mut self, active: &BTreeSet<StorageId>) -> Result<(), Ended> {
        let Some(registering) = &self.registering else { return Ok(()) };
        let is_enough = registering.is_enough();
        if is_enough && self.shared.group.load().is_none() {
            self.take_part().await?;
        }
        let Some(cluster) = self.kept.stage.cluster() else { return Ok(()) };
        let open: Vec<StorageId> = self.registering.iter().flat_map(Registering::open).collect();
        for to in open.into_iter().filter(|it| active.contains(it)) {
            let (shared, life) = (Arc::clone(&self.shared), self.shared.config.life);
            self.asking.spawn(raft::owned(async move {
                Answered::Life(to, shared.ask(to, &Message::Life { cluster, life }, ASK_LIMIT).await)
            }));
        }
        Ok(())
    }

    /// Looks after the group that this node takes part in.
    async fn tend(&mut self, now: Instant, active: &BTreeSet<StorageId>) -> Result<(), Ended> {
        let Some(group) = self.shared.group.load_full() else { return Ok(()) };
        let status = group.status();
        if let Some(why) = status.stopped {
            return Err(Ended::Stopped(why));
        }
        group.yields(!group.has_room());
        let is_leader = status.leader == Some(self.shared.config.me);
        self.shared.metrics.stands(is_leader, &status);
        let since = self.tenure.look(now, self.shared.config.me, &status, "control");
        if let Stage::Founding { cluster } = self.kept.stage {
            self.found(&group, cluster, is_leader).await?;
        }
        self.register_in_log(&group);
        if let Some(since) = since.filter(|_| self.changing.is_empty()) {
            let (heard, left) = (group.heard(), self.shared.peers.left());
            let me = self.shared.config.me;
            let change = group.read(|state| {
                let seen = Seen { me, since, status: &status, state, heard: &heard, active, left: &left };
                self.shared.config.patience.next(now, &seen)
            });
            change.into_iter().for_each(|it| self.change(Arc::clone(&group), it));
        }
        Ok(())
    }

    async fn found(&mut self, group: &Group<State>, cluster: ClusterId, is_leader: bool) -> Result<(), Ended> {
        if group.read(|it| it.cluster()) == Some(cluster) {
            let mut effects = Vec::new();
            self.core.founded(&mut effects);
            return Box::pin(self.perform(effects)).await;
        }
        // Does nothing where the log has begun: this node was stopped in the middle of it.
        group.found().await.map_err(|error| Ended::Stopped(error.to_string()))?;
        if is_leader {
            self.propose(Command::Found { cluster, level: self.shared.config.level_max });
        }
        Ok(())
    }

    /// Sees to it that the log knows this start.
    fn register_in_log(&mut self, group: &Group<State>) {
        let config = &self.shared.config;
        let known = group.read(|it| it.storages().get(&config.me).cloned());
        let is_known = known.is_some_and(|it| {
            (it.boot, it.nonce, it.level_max) == (config.life.boot, config.life.nonce, config.level_max)
                && it.zone == config.zone
        });
        let is_member = matches!(self.kept.stage, Stage::Member { .. });
        if is_member && !is_known {
            self.propose(Command::Register(config.registration()));
        }
    }

    fn propose(&mut self, command: Command) {
        if !self.proposing.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.proposing.spawn(raft::owned(async move {
            match shared.propose(&command, PROPOSE_LIMIT).await {
                Ok(Outcome::Refused(refusal)) => {
                    tracing::warn!(%refusal, "the control group refused this node");
                    shared.refuse(refusal);
                }
                Ok(Outcome::Changed | Outcome::Unchanged) | Err(_) => {} // looked at again at the next tick
            }
        }));
    }

    fn change(&mut self, group: Arc<Group<State>>, change: Change) {
        tracing::info!(?change, "changing who is in the control group");
        self.changing.spawn(raft::owned(async move { tenure::make(&group, change).await }));
    }

    /// Asks the others how they stand.
    fn greet(&mut self, now: Instant, active: &BTreeSet<StorageId>) {
        if now < self.hello_at || !self.asking.is_empty() {
            return;
        }
        let is_member = self.kept.stage.cluster().is_some();
        self.hello_at = now + HELLO_EVERY[usize::from(is_member)];
        let said = self.core.says(active);
        for to in active.iter().copied() {
            let (shared, message) = (Arc::clone(&self.shared), Message::Hello(said.clone()));
            self.asking
                .spawn(raft::owned(async move { Answered::Hello(to, shared.ask(to, &message, ASK_LIMIT).await) }));
        }
    }

    fn expel(&mut self, refusal: Refusal) {
        if self.refusal.is_none() {
            tracing::error!(%refusal, "this node takes no part in the control group");
        }
        self.refusal.get_or_insert(refusal);
    }

    fn standing(&self) -> Standing {
        let outside = self.core.standing();
        match (&self.refusal, &self.registering, self.kept.stage.cluster()) {
            (Some(refusal), _, _) => Standing::Expelled(refusal.clone()),
            (None, _, Some(cluster)) if outside == bootstrap::Standing::Member(cluster) => match &self.registering {
                Some(it) if !it.is_enough() => {
                    let (accepted, voters) = it.counts();
                    Standing::Registering { cluster, accepted, voters }
                }
                Some(_) | None => Standing::Member(cluster),
            },
            _ => Standing::Outside(outside),
        }
    }
}

/// What a member's refusal means to this node.
fn refusal_of(why: frame::Refusal, boot: u64) -> Refusal {
    match why {
        frame::Refusal::Forgotten => Refusal::Forgotten,
        _ => Refusal::Copy { known: boot + 1, boot },
    }
}
