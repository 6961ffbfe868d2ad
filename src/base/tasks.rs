//! The only door to spawn: every task has a name, a stage in which it stops, and a rule for when it ends early.
//!
//! Shutdown goes through [`Stage`]s in order, each with a deadline, so that what serves is stopped before what it
//! stands on. A task that ends by itself before its stage is an event in the log, never silence.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
pub use tokio_util::sync::CancellationToken as Stop;

use super::clock::Clock;

/// When a task stops. In this order, so nothing loses what it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Stop listening; readiness is false.
    Accept,
    /// Finish streams.
    Serve,
    /// Routing and tenancy: probes, refills.
    Decide,
    /// History: flush.
    Agree,
    /// Replication: last delta.
    Share,
    /// Membership: say goodbye.
    Belong,
    /// Transport, metrics, logs.
    Carry,
}

impl Stage {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Serve => "serve",
            Self::Decide => "decide",
            Self::Agree => "agree",
            Self::Share => "share",
            Self::Belong => "belong",
            Self::Carry => "carry",
        }
    }

    /// All, in stopping order.
    pub const ALL: [Self; 7] =
        [Self::Accept, Self::Serve, Self::Decide, Self::Agree, Self::Share, Self::Belong, Self::Carry];
}

/// What it means when a task ends before its stage was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// Its work was done: a connection, a probe.
    Fine,
    /// Worth a line in the log.
    Log,
    /// The node cannot go on without it: everything stops.
    StopNode,
}

/// How a task is known.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Shown in logs and in `smg status`.
    pub name: &'static str,
    /// When it stops.
    pub stage: Stage,
    /// What an early end means.
    pub on_end: OnEnd,
}

/// Owns the tasks of one runtime. Clones are the same owner.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    stops: [Stop; Stage::ALL.len()],
    sets: Mutex<[JoinSet<()>; Stage::ALL.len()]>,
    fatal: Stop,
    /// How many of each kind run. BOUND: names are words of the program.
    running: Mutex<BTreeMap<(Stage, &'static str), usize>>,
}

/// Tasks of one kind that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Their name.
    pub name: &'static str,
    /// When they stop.
    pub stage: Stage,
    /// How many.
    pub count: usize,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            stops: Default::default(),
            sets: Mutex::default(),
            fatal: Stop::new(),
            running: Mutex::default(),
        }))
    }

    /// Starts a task on the current runtime. `work` gets the token that fires when its stage stops; it must then end.
    pub fn spawn<F>(&self, task: Task, work: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop(task.stage);
        let work = work(stop.clone());
        *self.0.running.lock().entry((task.stage, task.name)).or_default() += 1;
        let owner = Arc::downgrade(&self.0);
        let mut sets = self.0.sets.lock();
        let set = &mut sets[task.stage as usize];
        // BOUND: finished tasks are collected as new ones come, so the set holds at most twice the live ones.
        while set.try_join_next().is_some() {}
        let end = End { task, stop, owner };
        set.spawn(async move {
            let _end = end;
            work.await;
        });
    }

    /// The token that fires when `stage` stops.
    #[must_use]
    pub fn stop(&self, stage: Stage) -> Stop {
        self.0.stops[stage as usize].clone()
    }

    /// Fires when a task ended whose rule is [`OnEnd::StopNode`].
    #[must_use]
    pub fn fatal(&self) -> Stop {
        self.0.fatal.clone()
    }

    /// What runs, in stopping order.
    #[must_use]
    pub fn running(&self) -> Vec<Running> {
        let running = self.0.running.lock();
        let alive = running.iter().filter(|(_, count)| **count > 0);
        alive.map(|((stage, name), count)| Running { name, stage: *stage, count: *count }).collect()
    }

    /// Waits until the tasks of a stage have all ended by themselves.
    pub async fn finished(&self, stage: Stage) {
        let mut set = std::mem::take(&mut self.0.sets.lock()[stage as usize]);
        while set.join_next().await.is_some() {}
    }

    /// Stops one stage: fires its token, waits up to `deadline`, then aborts what is left. Returns how many were aborted.
    pub async fn stop_stage(&self, stage: Stage, deadline: Duration) -> usize {
        self.0.stops[stage as usize].cancel();
        let until = Clock.now() + deadline;
        loop {
            // A task that stops may have started another: the last look has to find none.
            let mut set = std::mem::take(&mut self.0.sets.lock()[stage as usize]);
            if set.is_empty() {
                return 0;
            }
            let drain = async { while set.join_next().await.is_some() {} };
            if tokio::time::timeout_at(until, drain).await.is_err() {
                let left = set.len();
                set.shutdown().await;
                return left;
            }
        }
    }
}

/// Says that a task ended, when dropped: a panic ends a task as a return does.
struct End {
    task: Task,
    stop: Stop,
    /// Weak: tasks do not keep alive who owns them.
    owner: Weak<Inner>,
}

impl Drop for End {
    fn drop(&mut self) {
        let name = self.task.name;
        let owner = self.owner.upgrade();
        if let Some(count) =
            owner.as_ref().map(|it| it.running.lock()).as_mut().and_then(|it| it.get_mut(&(self.task.stage, name)))
        {
            *count -= 1;
        }
        match self.task.on_end {
            _ if self.stop.is_cancelled() => {}
            OnEnd::Fine => {}
            OnEnd::Log => tracing::warn!(task = name, "a task ended early"),
            OnEnd::StopNode => {
                tracing::error!(task = name, "a task the node cannot go on without has ended");
                owner.iter().for_each(|it| it.fatal.cancel());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Task = Task { name: "test", stage: Stage::Serve, on_end: OnEnd::StopNode };

    #[tokio::test(start_paused = true)]
    async fn a_stage_waits_for_its_tasks_and_aborts_those_past_the_deadline() {
        let tasks = Tasks::new();
        tasks.spawn(TASK, |stop| async move { stop.cancelled().await });
        tasks.spawn(TASK, |_| std::future::pending());
        assert_eq!(tasks.stop_stage(Stage::Serve, Duration::from_secs(5)).await, 1);
        assert!(!tasks.fatal().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stopping_task_started_is_waited_for_too() {
        const FINE: Task = Task { on_end: OnEnd::Fine, ..TASK };
        let (tasks, done) = (Tasks::new(), Stop::new());
        let (starter, ended) = (tasks.clone(), done.clone());
        tasks.spawn(TASK, |stop| async move {
            stop.cancelled().await;
            starter.spawn(FINE, |_| async move {
                Clock.sleep(Duration::from_secs(1)).await;
                ended.cancel();
            });
        });
        assert_eq!(tasks.stop_stage(Stage::Serve, Duration::from_secs(5)).await, 0);
        assert!(done.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_vital_task_that_panics_stops_the_node_and_one_that_is_not_does_not() {
        let tasks = Tasks::new();
        for on_end in [OnEnd::Fine, OnEnd::Log] {
            tasks.spawn(Task { on_end, ..TASK }, |_| async { panic!("in a task that may end") });
        }
        tokio::task::yield_now().await;
        assert!(!tasks.fatal().is_cancelled());
        tasks.spawn(TASK, |_| async { panic!("in a vital task") });
        tokio::time::timeout(Duration::from_secs(1), tasks.fatal().cancelled()).await.expect("fatal fires");
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_listed_by_kind_and_what_ended_is_not() {
        const FINE: Task = Task { name: "brief", stage: Stage::Accept, on_end: OnEnd::Fine };
        let tasks = Tasks::new();
        tasks.spawn(TASK, |_| std::future::pending());
        tasks.spawn(TASK, |_| std::future::pending());
        tasks.spawn(FINE, |_| async {});
        tokio::task::yield_now().await;
        assert_eq!(tasks.running(), [Running { name: "test", stage: Stage::Serve, count: 2 }]);
        assert_eq!(tasks.stop_stage(Stage::Serve, Duration::ZERO).await, 2);
        assert_eq!(tasks.running(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_vital_task_that_ends_early_stops_the_node() {
        let tasks = Tasks::new();
        tasks.spawn(TASK, |_| async {});
        tokio::time::timeout(Duration::from_secs(1), tasks.fatal().cancelled()).await.expect("fatal fires");
    }
}
