//! Works done one after the other, each to its end even if its caller goes away: what edits of durable state need.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::oneshot;

use super::tasks::Task;
use super::tasks::Tasks;

/// See the file's header. Who waits for a turn is a caller that waits for an answer, so the queue is bounded by those.
pub struct Turns {
    task: Task,
    tasks: Tasks,
    turn: Arc<Mutex<()>>,
}

impl Turns {
    /// Works run as this task.
    #[must_use]
    pub fn new(task: Task, tasks: Tasks) -> Self {
        Self { task, tasks, turn: Arc::default() }
    }

    /// Runs `work` when it is its turn. `None`: the node stopped before its end.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (done, ended) = oneshot::channel();
        self.start(async move {
            let _ = done.send(work.await); // nobody waits any longer: it is done all the same
        });
        ended.await.ok()
    }

    /// Runs `work` when it is its turn; nobody waits for it.
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        let turn = Arc::clone(&self.turn);
        self.tasks.spawn(self.task, |_| async move {
            let _turn = turn.lock().await;
            work.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::base::tasks::OnEnd;
    use crate::base::tasks::Stage;

    const TASK: Task = Task { name: "test", stage: Stage::Decide, on_end: OnEnd::Fine };

    #[tokio::test]
    async fn a_work_whose_caller_went_away_is_finished_in_its_turn() {
        let (turns, done) = (Turns::new(TASK, Tasks::new()), Arc::new(AtomicUsize::new(0)));
        let held = Arc::clone(&turns.turn).lock_owned().await;
        {
            let done = Arc::clone(&done);
            let abandoned = turns.run(async move { done.fetch_add(1, Ordering::SeqCst) });
            tokio::select! {
                biased;
                _ = abandoned => unreachable!("it is not its turn yet"),
                () = std::future::ready(()) => {}
            }
        }
        drop(held);
        let second = Arc::clone(&done);
        let next = turns.run(async move { second.load(Ordering::SeqCst) });
        let seen = tokio::time::timeout(Duration::from_secs(10), next).await.expect("its turn comes");
        assert_eq!(seen, Some(1), "the one before it was finished first");
    }
}
