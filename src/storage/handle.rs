//! The handle of the data directory: rows of replicated tables on disk, and the key that seals secrets beside them.
//!
//! A data directory that the operator named is made and opened at start, so its faults are told at start. The default
//! one is opened if it is there, else made when the first thing is to be kept that a person decided: a gateway that is only
//! given flags writes nothing anywhere. A directory that cannot be used does not stop the node: edits then hold until the restart, each answer says so, and so
//! do the log, the readiness page and a metric. What fails *after* it was open refuses edits instead, because what is on
//! disk might contradict them after the restart.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::Row;
use super::error::OpenError;
use super::metrics::Metrics;
use super::seal;
use super::store::Store;
use super::store::StoreError;
use crate::base::seal::Opened;
use crate::base::seal::Sealer;
use crate::base::seal::Sealing;
use crate::base::seal::Seals;
use crate::base::secret::Secret;
use crate::chaos;

/// The database's folder in the data directory. Named before there was anything else in it; a new name would lose what is there.
const FOLDER: &str = "history";

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
    /// Seals where nothing is kept.
    ephemeral: Sealer,
    metrics: Metrics,
    chaos: chaos::Handle,
}

struct Open {
    store: Store,
    sealer: Sealer,
}

impl Handle {
    /// Opens what is there and what was named. `chaos` may hurt it. Blocks on the disk.
    #[must_use]
    pub fn open(place: Place, metrics: Metrics, chaos: chaos::Handle) -> Self {
        let inner = Inner {
            place,
            opened: OnceLock::new(),
            has_failed: AtomicBool::new(false),
            ephemeral: Sealer::ephemeral(),
            metrics,
            chaos,
        };
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

    /// The store, for what keeps more in it than rows. None: nothing is kept, or the directory cannot be used, which was said. Blocks on the disk.
    #[must_use]
    pub fn store(&self) -> Option<Store> {
        let store = self.0.open().map(|it| it.store.clone());
        self.0.tell();
        store
    }

    /// The store, if it is open. Makes nothing.
    #[must_use]
    pub fn opened(&self) -> Option<Store> {
        self.0.opened.get().and_then(Option::as_ref).map(|it| it.store.clone())
    }

    /// The rows that are on disk; none where nothing is kept.
    pub fn rows(&self) -> Result<Vec<Row>, StoreError> {
        let opened = self.0.opened.get().and_then(Option::as_ref);
        opened.map_or(Ok(Vec::new()), |open| open.store.table_rows())
    }

    /// Writes rows, durably, where anything is kept. `is_decision`: a person decided them, so that a directory is made for them. Blocks on
    /// the disk. After a failure every later call fails too.
    pub fn write(&self, rows: Vec<Row>, is_decision: bool) -> Result<(), StoreError> {
        let has_open = self.0.opened.get().is_some();
        let open = if has_open || is_decision { self.0.open() } else { None };
        let Some(open) = open else { return Ok(()) };
        // A write that fails on a full disk would stop all that shares the store.
        let written = open.store.room_for(0).and_then(|()| open.store.write_table_rows(rows));
        if written.is_err() {
            self.0.has_failed.store(true, Ordering::Relaxed);
        }
        if written.is_err() || !has_open {
            self.0.tell();
        }
        written
    }

    /// As if a write had failed.
    #[cfg(test)]
    fn fail(&self) {
        let open = self.0.open().expect("it is open");
        open.store.fail();
    }
}

impl Inner {
    fn open(&self) -> Option<&Open> {
        let (Place::Named(path) | Place::Default(path)) = &self.place else { return None };
        let opened = self.opened.get_or_init(|| match open(path) {
            Ok(open) => {
                open.store.measure(self.metrics.fsync.clone());
                open.store.hurt(self.chaos.clone());
                Some(open)
            }
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
    let store = open_store(path)?;
    Ok(Open { store, sealer: seal::open(path)? })
}

/// Opens or makes the store in a data directory.
fn open_store(directory: &Path) -> Result<Store, OpenError> {
    let own =
        prepare(directory).map_err(|source| OpenError::NotWritable { directory: directory.to_path_buf(), source })?;
    Store::open(&own).map_err(|source| match source {
        StoreError::InUse => OpenError::InUse { directory: directory.to_path_buf() },
        source => OpenError::Store { directory: directory.to_path_buf(), source },
    })
}

/// Makes the directories, the inner one for this user only, and proves that it can be written. Returns the inner one.
fn prepare(directory: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let own = directory.join(FOLDER);
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(&own)?;
    let probe = own.join(".writable");
    fs::write(&probe, b"smg")?;
    fs::remove_file(&probe)?;
    Ok(own)
}

impl Seals for Handle {
    fn seal<'a>(&'a self, secret: &'a Secret, bound_to: &'a str) -> Sealing<'a> {
        Box::pin(async move {
            if self.0.opened.get().is_none() && self.0.place != Place::Nowhere {
                let inner = Arc::clone(&self.0);
                // Cancelled before it began, or a panic in it: the ephemeral key seals, and the row's write will fail too.
                let _ = tokio::task::spawn_blocking(move || inner.open().is_some()).await;
                self.0.tell();
            }
            self.sealer().seal_now(secret, bound_to)
        })
    }

    fn open(&self, sealed: &[u8], bound_to: &str) -> Option<Opened> {
        self.sealer().open(sealed, bound_to)
    }
}

impl Handle {
    fn sealer(&self) -> &Sealer {
        let opened = self.0.opened.get().and_then(Option::as_ref);
        opened.map_or(&self.0.ephemeral, |it| &it.sealer)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(place: Place) -> Handle {
        Handle::open(place, Metrics::default(), chaos::Handle::default())
    }

    fn row(key: &[u8], value: Option<&[u8]>) -> Vec<Row> {
        vec![(1, key.to_vec(), value.map(<[u8]>::to_vec))]
    }

    #[test]
    fn the_default_directory_is_made_by_the_first_decision_and_read_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smg-data/30000");
        let handle = open(Place::Default(path.clone()));
        assert_eq!((handle.durability(), path.exists(), handle.rows().unwrap()), (Durability::On, false, Vec::new()));
        handle.write(row(b"flag", Some(b"x")), false).unwrap();
        assert!(!path.exists(), "what flags say needs no directory");
        handle.write(row(b"a", Some(b"1")), true).unwrap();
        handle.write(row(b"b", Some(b"2")), false).unwrap();
        drop(handle);
        let handle = open(Place::Default(path));
        assert_eq!(handle.rows().unwrap(), [row(b"a", Some(b"1")), row(b"b", Some(b"2"))].concat());
        handle.write(row(b"a", None), true).unwrap();
        assert_eq!(handle.rows().unwrap(), row(b"b", Some(b"2")));
    }

    #[tokio::test]
    async fn without_a_place_rows_go_nowhere_and_that_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"in the way").unwrap();
        for (place, durability) in
            [(Place::Nowhere, Durability::Off), (Place::Named(file.clone()), Durability::Unavailable)]
        {
            let handle = open(place);
            assert_eq!(handle.durability(), durability);
            handle.write(row(b"a", Some(b"1")), true).unwrap();
            assert_eq!(handle.rows().unwrap(), []);
            let sealed = handle.seal(&Secret::new("x"), "y").await;
            assert!(Seals::open(&handle, &sealed, "y").is_some_and(|it| it.is_current), "this process opens it again");
        }
    }

    #[test]
    fn a_directory_in_use_or_damaged_is_said_with_what_to_do_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let named = || Place::Named(directory.path().to_path_buf());
        let holder = open(named());
        assert_eq!(holder.durability(), Durability::On);
        assert_eq!(open(named()).durability(), Durability::Unavailable);
        holder.write(row(b"a", Some(b"1")), true).unwrap();
        drop(holder);
        let current = directory.path().join("history/CURRENT");
        let before = fs::read(&current).unwrap();
        fs::write(&current, b"garbage").unwrap();
        assert_eq!(open(named()).durability(), Durability::Unavailable);
        fs::write(&current, before).unwrap();
        assert_eq!(open(named()).rows().unwrap(), row(b"a", Some(b"1")), "nothing was thrown away");
    }

    #[test]
    fn after_the_disk_failed_writes_fail_until_the_restart() {
        let directory = tempfile::tempdir().unwrap();
        let handle = open(Place::Named(directory.path().to_path_buf()));
        handle.fail();
        for _ in 0..2 {
            assert!(handle.write(row(b"a", Some(b"1")), true).is_err());
        }
        assert_eq!(handle.durability(), Durability::Failed);
    }
}
