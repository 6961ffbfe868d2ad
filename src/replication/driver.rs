//! The one task that owns the core's steps: frames, edits, members, the disk's answers and the clock become events, effects become frames and writes.
//!
//! ```text
//! Handle ──edit, publish──▶ driver ──frames──▶ transport       questions (`sync`) and their answers are requests there,
//!                            │  ▲                              all else are messages
//!                     batches▼  │stored
//!                            writer ── one fsync for all that waits
//! ```
//! The core is behind a lock so that readers need no copy of a table; it is held for a step, never over an await. *Absent on purpose:* decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Now;
use super::core::Core;
use super::core::EditError;
use super::core::Effect;
use super::core::Event;
use super::core::LoadError;
use super::core::Member;
use super::handle::Answer;
use super::handle::Command;
use super::handle::Handle;
use super::handle::Shared;
use super::metrics::Metrics;
use super::store::Batch;
use super::store::Store;
use super::tables::FORGOTTEN;
use super::tables::TABLES;
use super::tables::TableId;
use super::writer;
use super::writer::Written;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::membership;
use crate::transport;
use crate::transport::Peer;
use crate::transport::Received;
use crate::transport::Reply;
use crate::transport::Request;
use crate::transport::lanes::Lane;

const TASK: Task = Task { name: "replication", stage: Stage::Share, on_end: OnEnd::StopNode };
/// How often the core is told the time: half of what its shortest timer waits.
const TICK: Duration = Duration::from_millis(100);
/// What is asked of this task and waits. Beyond it edits are refused and rows are to be published again.
const COMMANDS_MAX: usize = 1024;
/// Questions under way to peers. Beyond it they are not asked; the core asks again.
const QUESTIONS_MAX: usize = 64;
/// A question that is not answered by then is given up; the core asks again before.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster that this node replicates with.
pub struct Peers {
    /// Who is here.
    pub membership: membership::Handle,
    /// How to reach them.
    pub transport: transport::Handle,
    /// Messages.
    pub deltas: mpsc::Receiver<Received>,
    /// Questions.
    pub sync: mpsc::Receiver<Request>,
}

/// Reads the tables back and starts replicating them; without peers they are this node's alone. Blocks on the disk.
pub fn start(
    me: Member,
    store: Box<dyn Store>,
    peers: Option<Peers>,
    metrics: Metrics,
    tasks: &Tasks,
) -> Result<Handle, LoadError> {
    let rows = store.load()?;
    let core = Core::new(me.clone(), TABLES, Entropy::from_os(), rows)?;
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let changes: BTreeMap<TableId, watch::Sender<u64>> =
        TABLES.iter().map(|spec| (spec.id, watch::channel(0).0)).collect();
    let started = Clock.now();
    let shared = Arc::new(Shared::new(core, changes, started, peers.is_some(), metrics.clone()));
    let (batches, written) = writer::start(store, tasks);
    let driver = Driver {
        shared: Arc::clone(&shared),
        me: me.node,
        started,
        asked,
        waiting: BTreeMap::new(),
        requests: 0,
        batches,
        written,
        questions: JoinSet::new(),
        addresses: BTreeMap::new(),
        has_forgotten: false,
        metrics,
    };
    tasks.spawn(TASK, |stop| driver.run(stop, peers));
    Ok(Handle::new(commands, shared))
}

struct Driver {
    shared: Arc<Shared>,
    me: NodeId,
    started: Instant,
    asked: mpsc::Receiver<Command>,
    /// Who waits for which edit. BOUND: the core refuses edits beyond what it has under way.
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    requests: u64,
    batches: mpsc::Sender<(u64, Batch)>,
    written: mpsc::Receiver<Written>,
    questions: JoinSet<Option<Event>>,
    addresses: BTreeMap<NodeId, Arc<Peer>>,
    /// Somebody was forgotten, and membership does not know yet.
    has_forgotten: bool,
    metrics: Metrics,
}

/// Whose question is being answered, and where the answer goes.
type Asker = (NodeId, Reply);

impl Driver {
    async fn run(mut self, stop: Stop, peers: Option<Peers>) {
        self.forget_all().await;
        match peers {
            Some(peers) => self.run_with(stop, peers).await,
            None => self.run_alone(stop).await,
        }
        // ORDER: what was asked for is written before the writer ends, and it ends when nobody can ask any more.
        drop(self.batches);
        while self.written.recv().await.is_some() {}
    }

    async fn run_alone(&mut self, stop: Stop) {
        self.step(Event::Tick, None, None).await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(written) = self.written.recv() => self.is_written(written, None).await,
                Some(command) = self.asked.recv() => self.command(command, None).await,
                else => break,
            }
        }
    }

    async fn run_with(&mut self, stop: Stop, peers: Peers) {
        let Peers { membership, transport, mut deltas, mut sync } = peers;
        let mut changed = membership.changes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.members(&membership, &transport).await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // ORDER: who is here is heard before what they say, or a new member's first words would be a stranger's.
                Ok(()) = changed.changed() => self.members(&membership, &transport).await,
                Some(written) = self.written.recv() => self.is_written(written, Some(&transport)).await,
                _ = tick.tick() => self.step(Event::Tick, None, Some(&transport)).await,
                Some(Ok(Some(event))) = self.questions.join_next(), if !self.questions.is_empty() => {
                    self.step(event, None, Some(&transport)).await;
                }
                Some(Received { from, bytes }) = deltas.recv() => {
                    self.step(Event::Received(from.node.clone(), bytes.into()), None, Some(&transport)).await;
                }
                Some(Request { from, bytes, answer }) = sync.recv() => {
                    let event = Event::Received(from.node.clone(), bytes.into());
                    self.step(event, Some((from.node.clone(), answer)), Some(&transport)).await;
                }
                Some(command) = self.asked.recv() => self.command(command, Some(&transport)).await,
                else => break,
            }
            if std::mem::take(&mut self.has_forgotten) {
                self.members(&membership, &transport).await;
            }
        }
    }

    async fn members(&mut self, membership: &membership::Handle, transport: &transport::Handle) {
        let view = membership.view();
        self.addresses = view.others(&self.me).map(|peer| (peer.node.clone(), Arc::clone(peer))).collect();
        let member = |peer: &Arc<Peer>| Member {
            node: peer.node.clone(),
            actor: super::dots::Actor { storage: peer.storage, boot: peer.boot },
        };
        let members: Vec<Member> = self.addresses.values().map(member).collect();
        // Members that were forgotten anywhere are forgotten by membership here too, once they are gone.
        let gone = view.members.iter().filter(|it| !it.status.is_active());
        let forgotten: Vec<NodeId> = self.shared.read(|core, _| {
            gone.filter(|it| core.is_forgotten(it.peer.storage)).map(|it| it.peer.node.clone()).collect()
        });
        for node in forgotten {
            let _ = membership.forget(node); // too much is being asked: the next change asks again
        }
        let are_any = !members.is_empty();
        self.step(Event::Members(members), None, Some(transport)).await;
        self.shared.members_are(are_any);
    }

    async fn command(&mut self, command: Command, transport: Option<&transport::Handle>) {
        match command {
            Command::Edit(edits, reply) => {
                self.requests += 1;
                self.waiting.insert(self.requests, reply);
                self.step(Event::Edit(self.requests, edits), None, transport).await;
            }
            Command::Publish(table, rows) => self.step(Event::Publish(table, rows), None, transport).await,
        }
    }

    async fn is_written(&mut self, written: Written, transport: Option<&transport::Handle>) {
        match written {
            Written::Through(tokens) => {
                for token in tokens {
                    self.step(Event::Stored(token), None, transport).await;
                }
            }
            Written::Failed => {
                self.step(Event::StoreFailed, None, transport).await;
                for (_, reply) in std::mem::take(&mut self.waiting) {
                    let _ = reply.send(Err(EditError::DiskFailed)); // whoever asked has left
                }
            }
        }
    }

    /// What was forgotten before this start, and then whatever an edit forgets.
    async fn forget_all(&mut self) {
        let forgotten: Vec<StorageId> = self.shared.read(|core, _| {
            let entries = core.admin(FORGOTTEN).into_iter().flat_map(super::admin::Admin::entries);
            let named = entries.filter_map(|(_, entry)| entry.fields.get(&super::tables::FORGOTTEN_STORAGE));
            let storages =
                named.filter_map(|it| Some(StorageId(u128::from_be_bytes(it.bytes.as_slice().try_into().ok()?))));
            storages.filter(|it| !core.is_forgotten(*it)).collect()
        });
        self.has_forgotten |= !forgotten.is_empty();
        for storage in forgotten {
            Box::pin(self.step(Event::Forget(storage), None, None)).await;
        }
    }

    async fn step(&mut self, event: Event, mut asker: Option<Asker>, transport: Option<&transport::Handle>) {
        let mut effects = Vec::new();
        self.shared.step(self.now(), event, &mut effects);
        let mut forgets = false;
        for effect in effects {
            match effect {
                Effect::Send(to, lane, frame) => self.send(&to, lane, frame, &mut asker, transport),
                // A disk that does not keep up holds this task up: what is said to be durable must not run ahead of it.
                Effect::Store(token, batch) => drop(self.batches.send((token, batch)).await),
                Effect::Answer(request, answer) => {
                    if let Some(reply) = self.waiting.remove(&request) {
                        let _ = reply.send(answer); // whoever asked has left; the edit is made all the same
                    }
                }
                Effect::Changed(table, _) => {
                    forgets |= table == FORGOTTEN;
                    self.shared.changed(table);
                }
                Effect::RowsChanged(table) => self.shared.changed(table),
                Effect::Everywhere(after) => self.metrics.everywhere(after),
            }
        }
        if forgets {
            self.forget_all().await;
        }
    }

    fn send(
        &mut self,
        to: &NodeId,
        lane: Lane,
        frame: Vec<u8>,
        asker: &mut Option<Asker>,
        transport: Option<&transport::Handle>,
    ) {
        let (Some(transport), Some(peer)) = (transport, self.addresses.get(to)) else { return };
        if lane == Lane::Deltas {
            let _ = transport.send(peer, lane, frame.into()); // counted there; pushes and rounds are repeated
            return;
        }
        if let Some((_, answer)) = asker.take_if(|(node, _)| node == to) {
            answer.send(frame.into());
            return;
        }
        if self.questions.len() >= QUESTIONS_MAX {
            return;
        }
        let (transport, peer) = (transport.clone(), Arc::clone(peer));
        self.questions.spawn(async move {
            let answer = transport.request(&peer, lane, &frame, QUESTION_TIMEOUT).await.ok()?;
            Some(Event::Received(peer.node.clone(), answer.into()))
        });
    }

    fn now(&self) -> Now {
        Now { mono: Clock.now().saturating_duration_since(self.started), wall: Clock.wall() }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
