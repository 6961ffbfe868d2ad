//! The door for operators: every edit of the fleet is kept first, then put in force.
//!
//! Workers in force = those added here + those that sources (flags, files) name - those suppressed here (DESIGN 5). A
//! removed worker that a source names stays out until it is added here again, never because of a restart. Edits go one
//! after the other, so that the journal and the registry see them in the same order; one that began is finished even if
//! its caller goes away. *Invariant:* an edit that was refused changed neither the journal nor the registry.

mod record;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use self::record::Key;
use self::record::Kind;
use self::record::Record;
use super::address::Origin;
use super::registry::EditError;
use super::registry::Entry;
use super::registry::Registry;
use super::spec::Change;
use super::spec::Source;
use super::spec::Spec;
use crate::base::entropy::Entropy;
use crate::base::ids::WorkerId;
use crate::base::journal::Journal;
use crate::base::journal::Kept;
use crate::base::journal::NotKept;
use crate::base::journal::Row;
use crate::base::journal::VALUE_BYTES_MAX;
use crate::base::secret::Secret;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::base::turns::Turns;

const EDIT: Task = Task { name: "worker-edit", stage: Stage::Decide, on_end: OnEnd::Fine };

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct Edits(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    journal: Arc<dyn Journal>,
    entropy: Entropy,
    turns: Turns,
    known: Mutex<Known>,
}

/// What the registry does not say.
#[derive(Default)]
struct Known {
    /// URLs that sources name, with the key they give.
    named: BTreeMap<String, Option<Secret>>,
    /// What was decided here, by URL: the row's id, what, and whether the key is the source's.
    decided: BTreeMap<String, (WorkerId, Kind, Key)>,
}

impl Edits {
    /// Puts in force what was decided before the restart, and what sources name.
    pub fn restore(
        registry: Arc<Registry>,
        journal: Arc<dyn Journal>,
        named: Vec<(Origin, Option<Secret>)>,
        entropy: Entropy,
        tasks: Tasks,
    ) -> Result<Self, EditError> {
        let turns = Turns::new(EDIT, tasks);
        let known = Known { named: by_url(&named), ..Known::default() };
        let inner = Inner { registry, journal, entropy, turns, known: Mutex::new(known) };
        for (row, value) in inner.journal.rows() {
            if let Row::Worker(id) = row {
                inner.replay(id, &value);
            }
        }
        for (origin, key) in named {
            inner.name(&origin, key)?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Sources name other workers now. What was decided here goes on to count.
    pub fn configure(&self, named: Vec<(Origin, Option<Secret>)>) {
        let inner = Arc::clone(&self.0);
        self.0.turns.start(async move {
            let before = std::mem::replace(&mut inner.known.lock().named, by_url(&named));
            for url in before.keys().filter(|url| !inner.known.lock().named.contains_key(*url)) {
                let gone = inner.at(url).filter(|it| it.source == Source::Config);
                if let Some(entry) = gone.and_then(|it| inner.registry.remove(it.id).ok()) {
                    tracing::info!(worker = %entry.id, url, "a worker is no longer configured");
                }
            }
            for (origin, key) in named {
                if let Err(error) = inner.name(&origin, key) {
                    tracing::error!(url = origin.url(), %error, "a configured worker was not added");
                }
            }
        });
    }

    /// Adds a worker; the same URL again replaces what was said of it and keeps its id, load and health.
    pub async fn add(&self, spec: Spec) -> Result<(Arc<Entry>, Kept), EditError> {
        self.whole(move |inner| async move {
            let id = inner.id_of(&spec.url);
            let own = spec.api_key.clone();
            inner.put(id, spec, Kind::Added, KeyGiven::Own(own)).await
        })
        .await
    }

    /// Changes a worker.
    pub async fn change(&self, id: WorkerId, change: Change) -> Result<(Arc<Entry>, Kept), EditError> {
        self.whole(move |inner| async move {
            let entry = inner.registry.get(id).ok_or(EditError::Unknown(id))?;
            let mut spec = entry.spec.clone();
            let key = match (&change.api_key, inner.decided(&spec.url)) {
                (Some(given), _) => KeyGiven::Own(given.clone()),
                (None, Some((_, _, Key::FromSource))) => KeyGiven::Source,
                (None, None) if entry.source == Source::Config => KeyGiven::Source,
                (None, _) => KeyGiven::Own(spec.api_key.clone()),
            };
            change.apply(&mut spec);
            let kind = if entry.source == Source::Config { Kind::Changed } else { Kind::Added };
            inner.put(id, spec, kind, key).await
        })
        .await
    }

    /// Takes a worker out; what is in flight there finishes. One that a source names is suppressed.
    pub async fn remove(&self, id: WorkerId) -> Result<(Arc<Entry>, Kept), EditError> {
        self.whole(move |inner| async move {
            let entry = inner.registry.get(id).ok_or(EditError::Unknown(id))?;
            let url = &entry.spec.url;
            let is_named = inner.known.lock().named.contains_key(url);
            let kept = if is_named {
                let record = Record::new(Kind::Suppressed, &entry.spec, Key::None);
                inner.journal.put(Row::Worker(id), record.encode()).await?
            } else {
                inner.journal.remove(Row::Worker(id)).await?
            };
            let mut known = inner.known.lock();
            if is_named {
                known.decided.insert(url.clone(), (id, Kind::Suppressed, Key::None));
            } else {
                known.decided.remove(url);
            }
            inner.registry.remove(id).map(|entry| (entry, kept))
        })
        .await
    }

    /// URLs that sources name and that were removed here.
    #[must_use]
    pub fn suppressed(&self) -> BTreeSet<String> {
        let known = self.0.known.lock();
        let suppressed =
            known.decided.iter().filter(|(url, it)| it.1 == Kind::Suppressed && known.named.contains_key(*url));
        suppressed.map(|(url, _)| url.clone()).collect()
    }

    /// Runs one edit in its turn.
    async fn whole<F>(&self, edit: impl FnOnce(Arc<Inner>) -> F) -> Result<(Arc<Entry>, Kept), EditError>
    where
        F: Future<Output = Result<(Arc<Entry>, Kept), EditError>> + Send + 'static,
    {
        let edit = edit(Arc::clone(&self.0));
        self.0.turns.run(edit).await.unwrap_or(Err(EditError::NotKept(NotKept::Closing)))
    }
}

/// Where a worker's key shall come from.
enum KeyGiven {
    Source,
    Own(Option<Secret>),
}

impl Inner {
    /// Puts a worker in force as a source names it, unless something else was decided here.
    fn name(&self, origin: &Origin, key: Option<Secret>) -> Result<(), EditError> {
        let url = origin.url();
        let spec = match (self.decided(&url), self.at(&url)) {
            (None, _) => Spec::named(origin, key),
            (Some((_, Kind::Changed, Key::FromSource)), Some(entry)) => Spec { api_key: key, ..entry.spec.clone() },
            (Some((id, Kind::Changed, _)), None) => {
                // It was changed while a source named it, and one names it again.
                let kept = self.journal.rows().into_iter().find(|(row, _)| *row == Row::Worker(id));
                kept.into_iter().for_each(|(_, value)| self.replay(id, &value));
                return Ok(());
            }
            (Some((_, Kind::Suppressed, _)), _) => {
                tracing::warn!(
                    url,
                    "a configured worker stays out: it was removed through the admin API; POST /workers brings it back"
                );
                return Ok(());
            }
            (Some((_, Kind::Added | Kind::Changed, _)), _) => return Ok(()),
        };
        self.registry.put(self.id_of(&url), spec, Source::Config)?;
        Ok(())
    }

    /// Takes one row back. One that cannot be used is left as it is.
    fn replay(&self, id: WorkerId, value: &[u8]) {
        if let Err(error) = self.try_replay(id, value) {
            tracing::error!(worker = %id, %error, "what was decided about a worker cannot be used and is left as it is");
        }
    }

    fn try_replay(&self, id: WorkerId, value: &[u8]) -> Result<(), RowError> {
        let record = Record::decode(value)?;
        let mut spec = record.spec()?;
        spec.url = Origin::parse(&spec.url).map_err(EditError::from)?.url(); // the row may be older than this spelling
        let url = spec.url.clone();
        let named = self.known.lock().named.get(&spec.url).cloned();
        if record.kind == Kind::Added || (record.kind == Kind::Changed && named.is_some()) {
            spec.api_key = match &record.key {
                Key::None => None,
                Key::FromSource => named.flatten(),
                Key::Sealed(_) => self.unsealed(id, &record),
            };
            self.registry.put(id, spec, record.kind.source())?;
        }
        self.known.lock().decided.insert(url, (id, record.kind, record.key));
        Ok(())
    }

    fn unsealed(&self, id: WorkerId, record: &Record) -> Option<Secret> {
        let key = record.key.bytes().and_then(|it| self.journal.unseal(&it, &bound_to(id, &record.url)));
        if key.is_none() {
            tracing::error!(
                worker = %id,
                url = record.url,
                "a worker's key cannot be opened, it goes without: give it again with `smg workers update`"
            );
        }
        key
    }

    /// Keeps what was decided, then puts it in force.
    async fn put(&self, id: WorkerId, spec: Spec, kind: Kind, key: KeyGiven) -> Result<(Arc<Entry>, Kept), EditError> {
        Origin::parse(&spec.url)?;
        let key = match key {
            KeyGiven::Source => Key::FromSource,
            KeyGiven::Own(None) => Key::None,
            KeyGiven::Own(Some(secret)) => {
                let sealed = self.journal.seal(&secret, &bound_to(id, &spec.url)).await;
                sealed.map_or(Key::None, |it| Key::sealed(&it))
            }
        };
        let value = Record::new(kind, &spec, key.clone()).encode();
        if value.len() > VALUE_BYTES_MAX {
            return Err(NotKept::TooLong.into());
        }
        self.registry.check_room(id)?;
        let kept = self.journal.put(Row::Worker(id), value).await?;
        self.known.lock().decided.insert(spec.url.clone(), (id, kind, key));
        Ok((self.registry.put(id, spec, kind.source())?, kept))
    }

    /// The id of the worker at this URL: the one it has, the one it had when it was removed, or a new one.
    fn id_of(&self, url: &str) -> WorkerId {
        let decided = || self.decided(url).map(|it| it.0);
        self.at(url).map(|it| it.id).or_else(decided).unwrap_or_else(|| WorkerId(self.entropy.next_u64()))
    }

    fn at(&self, url: &str) -> Option<Arc<Entry>> {
        self.registry.fleet().all.iter().find(|it| it.spec.url == url).cloned()
    }

    fn decided(&self, url: &str) -> Option<(WorkerId, Kind, Key)> {
        self.known.lock().decided.get(url).cloned()
    }
}

/// Why a row was not taken back.
#[derive(Debug, thiserror::Error)]
enum RowError {
    #[error(transparent)]
    Unreadable(#[from] record::Unreadable),
    #[error(transparent)]
    Refused(#[from] EditError),
}

fn by_url(named: &[(Origin, Option<Secret>)]) -> BTreeMap<String, Option<Secret>> {
    named.iter().map(|(origin, key)| (origin.url(), key.clone())).collect()
}

/// A sealed key opens for this worker at this place only.
fn bound_to(id: WorkerId, url: &str) -> String {
    format!("{id} {url}")
}

#[cfg(test)]
mod tests;
