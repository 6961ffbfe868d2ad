//! The control group of a node without a mesh: this node alone, durable, and there only once something needs it.
//!
//! ```text
//! propose ─▶ Alone ──wanted──▶ AloneDriver ─▶ Ground ─▶ data directory, store
//!              ▲                    │ begins it, once
//!              └──────── Part ◀─────┘
//! ```
//! It is founded when the first command comes, not at the start: three lone nodes with a cluster each would refuse each other the day they get a mesh. Then it lies on disk
//! as a member of a mesh has it, so the same node is the first of a mesh later. Nothing of it wakes an idle node: nobody is to be heard from, and no clock runs.
//!
//! *Invariants.* 1. A data directory that belongs with others, or is promised to them, is no group of one: their shares would be given out twice. 2. A disk
//! that fails stops the node. 3. Where nothing is kept, the group holds until the restart, as everything does there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Config;
use super::Standing;
use super::core::bootstrap::Kept;
use super::core::bootstrap::Stage;
use super::error::ControlError;
use super::error::Ended;
use super::handle::Handle;
use super::handle::Status;
use super::handle::Way;
use super::kept::GROUP;
use super::kept::keep;
use super::kept::kept_by;
use super::machine::Command;
use super::machine::Outcome;
use super::machine::Refusal;
use super::machine::State;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::tasks::Stop;
use crate::raft;
use crate::raft::Coded as _;
use crate::raft::Group;
use crate::raft::Nobody;
use crate::raft::ProposeError;
use crate::raft::Timing;
use crate::raft::frame::Badge;
use crate::storage::Store;
use crate::storage::StoreError;
use crate::storage::keys::Key;

/// The data directory of a node without a mesh. Both block on the disk.
pub trait Ground: Send + Sync + 'static {
    /// Which directory it is, or will be once it is made.
    fn me(&self) -> StorageId;
    /// The store, if there is one already. Makes nothing.
    fn found(&self) -> Option<Store>;
    /// What the node is, and its store, made if need be. None: nothing is kept.
    fn open(&self) -> (Config, Option<Store>);
}

/// What the handles share.
pub(super) struct Alone {
    pub(super) me: StorageId,
    wanted: Notify,
    part: watch::Sender<Part>,
}

/// How far it is.
#[derive(Clone)]
enum Part {
    /// Nobody needed it yet.
    Dormant,
    /// There was no room to found it.
    Full,
    /// On disk.
    Kept { cluster: ClusterId, group: Group<State> },
    /// In memory.
    Passing(Arc<Passing>),
    /// Not to be had here.
    Absent(Standing),
}

struct Passing {
    cluster: ClusterId,
    /// How many commands it took, and what they made.
    state: Mutex<(u64, State)>,
}

impl Passing {
    fn decide(&self, command: Command) -> Outcome {
        let mut state = self.state.lock();
        state.0 += 1;
        let index = state.0;
        state.1.decide(index, command, &mut Vec::new())
    }
}

impl Alone {
    pub(super) async fn propose(&self, command: &Command, limit: Duration) -> Result<Outcome, ControlError> {
        timeout(limit, self.decide(command)).await.unwrap_or(Err(ControlError::Unanswered))
    }

    async fn decide(&self, command: &Command) -> Result<Outcome, ControlError> {
        match self.begun().await {
            Part::Kept { group, .. } => {
                let bytes = command.encode().map_err(|_bug| ControlError::Unanswered)?;
                match group.propose(bytes).await {
                    Ok(it) => Outcome::decode(&it.outcome).map_err(|_newer| ControlError::Unanswered),
                    Err(ProposeError::NoRoom) => Err(ControlError::NoRoom),
                    // The node stops, or it is a bug; it may be asked again after the restart.
                    Err(_) => Err(ControlError::Unanswered),
                }
            }
            Part::Passing(passing) => Ok(passing.decide(command.clone())),
            Part::Absent(standing) => Err(ControlError::NoCluster(standing)),
            Part::Full => Err(ControlError::NoRoom),
            Part::Dormant => Err(ControlError::Unanswered),
        }
    }

    /// The term in which this node leads, which it does wherever it may have a group. Nobody led one that is not founded: 0. What is concluded then, from nothing, the machine refuses
    /// if there was a group on disk after all.
    pub(super) fn leads(&self) -> Option<u64> {
        match &*self.part.borrow() {
            Part::Dormant | Part::Full => Some(0),
            Part::Kept { group, .. } => {
                let status = group.status();
                status.leader.map(|_| status.term)
            }
            Part::Passing(_) => Some(1),
            Part::Absent(_) => None,
        }
    }

    /// The group; asks for it where it is not there yet.
    async fn begun(&self) -> Part {
        let mut seen = self.part.subscribe();
        let part = seen.borrow_and_update().clone();
        if !matches!(part, Part::Dormant | Part::Full) {
            return part;
        }
        self.wanted.notify_one();
        let _ = seen.changed().await; // the sender is `self`'s
        seen.borrow().clone()
    }

    pub(super) fn read<R>(&self, read: impl FnOnce(&State) -> R) -> Option<R> {
        match self.part.borrow().clone() {
            Part::Kept { group, .. } => Some(group.read(read)),
            Part::Passing(passing) => Some(read(&passing.state.lock().1)),
            Part::Dormant | Part::Full | Part::Absent(_) => None,
        }
    }

    pub(super) fn status(&self) -> Status {
        let (standing, group, has_room) = match self.part.borrow().clone() {
            Part::Dormant => (Standing::Dormant, raft::Status::default(), true),
            Part::Full => (Standing::Dormant, raft::Status::default(), false),
            Part::Kept { cluster, group } => (Standing::Member(cluster), group.status(), group.has_room()),
            Part::Passing(it) => {
                let (applied, me) = (it.state.lock().0, self.me);
                let alone = raft::Status { leader: Some(me), voters: [me].into(), applied, ..raft::Status::default() };
                (Standing::Passing(it.cluster), alone, true)
            }
            Part::Absent(standing) => (standing, raft::Status::default(), true),
        };
        let (cluster, level) = self.read(|it| (it.cluster(), it.level())).unwrap_or_default();
        Status { standing, cluster, level, has_room, group }
    }
}

/// The one that begins it. To be run as a task.
pub struct AloneDriver {
    shared: Arc<Alone>,
    ground: Arc<dyn Ground>,
}

/// A node without a mesh.
#[must_use]
pub fn alone(ground: Arc<dyn Ground>) -> (Handle, AloneDriver) {
    let (me, wanted, part) = (ground.me(), Notify::new(), watch::Sender::new(Part::Dormant));
    let shared = Arc::new(Alone { me, wanted, part });
    (Handle(Way::Alone(Arc::clone(&shared))), AloneDriver { shared, ground })
}

impl AloneDriver {
    /// Runs until its stage stops, or the node has to: it then ends early, having said why.
    pub async fn run(self, stop: Stop) {
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.drive() => ended,
        };
        if let Err(ended) = ended {
            tracing::error!(error = %ended, "stopping, so that nothing is acknowledged that may be lost");
        }
        let part = self.shared.part.borrow().clone();
        if let Part::Kept { group, .. } = part {
            group.stop().await;
        }
    }

    /// Ends only with a failure.
    async fn drive(&self) -> Result<(), Ended> {
        if !self.is_there().await? {
            self.shared.wanted.notified().await;
        }
        loop {
            let part = self.begin().await?;
            self.shared.part.send_replace(part.clone());
            match part {
                Part::Kept { group, .. } => return Err(Ended::Stopped(group.failed().await)),
                Part::Dormant | Part::Full => self.shared.wanted.notified().await,
                Part::Passing(_) | Part::Absent(_) => std::future::pending().await,
            }
        }
    }

    /// Whether this data directory ever had to do with a group.
    async fn is_there(&self) -> Result<bool, StoreError> {
        let ground = Arc::clone(&self.ground);
        let Some(store) = on_disk(move || ground.found()).await? else { return Ok(false) };
        let kept: Option<Kept> = store.on_disk(|it| it.read(Key::Own(GROUP))).await?;
        Ok(kept.is_some_and(|it| it.stage != Stage::Fresh || it.only.is_some()))
    }

    async fn begin(&self) -> Result<Part, Ended> {
        let ground = Arc::clone(&self.ground);
        let (config, store) = on_disk(move || ground.open()).await?;
        let Some(store) = store else { return Ok(Part::Passing(Arc::new(passing(&config)))) };
        let me = config.me;
        let mut kept = store.on_disk(move |it| kept_by(it, me)).await?;
        let cluster = match whose(&kept, raft::voters_on_disk(&store, GROUP)?) {
            Ok(known) => known.unwrap_or(config.draw),
            Err(standing) => return Ok(Part::Absent(standing)),
        };
        let is_new = !matches!(kept.stage, Stage::Member { .. });
        if is_new && store.room_for(0).is_err() {
            return Ok(Part::Full);
        }
        if is_new {
            kept.stage = Stage::Founding { cluster };
            keep(&store, &kept).await?;
        }
        let group = take_part(&config, cluster, &store).await?;
        let absent = match register(&group, &config, cluster).await? {
            Registered::Yes => None,
            Registered::No(refusal) => Some(Part::Absent(Standing::Expelled(refusal))),
            Registered::NoRoom => Some(Part::Full),
        };
        if let Some(absent) = absent {
            group.stop().await;
            return Ok(absent);
        }
        if is_new {
            kept.stage = Stage::Member { cluster };
            keep(&store, &kept).await?;
            tracing::info!(%cluster, "this node has a control group of its own");
        }
        Ok(Part::Kept { cluster, group })
    }
}

/// Which group this directory may go on with alone; None: it may found one.
fn whose(kept: &Kept, mut voters: BTreeSet<StorageId>) -> Result<Option<ClusterId>, Standing> {
    let is_voter = voters.remove(&kept.storage);
    match (kept.stage, kept.only) {
        (Stage::Fresh, None) => Ok(None),
        (Stage::Fresh, Some(cluster)) => Err(Standing::NeedsMesh(cluster)),
        (Stage::Granted { to }, _) => Err(Standing::Promised(to)),
        (Stage::Founding { cluster }, _) if voters.is_empty() => Ok(Some(cluster)),
        (Stage::Member { cluster }, _) if is_voter && voters.is_empty() => Ok(Some(cluster)),
        (Stage::Founding { cluster } | Stage::Member { cluster }, _) => Err(Standing::NeedsMesh(cluster)),
    }
}

async fn take_part(config: &Config, cluster: ClusterId, store: &Store) -> Result<Group<State>, Ended> {
    let badge = Badge { cluster: cluster.0, boot: config.life.boot, nonce: config.life.nonce, since: 0 };
    let nobody = Arc::new(Nobody(badge));
    let (mesh, papers): (Arc<dyn raft::Mesh>, Arc<dyn raft::Papers>) = (Arc::clone(&nobody) as _, nobody);
    let (me, timing) = (config.me, Timing::alone());
    let parts = raft::Parts { me, group: GROUP, store: store.clone(), mesh, papers, timing };
    let group = Group::start(parts).await?;
    let stopped = |error: ProposeError| Ended::Stopped(error.to_string());
    group.found().await.map_err(stopped)?;
    group.lead().await.map_err(stopped)?;
    Ok(group)
}

/// Whether the log knows this node.
enum Registered {
    Yes,
    No(Refusal),
    NoRoom,
}

/// Sees to it that the log knows the cluster and this start of the directory.
async fn register(group: &Group<State>, config: &Config, cluster: ClusterId) -> Result<Registered, Ended> {
    let commands = [Command::Found { cluster, level: config.level_max }, Command::Register(config.registration())];
    for command in commands {
        let bytes = command.encode().map_err(StoreError::from)?;
        let committed = match group.propose(bytes).await {
            Ok(committed) => committed,
            // What it needs is known from an earlier start.
            Err(ProposeError::NoRoom) if group.read(|it| it.cluster()).is_some() => return Ok(Registered::Yes),
            Err(ProposeError::NoRoom) => return Ok(Registered::NoRoom),
            Err(error) => return Err(Ended::Stopped(error.to_string())),
        };
        if let Ok(Outcome::Refused(refusal)) = Outcome::decode(&committed.outcome) {
            return Ok(Registered::No(refusal));
        }
    }
    Ok(Registered::Yes)
}

fn passing(config: &Config) -> Passing {
    let passing = Passing { cluster: config.draw, state: Mutex::default() };
    passing.decide(Command::Found { cluster: config.draw, level: config.level_max });
    passing.decide(Command::Register(config.registration()));
    passing
}

/// Waits for the disk beside the runtime. Work that was given up, because the runtime goes down, counts as failed.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_gone| StoreError::Failed)
}
