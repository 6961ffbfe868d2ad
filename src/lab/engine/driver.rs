//! Ties the engine's core to the clock: one task sleeps until something is due, callers watch their sequence.
//!
//! Progress is a number that only grows, kept in a watch channel: a slow reader finds several tokens at once and never
//! makes the engine hold anything for it. Dropping a [`Running`] before its end aborts the sequence at once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::watch;

use super::core::Core;
use super::core::Effect;
use super::core::Gauges;
use super::core::Micros;
use super::core::SequenceId;
use super::core::Settings;
use super::core::Work;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const TASK: Task = Task { name: "sim-engine", stage: Stage::Serve, on_end: OnEnd::Log };

/// How far a sequence is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Prompt tokens found in the cache, once the prefill has begun.
    pub cached: Option<usize>,
    /// Tokens there.
    pub emitted: usize,
}

/// The engine as callers see it. Clones are the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    wake: Notify,
    clock: Clock,
    started: Instant,
}

struct State {
    core: Core,
    watched: HashMap<SequenceId, watch::Sender<Progress>>,
    effects: Vec<Effect>,
}

impl Engine {
    /// Starts the engine's task, which ends with [`Stage::Serve`].
    #[must_use]
    pub fn start(settings: Settings, tasks: &Tasks) -> Self {
        let state = State { core: Core::new(settings), watched: HashMap::new(), effects: Vec::new() };
        let clock = Clock;
        let engine =
            Self(Arc::new(Inner { state: Mutex::new(state), wake: Notify::new(), clock, started: clock.now() }));
        let inner = Arc::clone(&engine.0);
        tasks.spawn(TASK, |stop| async move { inner.run(stop).await });
        engine
    }

    /// Takes a sequence in; at most `waiting_max` may wait already, else `None`.
    #[must_use]
    pub fn submit(&self, work: Work, waiting_max: usize) -> Option<Running> {
        let now = self.0.now();
        let mut state = self.0.state.lock();
        if state.core.gauges().waiting >= waiting_max {
            return None;
        }
        let State { core, watched, effects } = &mut *state;
        let id = core.submit(now, work, effects);
        let (sender, progress) = watch::channel(Progress::default());
        watched.insert(id, sender);
        state.deliver();
        drop(state);
        self.0.wake.notify_one();
        Some(Running { id, progress, engine: Arc::clone(&self.0) })
    }

    /// A sequence in no time ([`Core::run_at_once`]).
    pub fn run_at_once(&self, work: Work) -> usize {
        self.0.state.lock().core.run_at_once(work)
    }

    /// Counts and gauges.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.0.state.lock().core.gauges()
    }

    /// Forgets every cached block that is not in use.
    pub fn clear_cache(&self) {
        self.0.state.lock().core.clear_cache();
    }
}

impl Inner {
    fn now(&self) -> Micros {
        let elapsed = self.clock.now().duration_since(self.started);
        Micros::try_from(elapsed.as_micros()).unwrap_or(Micros::MAX)
    }

    async fn run(self: Arc<Self>, stop: Stop) {
        loop {
            let due = {
                let now = self.now();
                let mut state = self.state.lock();
                let State { core, effects, .. } = &mut *state;
                core.step(now, effects);
                state.deliver();
                state.core.due()
            };
            let wait = async {
                match due {
                    Some(due) => {
                        self.clock.sleep(std::time::Duration::from_micros(due.saturating_sub(self.now()))).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

impl State {
    fn deliver(&mut self) {
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Started { id, cached } => {
                    if let Some(sender) = self.watched.get(&id) {
                        sender.send_modify(|it| it.cached = Some(cached));
                    }
                }
                Effect::Token { id, emitted } => {
                    if let Some(sender) = self.watched.get(&id) {
                        sender.send_modify(|it| it.emitted = emitted);
                    }
                }
                Effect::Finished { id } => {
                    self.watched.remove(&id);
                }
            }
        }
    }
}

/// One sequence in the engine. Dropping it aborts what is not finished.
pub struct Running {
    id: SequenceId,
    progress: watch::Receiver<Progress>,
    engine: Arc<Inner>,
}

impl Running {
    /// Waits until more than `seen` tokens are there; the state then. Ends at once when the engine has stopped.
    pub async fn beyond(&mut self, seen: usize) -> Progress {
        // An error means that the sender is gone: the engine has stopped, and what it said last stays true.
        let _ = self.progress.wait_for(|it| it.emitted > seen).await;
        *self.progress.borrow()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = self.engine.now();
        let mut state = self.engine.state.lock();
        let State { core, watched, effects } = &mut *state;
        if watched.remove(&self.id).is_some() {
            core.abort(now, self.id, effects);
            state.deliver();
            drop(state);
            self.engine.wake.notify_one();
        }
    }
}
