//! The door for operators to the fleet, and what puts the fleet in force that the tables say.
//!
//! Workers in force = those that people added + those that sources (flags, files of any node) name - those suppressed (DESIGN 5). A
//! removed worker that a source names stays out until somebody adds it again, never because of a restart. An edit is made in the tables and put
//! in force here before it is answered; what other nodes edit is put in force when it arrives. Edits go one after the other; one that began is
//! finished even if its caller goes away. *Invariant:* what the registry holds is a reading of the tables and of this node's own sources, made anew at
//! each change, so no order of events can leave the two apart.

mod reading;
mod rows;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use self::reading::Reading;
use self::rows::ADDED;
use self::rows::CHANGED;
use self::rows::SUPPRESSION;
use self::rows::SealedKey;
use super::address::Origin;
use super::registry::EditError;
use super::registry::Entry;
use super::registry::Registry;
use super::spec::Change;
use super::spec::Spec;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
use crate::base::seal::Seals;
use crate::base::secret::Secret;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::base::turns::Turns;
use crate::replication;
use crate::replication::admin::InstanceId;
use crate::replication::core::Edit;
use crate::replication::core::EditError as TableError;
use crate::replication::core::Settled;
use crate::replication::sources;
use crate::replication::sources::Place;
use crate::replication::tables::SOURCES;
use crate::replication::tables::SUPPRESSIONS;
use crate::replication::tables::WORKERS;

const EDIT: Task = Task { name: "worker-edit", stage: Stage::Decide, on_end: OnEnd::Fine };
const FOLLOW: Task = Task { name: "workers-in-force", stage: Stage::Decide, on_end: OnEnd::StopNode };

/// What an edit brought: the worker as it is or was, and how far the edit is.
pub type Edited = Result<(Arc<Entry>, Settled), EditError>;

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct Edits(Arc<Inner>);

/// What edits stand on.
pub struct Grounds {
    /// Where workers are put in force.
    pub registry: Arc<Registry>,
    /// Where they are decided.
    pub tables: replication::Handle,
    /// Seals their keys.
    pub seals: Arc<dyn Seals>,
    /// Ids of instances.
    pub entropy: Entropy,
    /// Owner of the tasks.
    pub tasks: Tasks,
    /// Whether other machines may be members, so that a loopback address means another worker on each of them.
    pub owns_loopback: bool,
    /// Whether nobody has reached a worker for longer than a worker may be away.
    pub is_dead: Arc<dyn Fn(&Place) -> bool + Send + Sync>,
    /// Told of workers that went.
    pub on_gone: Arc<dyn Fn(WorkerId) + Send + Sync>,
}

struct Inner {
    grounds: Grounds,
    me: StorageId,
    turns: Turns,
    /// What this node's sources name, with the key they give.
    named: Mutex<BTreeMap<Place, Option<Secret>>>,
    /// Held while the tables are read and put in force, so that an older reading never follows a newer one. Holds instances whose trouble was told.
    applying: Mutex<BTreeSet<InstanceId>>,
}

impl Edits {
    /// Puts in force what the tables say and what sources name, and follows the tables from now on.
    #[must_use]
    pub fn start(grounds: Grounds, named: Vec<(Origin, Option<Secret>)>) -> Self {
        let (me, turns) = (grounds.tables.storage(), Turns::new(EDIT, grounds.tasks.clone()));
        let inner = Inner { grounds, me, turns, named: Mutex::default(), applying: Mutex::default() };
        let named = named.into_iter().map(|(origin, key)| (inner.place(&origin), key)).collect();
        *inner.named.lock() = named;
        inner.apply();
        let edits = Self(Arc::new(inner));
        let (inner, publishing) = (Arc::clone(&edits.0), Arc::clone(&edits.0));
        let Grounds { tables, tasks, .. } = &edits.0.grounds;
        tables.follow(&[WORKERS, SUPPRESSIONS, SOURCES], FOLLOW, tasks, move || inner.apply());
        edits.0.turns.start(async move {
            publishing.publish(&BTreeMap::new()).await;
            publishing.seal_again().await;
        });
        edits
    }

    /// Sources name other workers now. What was decided goes on to count.
    pub fn configure(&self, named: Vec<(Origin, Option<Secret>)>) {
        let inner = Arc::clone(&self.0);
        self.0.turns.start(async move {
            let named = named.into_iter().map(|(origin, key)| (inner.place(&origin), key)).collect();
            let before = std::mem::replace(&mut *inner.named.lock(), named);
            inner.apply();
            inner.publish(&before).await;
        });
    }

    /// Adds a worker; the same place again replaces what was said of it and keeps its load and health.
    pub async fn add(&self, spec: Spec) -> Edited {
        self.whole(move |inner| async move {
            let origin = Origin::parse(&spec.url)?;
            let place = inner.place(&origin);
            let id = WorkerId::of(&place.url, place.via);
            inner.grounds.registry.check_room(id)?;
            let key = inner.seal(spec.api_key.as_ref(), &place).await;
            let reading = inner.read();
            let plan = sources::post(&place, &reading.instances(ADDED), &reading.suppressions);
            let fields = rows::fields_of_spec(&spec, &key);
            let overlays = reading.instances(CHANGED).into_iter().filter(|it| it.place == place).map(|it| it.key.id);
            let mut edits: Vec<Edit> = overlays.map(|it| Edit::Delete(WORKERS, it)).collect();
            edits.extend(plan.delete.into_iter().map(|it| Edit::Delete(SUPPRESSIONS, it)));
            edits.push(match plan.set {
                Some(instance) => Edit::Set(WORKERS, instance, fields),
                None => Edit::Add(WORKERS, inner.new_id(), ADDED, [rows::fields_of_place(&place), fields].concat()),
            });
            inner.make(edits, id).await
        })
        .await
    }

    /// Changes a worker. One that only sources name keeps what they say of the rest, and goes with them.
    pub async fn change(&self, id: WorkerId, change: Change) -> Edited {
        self.whole(move |inner| async move {
            let entry = inner.grounds.registry.get(id).ok_or(EditError::Unknown(id))?;
            let place = entry.spec.place();
            let key = match &change.api_key {
                Some(given) => Some(inner.seal(given.as_ref(), &place).await),
                None => None,
            };
            let fields = rows::fields_of_change(&change, key.as_ref());
            let edit = match inner.read().counts_at(&place) {
                Some(row) => Edit::Set(WORKERS, row.key.id, fields),
                None => Edit::Add(WORKERS, inner.new_id(), CHANGED, [rows::fields_of_place(&place), fields].concat()),
            };
            inner.make(vec![edit], id).await
        })
        .await
    }

    /// Takes a worker out; what is in flight there finishes. One that a source names is suppressed.
    pub async fn remove(&self, id: WorkerId) -> Edited {
        self.whole(move |inner| async move {
            let entry = inner.grounds.registry.get(id).ok_or(EditError::Unknown(id))?;
            let (place, reading) = (entry.spec.place(), inner.read());
            let assertions: Vec<_> = reading.assertions.iter().map(|it| it.0.clone()).collect();
            let all = reading.rows.iter().map(rows::Row::instance).collect::<Vec<_>>();
            let plan = sources::delete(&place, &all, &assertions, &reading.suppressed());
            let mut edits: Vec<Edit> = plan.delete.into_iter().map(|it| Edit::Delete(WORKERS, it)).collect();
            if plan.suppress {
                edits.push(Edit::Add(SUPPRESSIONS, inner.new_id(), SUPPRESSION, rows::fields_of_place(&place)));
            }
            let settled = inner.grounds.tables.edit(edits).await?;
            inner.apply();
            Ok((entry, settled))
        })
        .await
    }

    /// Addresses that sources name and that somebody removed.
    #[must_use]
    pub fn suppressed(&self) -> BTreeSet<String> {
        let reading = self.0.read();
        let (suppressed, named) = (reading.suppressed(), reading.assertions.iter().map(|it| it.0.place()));
        named.filter(|it| suppressed.contains(it)).map(|it| it.url).collect()
    }

    /// Runs one edit in its turn.
    async fn whole<F>(&self, edit: impl FnOnce(Arc<Inner>) -> F) -> Edited
    where
        F: Future<Output = Edited> + Send + 'static,
    {
        let edit = edit(Arc::clone(&self.0));
        self.0.turns.run(edit).await.unwrap_or(Err(EditError::NotKept(TableError::Closing)))
    }
}

impl Inner {
    /// Where the worker at this address is, seen from here.
    fn place(&self, origin: &Origin) -> Place {
        let is_local = self.grounds.owns_loopback && origin.is_loopback();
        Place { url: origin.url(), via: is_local.then_some(self.me) }
    }

    fn new_id(&self) -> InstanceId {
        InstanceId(self.grounds.entropy.next_u128())
    }

    /// Makes edits, puts them in force, and finds the worker they were about.
    async fn make(&self, edits: Vec<Edit>, id: WorkerId) -> Edited {
        let settled = self.grounds.tables.edit(edits).await?;
        self.apply();
        Ok((self.grounds.registry.get(id).ok_or(EditError::Unknown(id))?, settled))
    }

    fn read(&self) -> Reading {
        Reading::of(&self.grounds.tables, self.me, &self.named.lock())
    }

    /// Puts in force what the tables say now.
    fn apply(&self) {
        let mut told = self.applying.lock();
        let mut wanted = self.read().wanted(&self.grounds, &self.named.lock(), &mut told);
        if wanted.len() > WORKERS_MAX {
            tracing::error!(workers = wanted.len(), "more workers than there may be: some are not in force");
            wanted.truncate(WORKERS_MAX);
        }
        let gone = self.grounds.registry.reconcile(wanted);
        gone.into_iter().for_each(|id| (self.grounds.on_gone)(id));
    }

    async fn seal(&self, secret: Option<&Secret>, place: &Place) -> SealedKey {
        match secret {
            Some(secret) => Some(self.grounds.seals.seal(secret, &bound_to(place)).await),
            None => None,
        }
    }

    /// Tells the others what this node's sources name.
    async fn publish(&self, before: &BTreeMap<Place, Option<Secret>>) {
        let named = self.named.lock().clone();
        let name = |place: &Place| WorkerId::of(&place.url, place.via).0.to_be_bytes().to_vec();
        let gone = before.keys().filter(|it| !named.contains_key(*it));
        let mut rows: Vec<replication::NewRow> = gone.map(|it| (name(it), None)).collect();
        for (place, secret) in &named {
            let key = self.seal(secret.as_ref(), place).await;
            rows.push((name(place), Some(rows::write_assertion(place, &key))));
        }
        if !self.grounds.tables.publish(SOURCES, rows) {
            tracing::error!(
                "too much waits to be replicated: other nodes are not told of this node's workers; reload the configuration (SIGHUP)"
            );
        }
    }

    /// Keys that were sealed under a key that is being replaced, or before this node had a mesh, are sealed anew: the others could not open them.
    async fn seal_again(&self) {
        let mut edits = Vec::new();
        for row in self.read().rows {
            let Some(Some(sealed)) = &row.api_key else { continue };
            let Some(opened) = self.grounds.seals.open(sealed, &bound_to(&row.place)) else { continue };
            if !opened.is_current {
                let key = self.seal(Some(&opened.secret), &row.place).await;
                let fields = rows::fields_of_change(&Change::default(), Some(&key));
                edits.push(Edit::Set(WORKERS, row.key.id, fields));
            }
        }
        if !edits.is_empty()
            && let Err(error) = self.grounds.tables.edit(edits).await
        {
            tracing::error!(%error, "keys of workers were not sealed anew: other nodes may lack them");
        }
    }
}

/// A sealed key opens for the worker at this place only.
fn bound_to(place: &Place) -> String {
    format!("{} {}", WorkerId::of(&place.url, place.via), place.url)
}

#[cfg(test)]
mod tests;
