//! The handle of history: a journal on disk that is opened when there is something to keep.
//!
//! A data directory that the operator named is made and opened at start, so its faults are told at start. The default
//! one is opened if it is there, else made at the first edit: a gateway that is only given flags writes nothing anywhere.
//! A directory that cannot be used does not stop the node: edits then hold until the restart, each answer says so, and so
//! do the log, the readiness page and a metric. What fails *after* it was open refuses edits instead, because what is on
//! disk might contradict them after the restart.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::LocalLog;
use super::error::AppendError;
use super::error::OpenError;
use super::machine::Command;
use super::machine::Outcome;
use super::machine::Refusal;
use super::metrics::Metrics;
use super::seal::Sealer;
use crate::base::ids::WorkerId;
use crate::base::journal::Journal;
use crate::base::journal::Keeping;
use crate::base::journal::Kept;
use crate::base::journal::NotKept;
use crate::base::journal::Row;
use crate::base::journal::Sealing;
use crate::base::secret::Secret;

/// Where a node keeps what must survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere, as asked.
    Nowhere,
    /// Here, as the operator said: made at start.
    Named(PathBuf),
    /// Here, as nobody said otherwise: made when first needed.
    Default(PathBuf),
}

/// Whether edits survive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// They do.
    On,
    /// The operator wants nothing kept.
    Off,
    /// The data directory could not be used at start: they hold until the restart.
    Unavailable,
    /// The disk failed since: they are refused.
    Failed,
}

impl Durability {
    /// As the readiness page shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    place: Place,
    opened: OnceLock<Option<Open>>,
    has_failed: AtomicBool,
    metrics: Metrics,
}

struct Open {
    log: LocalLog,
    sealer: Sealer,
}

impl Handle {
    /// Opens what is there and what was named. Blocks on the disk.
    #[must_use]
    pub fn open(place: Place, metrics: Metrics) -> Self {
        let inner = Inner { place, opened: OnceLock::new(), has_failed: AtomicBool::new(false), metrics };
        match &inner.place {
            Place::Nowhere => {}
            Place::Default(path) if !path.exists() => {}
            Place::Named(_) | Place::Default(_) => {
                let _ = inner.open(); // its failure was said and shows in `durability`
            }
        }
        inner.tell();
        Self(Arc::new(inner))
    }

    /// Whether edits survive a restart.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.0.durability()
    }

    async fn append(&self, command: Command) -> Result<Kept, NotKept> {
        let Some(open) = self.opened().await? else { return Ok(Kept::UntilRestart) };
        match open.log.append(command).await {
            Ok(Outcome::Changed | Outcome::Unchanged | Outcome::Nothing) => Ok(Kept::Durably),
            Ok(Outcome::Refused(Refusal::TooManyWorkers)) => Err(NotKept::Full),
            Ok(Outcome::Refused(Refusal::SpecTooLong)) => Err(NotKept::TooLong),
            Err(AppendError::Closing) => Err(NotKept::Closing),
            Err(error @ (AppendError::Store(_) | AppendError::Failed)) => {
                self.0.has_failed.store(true, Ordering::Relaxed);
                self.0.tell();
                tracing::error!(%error, "an edit was refused: the data directory failed, restart after mending it");
                Err(NotKept::Failed)
            }
        }
    }

    /// What is open, opened now if it was not needed before; `None`: nothing is kept.
    async fn opened(&self) -> Result<Option<&Open>, NotKept> {
        if self.0.opened.get().is_none() && self.0.place != Place::Nowhere {
            let inner = Arc::clone(&self.0);
            let opening = tokio::task::spawn_blocking(move || inner.open().is_some());
            // Cancelled before it began, or a panic in it: nothing was kept either way.
            opening.await.map_err(|_cancelled| NotKept::Closing)?;
            self.0.tell();
        }
        Ok(self.0.opened.get().and_then(Option::as_ref))
    }

    fn edit(&self, command: Command) -> Keeping<'_> {
        Box::pin(async move {
            let result = self.append(command).await;
            self.0.metrics.edited(result);
            result
        })
    }
}

impl Inner {
    fn open(&self) -> Option<&Open> {
        let (Place::Named(path) | Place::Default(path)) = &self.place else { return None };
        let opened = self.opened.get_or_init(|| match open(path) {
            Ok(open) => Some(open),
            Err(error) => {
                let advice = error.advice();
                tracing::error!(%error, advice, "changes made through the admin API will be lost at the restart");
                None
            }
        });
        opened.as_ref()
    }

    fn durability(&self) -> Durability {
        match (&self.place, self.opened.get()) {
            (Place::Nowhere, _) => Durability::Off,
            _ if self.has_failed.load(Ordering::Relaxed) => Durability::Failed,
            (_, Some(None)) => Durability::Unavailable,
            (_, None | Some(Some(_))) => Durability::On,
        }
    }

    fn tell(&self) {
        self.metrics.durable(self.durability() == Durability::On);
    }
}

/// ORDER: the store's lock is held before the key is looked for, so that no two processes make one.
fn open(path: &Path) -> Result<Open, OpenError> {
    let log = LocalLog::open(path)?;
    Ok(Open { log, sealer: Sealer::open(path)? })
}

impl Journal for Handle {
    fn put(&self, row: Row, value: Vec<u8>) -> Keeping<'_> {
        self.edit(match row {
            Row::Worker(id) => Command::PutWorker { id: id.0, spec: value },
            Row::Policies => Command::PutPolicies { spec: value },
        })
    }

    fn remove(&self, row: Row) -> Keeping<'_> {
        self.edit(match row {
            Row::Worker(id) => Command::RemoveWorker { id: id.0 },
            Row::Policies => Command::RemovePolicies,
        })
    }

    fn rows(&self) -> Vec<(Row, Vec<u8>)> {
        let Some(Some(open)) = self.0.opened.get() else { return Vec::new() };
        let state = open.log.state();
        let workers = state.workers().map(|(id, spec)| (Row::Worker(WorkerId(id)), spec.to_vec()));
        workers.chain(state.policies().map(|spec| (Row::Policies, spec.to_vec()))).collect()
    }

    fn seal<'a>(&'a self, secret: &'a Secret, bound_to: &'a str) -> Sealing<'a> {
        Box::pin(async move { Some(self.opened().await.ok()??.sealer.seal(secret, bound_to)) })
    }

    fn unseal(&self, sealed: &[u8], bound_to: &str) -> Option<Secret> {
        self.0.opened.get()?.as_ref()?.sealer.unseal(sealed, bound_to)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(place: Place) -> Handle {
        Handle::open(place, Metrics::default())
    }

    fn worker(id: u64) -> Row {
        Row::Worker(WorkerId(id))
    }

    #[tokio::test]
    async fn the_default_directory_is_made_by_the_first_edit_and_read_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smg-data/30000");
        let handle = open(Place::Default(path.clone()));
        assert_eq!((handle.durability(), path.exists(), handle.rows()), (Durability::On, false, Vec::new()));
        assert_eq!(handle.put(worker(7), b"a".to_vec()).await, Ok(Kept::Durably));
        assert_eq!(handle.put(Row::Policies, b"p".to_vec()).await, Ok(Kept::Durably));
        drop(handle);
        let handle = open(Place::Default(path));
        assert_eq!(handle.rows(), [(worker(7), b"a".to_vec()), (Row::Policies, b"p".to_vec())]);
        assert_eq!(handle.remove(worker(7)).await, Ok(Kept::Durably));
        assert_eq!(handle.remove(Row::Policies).await, Ok(Kept::Durably));
        assert_eq!(handle.rows(), []);
    }

    #[tokio::test]
    async fn without_a_place_edits_hold_until_the_restart_and_that_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"in the way").unwrap();
        for (place, durability) in
            [(Place::Nowhere, Durability::Off), (Place::Named(file.clone()), Durability::Unavailable)]
        {
            let handle = open(place);
            assert_eq!(handle.durability(), durability);
            assert_eq!(handle.put(worker(1), b"a".to_vec()).await, Ok(Kept::UntilRestart));
            assert_eq!(handle.seal(&Secret::new("x"), "y").await, None);
        }
    }

    #[tokio::test]
    async fn a_directory_in_use_or_damaged_is_said_with_what_to_do_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let named = || Place::Named(directory.path().to_path_buf());
        let holder = open(named());
        assert_eq!(holder.durability(), Durability::On);
        assert_eq!(open(named()).durability(), Durability::Unavailable);
        assert_eq!(holder.put(worker(1), b"a".to_vec()).await, Ok(Kept::Durably));
        drop(holder);
        let current = directory.path().join("history/CURRENT");
        let before = fs::read(&current).unwrap();
        fs::write(&current, b"garbage").unwrap();
        assert_eq!(open(named()).durability(), Durability::Unavailable);
        fs::write(&current, before).unwrap();
        assert_eq!(open(named()).rows(), [(worker(1), b"a".to_vec())], "nothing was thrown away");
    }

    #[tokio::test]
    async fn after_the_disk_failed_edits_are_refused_until_the_restart() {
        let directory = tempfile::tempdir().unwrap();
        let handle = open(Place::Named(directory.path().to_path_buf()));
        handle.opened().await.unwrap().unwrap().log.fail();
        for _ in 0..2 {
            assert_eq!(handle.put(worker(1), b"a".to_vec()).await, Err(NotKept::Failed));
        }
        assert_eq!(handle.durability(), Durability::Failed);
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let handle = open(Place::Named(directory.path().to_path_buf()));
        let long = vec![0; crate::base::journal::VALUE_BYTES_MAX + 1];
        assert_eq!(handle.put(worker(1), long.clone()).await, Err(NotKept::TooLong));
        assert_eq!(handle.put(Row::Policies, long).await, Err(NotKept::TooLong));
    }
}
