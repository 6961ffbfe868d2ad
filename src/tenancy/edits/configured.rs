//! Limits that the configuration names, written to the rows that everybody reads.
//!
//! Each is written once to each instance of what it names: at the start, and again when the configuration is read again, where the row says something else. So nodes with the same file
//! agree, an edit through the API holds until then, and a key that is made anew under its name gets its limit. What is named and not there is said once, with the nearest name, and written when it
//! comes. *Invariant:* nothing is written before the cluster's tables are in force here. *Absent on purpose:* taking limits away that the file does not name any more.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;

use super::EditError;
use super::Edits;
use super::Inner;
use crate::base::clock::Clock;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::nearest::nearest;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::limits::LimitId;
use crate::replication::admin::InstanceId;
use crate::tenancy::limit_spec::LimitSpec;
use crate::tenancy::listing::KeyId;
use crate::tenancy::quota::Scope;
use crate::tenancy::quota::What;

const WRITE: Task = Task { name: "limits-configured", stage: Stage::Decide, on_end: OnEnd::StopNode };
/// Between two looks at what is there. Longer, and a key that is made anew is without its limit for longer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Something that a limit is named for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Named {
    Tenant(TenantId, InstanceId),
    Key(KeyId),
    Model(ModelId),
}

/// What was done about the limits at hand, by their place in the configuration.
#[derive(Default)]
struct Done {
    /// BOUND: limits in the configuration times keys of one name.
    written: HashSet<(usize, Named)>,
    told: HashSet<usize>,
}

impl Edits {
    /// Other limits are configured, or the same are to be looked at again.
    pub fn configure_limits(&self, limits: Vec<LimitSpec>) {
        self.0.configured.send_replace(limits);
    }

    /// Writes them from now on. `patience`: how long to wait for the cluster's tables.
    pub fn write_configured(&self, patience: Duration, tasks: &Tasks) {
        let (edits, mut wanted) = (self.clone(), self.0.configured.subscribe());
        tasks.spawn(WRITE, |stop| async move {
            let mut done = Done::default();
            loop {
                let limits = wanted.borrow_and_update().clone();
                let is_due = !limits.is_empty() && edits.0.tables.is_in_force(patience);
                if is_due {
                    edits.write(&limits, &mut done).await;
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    it = wanted.changed() => match it {
                        Ok(()) => done = Done::default(),
                        Err(watch::error::RecvError { .. }) => return,
                    },
                    () = Clock.sleep(LOOK_AGAIN), if !limits.is_empty() => {}
                }
            }
        });
    }

    async fn write(&self, limits: &[LimitSpec], done: &mut Done) {
        let keys = self.0.keys_named(limits);
        for (at, spec) in limits.iter().enumerate() {
            let found = self.0.named(spec, &keys);
            if found.is_empty() && done.told.insert(at) {
                tracing::error!("{}", self.0.missing(spec));
            }
            for named in found {
                if done.written.contains(&(at, named.clone())) {
                    continue;
                }
                match self.write_one(spec, &named).await {
                    Ok(()) => drop(done.written.insert((at, named))),
                    Err(error) if done.told.insert(at) => {
                        tracing::error!(%error, "the configured limit of {}, {}, was not written", spec.whose, spec.what);
                    }
                    Err(_) => {} // said before; it is tried again
                }
            }
        }
    }

    async fn write_one(&self, spec: &LimitSpec, named: &Named) -> Result<(), EditError> {
        let keys = &self.0.keys;
        let quotas = match named {
            Named::Tenant(name, _) => keys.tenant(name).map(|it| it.quotas),
            Named::Key(id) => keys.get(*id).map(|it| it.quotas),
            Named::Model(name) => keys.model(name).map(|it| it.quotas),
        };
        let before = units_of(spec.what, &quotas.unwrap_or_default());
        if before == Some(spec.units) {
            return Ok(());
        }
        let wanted = vec![(spec.what, Some(spec.units))];
        match named {
            Named::Tenant(name, _) => drop(self.limit_tenant(name.clone(), wanted).await?),
            Named::Key(id) => drop(self.limit_key(*id, wanted).await?),
            Named::Model(name) => drop(self.limit_model(name.clone(), wanted).await?),
        }
        let before = before.map_or_else(|| "none".to_owned(), |it| it.to_string());
        tracing::info!(whose = %spec.whose, what = %spec.what, before, after = spec.units, "a configured limit was written");
        Ok(())
    }
}

fn units_of(what: What, quotas: &[(What, u64, LimitId)]) -> Option<u64> {
    quotas.iter().find(|it| it.0 == what).map(|it| it.1)
}

impl Inner {
    /// Keys of the names that limits are for, by name. Several keys may have one. Costs one look at each key, however many limits there are.
    fn keys_named<'a>(&self, limits: &'a [LimitSpec]) -> HashMap<&'a str, BTreeSet<InstanceId>> {
        let of_keys = limits.iter().filter(|it| it.whose.scope == Scope::Key);
        let mut found: HashMap<&str, BTreeSet<_>> = of_keys.map(|it| (&*it.whose.name, BTreeSet::new())).collect();
        if !found.is_empty() {
            self.keys.read(|index| {
                for (key, row) in index.keys.rows() {
                    let Some(ids) = found.get_mut(&*row.principal.name) else { continue };
                    // The row that counts, where two nodes were given one key.
                    ids.extend(index.key(key.id).map(|it| it.0.id));
                }
            });
        }
        found
    }

    /// What a limit is for.
    fn named(&self, spec: &LimitSpec, keys: &HashMap<&str, BTreeSet<InstanceId>>) -> Vec<Named> {
        let name = &*spec.whose.name;
        match spec.whose.scope {
            Scope::Tenant => TenantId::parse(name).into_iter().filter_map(|it| self.tenant_named(it)).collect(),
            Scope::Model => ModelId::parse(name).into_iter().map(Named::Model).collect(),
            Scope::Key => keys.get(name).into_iter().flatten().map(|it| Named::Key(KeyId(*it))).collect(),
        }
    }

    fn tenant_named(&self, name: TenantId) -> Option<Named> {
        let id = self.keys.read(|index| index.tenant(&name).map(|it| it.0.id))?;
        Some(Named::Tenant(name, id))
    }

    /// What is said of a limit that is for nobody.
    pub(super) fn missing(&self, spec: &LimitSpec) -> String {
        let near = nearest(&spec.whose.name, self.names(spec.whose.scope));
        let hint = near.map(|it| format!("; did you mean `{it}`?")).unwrap_or_default();
        format!("a limit is configured for {}, which does not exist (yet){hint}", spec.whose)
    }

    /// What there is of a kind, to find the nearest.
    fn names(&self, scope: Scope) -> impl Iterator<Item = String> + use<> {
        let names: Vec<String> = self.keys.read(|index| match scope {
            Scope::Tenant => index.tenants.names().map(|it| it.as_str().to_owned()).collect(),
            Scope::Key => index.keys.rows().map(|it| it.1.principal.name.to_string()).collect(),
            Scope::Model => Vec::new(),
        });
        names.into_iter()
    }
}
