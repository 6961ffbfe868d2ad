//! Faults on purpose, in one's own lab: what is wrong with this node, said by an admin, each with an end of its own.
//!
//! ```text
//! api ─begin, lift─▶ Handle ─▶ Faults ◀─asked─ transport · workers · storage · raft's way out and in
//!                                │ ends
//!                              driver ─▶ the log, the wall clock
//! ```
//! A [`Handle`] is given to every place that can be made to fail. Without `--chaos` it is empty, and asking it is one comparison.
//!
//! *Invariants:* every fault has an end, at most [`LASTS_MAX`](self::core::LASTS_MAX) away, and there are at most [`ACTIVE_MAX`](self::core::ACTIVE_MAX); each begins and ends with a line in the
//! log; a node that was not started with `--chaos` cannot be made to have one. *Absent on purpose:* faults that the node would have to be told of by itself.
//! A process that hurts itself spares what it does not know of, so what is promised is proved from outside.

pub mod core;
pub mod fault;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use self::core::Active;
use self::core::Call;
use self::core::Carrier;
use self::core::Disk;
use self::core::Faults;
use self::core::Group;
use self::core::Heading;
use self::core::Refusal;
use self::core::Verdict;
use self::fault::Fault;
use self::fault::Kind;
use crate::base::clock;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::observability::labels::Label as _;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;

const TASK: Task = Task { name: "chaos", stage: Stage::Carry, on_end: OnEnd::Log };

/// Asks what is wrong, and changes it. Clones are the same one; the default has no faults and never will.
#[derive(Clone, Default)]
pub struct Handle(Option<Arc<Shared>>);

struct Shared {
    /// What is asked, many times a millisecond.
    faults: ArcSwap<Faults>,
    /// Held to change them. ORDER: what is published, counted and logged is of one change.
    changing: Mutex<Standing>,
    changed: Notify,
    entropy: Entropy,
    active: Each<Kind, Gauge>,
}

/// What the last change left.
#[derive(Default)]
struct Standing {
    faults: Faults,
    /// What the process's wall clock was last made to be off by.
    offset: i64,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Chaos").field(&self.0.is_some()).finish()
    }
}

/// Makes faults possible here, for as long as the tasks run.
#[must_use]
pub fn start(entropy: Entropy, registry: &mut Registry, tasks: &Tasks) -> Handle {
    let help =
        "Faults on purpose that are in force at this node (`smg chaos`). Anything but 0 outside of a lab is a mistake";
    let shared = Arc::new(Shared {
        faults: ArcSwap::default(),
        changing: Mutex::default(),
        changed: Notify::new(),
        entropy,
        active: registry.gauges("smg_chaos_faults_active", help, "kind"),
    });
    let handle = Handle(Some(Arc::clone(&shared)));
    tracing::warn!("started with --chaos: admins can make this node fail on purpose; for labs only");
    tasks.spawn(TASK, |stop| run(shared, stop));
    handle
}

/// Ends what is over, when it is.
async fn run(shared: Arc<Shared>, stop: Stop) {
    loop {
        let next = shared.faults.load().next_end();
        let ended = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = shared.changed.notified() => {}
            () = ended => {
                let now = Clock.now();
                shared.change(|faults| faults.lift(|it| it.until <= now), "by itself");
            }
        }
    }
    shared.change(|faults| faults.lift(|_| true), "with the node");
}

impl Shared {
    /// Publishes what `end` leaves, and says what ended.
    fn change(&self, end: impl FnOnce(&mut Faults) -> Vec<Active>, how: &'static str) -> Vec<Active> {
        let mut standing = self.changing.lock();
        let ended = end(&mut standing.faults);
        self.publish(&mut standing);
        for it in &ended {
            let (id, fault) = (shown(it.id), text(&it.fault));
            tracing::warn!(id, fault, how, "a fault on purpose has ended");
        }
        ended
    }

    fn publish(&self, standing: &mut Standing) {
        self.faults.store(Arc::new(standing.faults.clone()));
        let offset = standing.faults.wall_offset(Clock.now());
        // Only where it changes: several nodes may live in one process, and share its clock.
        if offset != standing.offset {
            standing.offset = offset;
            clock::set_wall_offset(offset);
        }
        for kind in Kind::ALL {
            let count = standing.faults.all().iter().filter(|it| it.fault.kind() == *kind).count();
            self.active.of(*kind).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

impl Handle {
    /// Whether this node can be made to fail.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a fault. `None`: this node was not started for that.
    #[must_use]
    pub fn begin(&self, fault: Fault, lasts: Duration) -> Option<Result<Active, Refusal>> {
        let shared = self.0.as_ref()?;
        let mut standing = shared.changing.lock();
        let begun = standing.faults.begin(Clock.now(), fault, lasts);
        if let Ok(active) = &begun {
            shared.publish(&mut standing);
            let (id, fault) = (shown(active.id), text(&active.fault));
            tracing::warn!(id, fault, ?lasts, "a fault on purpose has begun");
            shared.changed.notify_one();
        }
        Some(begun)
    }

    /// Ends one early; `None` for all. Returns what was ended: what was over already is not.
    #[must_use]
    pub fn lift(&self, id: Option<u64>) -> Vec<Active> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let now = Clock.now();
        let is_it = |it: &Active| now < it.until && id.is_none_or(|wanted| it.id == wanted);
        let lifted = shared.change(|faults| faults.lift(is_it), "lifted by an admin");
        shared.changed.notify_one();
        lifted
    }

    /// Those in force.
    #[must_use]
    pub fn active(&self) -> Vec<Active> {
        let now = Clock.now();
        self.0
            .as_ref()
            .map_or_else(Vec::new, |it| it.faults.load().all().iter().filter(|it| now < it.until).cloned().collect())
    }

    /// Whether nothing is wrong. Who has to work for a question asks this before.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.0.as_ref().is_none_or(|it| it.faults.load().all().is_empty())
    }

    /// What becomes of a message. See [`Faults::message`].
    #[must_use]
    pub fn message(&self, other: &str, heading: Heading, is_gossip: bool, carrier: Carrier) -> Verdict {
        self.ask(Verdict::Pass, |faults, entropy| {
            faults.message(Clock.now(), other, heading, is_gossip, carrier, entropy)
        })
    }

    /// Whether nothing passes between this node and that one, that way.
    #[must_use]
    pub fn is_cut(&self, other: &str, heading: Heading) -> bool {
        self.message(other, heading, false, Carrier::Stream(Duration::ZERO)) == Verdict::Cut
    }

    /// What becomes of a request to a worker.
    #[must_use]
    pub fn call(&self, url: impl FnOnce() -> String) -> Call {
        self.ask(Call::default(), |faults, _| faults.call(Clock.now(), &url()))
    }

    /// Whether a raft group neither speaks nor listens.
    #[must_use]
    pub fn is_raft_paused(&self, group: Group) -> bool {
        self.ask(false, |faults, _| faults.is_raft_paused(Clock.now(), group))
    }

    /// How the disk is.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.ask(Disk::default(), |faults, _| faults.disk(Clock.now()))
    }

    /// Asks, where there is anything to ask.
    fn ask<T>(&self, well: T, question: impl FnOnce(&Faults, &Entropy) -> T) -> T {
        let Some(shared) = &self.0 else { return well };
        let faults = shared.faults.load();
        if faults.all().is_empty() { well } else { question(&faults, &shared.entropy) }
    }
}

/// A fault's number, as people know it.
#[must_use]
pub fn shown(id: u64) -> String {
    format!("f-{id}")
}

/// Reads it.
#[must_use]
pub fn parse_id(text: &str) -> Option<u64> {
    text.strip_prefix("f-")?.parse().ok()
}

fn text(fault: &Fault) -> String {
    serde_json::to_string(fault).unwrap_or_else(|_never| fault.kind().as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gauge(registry: &Registry) -> bool {
        registry.render().contains("smg_chaos_faults_active{kind=\"gossip\"} 1\n")
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_ends_by_itself_and_so_does_what_is_told_of_it() {
        let (tasks, mut registry) = (Tasks::new(), Registry::default());
        let handle = start(Entropy::seeded(1), &mut registry, &tasks);
        let begun = handle.begin(Fault::Gossip {}, SECOND).unwrap().unwrap();
        let longer = handle.begin(Fault::DiskFull {}, 3 * SECOND).unwrap().unwrap();
        assert_eq!((handle.active(), gauge(&registry)), (vec![begun, longer.clone()], true));
        assert!(handle.disk().is_full);
        Clock.sleep(2 * SECOND).await;
        assert_eq!((handle.active(), gauge(&registry)), (vec![longer], false));
        Clock.sleep(2 * SECOND).await;
        assert_eq!((handle.active(), handle.disk()), (Vec::new(), Disk::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_lifted_or_all() {
        let (tasks, mut registry) = (Tasks::new(), Registry::default());
        let handle = start(Entropy::seeded(1), &mut registry, &tasks);
        let ids: Vec<u64> = (0..3).map(|_| handle.begin(Fault::Gossip {}, SECOND).unwrap().unwrap().id).collect();
        assert_eq!(handle.lift(Some(99)), []);
        assert_eq!(handle.lift(Some(ids[1])).iter().map(|it| it.id).collect::<Vec<_>>(), [ids[1]]);
        assert_eq!(handle.lift(None).len(), 2);
        assert_eq!(handle.active(), []);
        assert_eq!(parse_id(&shown(ids[2])), Some(ids[2]));
        assert_eq!([parse_id("7"), parse_id("f-"), parse_id("f--1")], [None; 3]);
    }

    #[test]
    fn who_was_not_started_for_it_is_always_well() {
        let handle = Handle::default();
        assert!(handle.begin(Fault::DiskFail {}, SECOND).is_none() && !handle.is_on());
        assert_eq!((handle.disk(), handle.active(), handle.lift(None)), Default::default());
        assert!(!handle.is_cut("n-1", Heading::In) && !handle.is_raft_paused(Group::Control));
    }
}
