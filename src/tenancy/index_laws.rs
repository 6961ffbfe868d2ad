//! What the index holds follows from the rows, whichever way they came.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::ids::StorageId;
use crate::base::secret::Secret;
use crate::limits::LimitId;
use crate::replication::admin::Entry;
use crate::replication::admin::Field;
use crate::replication::dots::Actor;
use crate::replication::dots::Dot;
use crate::replication::hlc::Stamp;
use crate::tenancy::quota::Quota;
use crate::tenancy::quota::What;
use crate::tenancy::rows;

const KEYS: [&str; 3] = ["sk-one", "sk-two", "sk-three"];
const NAMES: [&str; 2] = ["red", "blue"];

/// Which table a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Key,
    Tenant,
    Model,
}

/// A row of one of the tables, as small numbers choose it.
#[derive(Clone, Debug)]
struct Drawn {
    kind: Kind,
    instance: u8,
    what: usize,
    name: usize,
    tenant: u8,
    is_on: bool,
    is_admin: bool,
    is_damaged: bool,
    born: u8,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let numbers = (
        prop::sample::select(vec![Kind::Key, Kind::Tenant, Kind::Model]),
        0..6_u8,
        0..KEYS.len(),
        0..NAMES.len(),
        0..6_u8,
        0..3_u8,
    );
    (numbers, any::<(bool, bool)>(), 0..12_u8).prop_map(|(numbers, (is_on, is_admin), damage)| {
        let (kind, instance, what, name, tenant, born) = numbers;
        Drawn { kind, instance, what, name, tenant, is_on, is_admin, is_damaged: damage == 0, born }
    })
}

impl Drawn {
    fn key(&self) -> Key {
        let actor = Actor { storage: StorageId(1), boot: 1 };
        Key { id: InstanceId(self.instance.into()), birth: Dot { actor, count: u64::from(self.instance) + 1 } }
    }

    fn entry(&self) -> Entry {
        let tenant = TenantId::parse(NAMES[self.name]).unwrap();
        let role = if self.is_admin { Role::Admin } else { Role::User };
        let what = What::all().next().unwrap();
        let quota = Quota { units: self.what as u64, revision: 0 };
        let quotas = Quotas(self.is_admin.then_some((what, quota)).into_iter().collect());
        let fields = match self.kind {
            Kind::Key => {
                let principal = Arc::new(Principal { name: format!("{self:?}").into(), tenant, role, id: None });
                let hash = KeyHash::of(KEYS[self.what].as_bytes());
                let limits = rows::limited(&quotas.iter().map(|it| (it.0, Some(it.1.units))).collect::<Vec<_>>());
                let tenant = InstanceId(self.tenant.into());
                let row = KeyRow { hash, principal, tenant, is_disabled: false, quotas };
                [row.write(), rows::key_disabled(!self.is_on), limits].concat()
            }
            Kind::Tenant => TenantRow { name: tenant, is_enabled: self.is_on, quotas }.write(),
            Kind::Model => ModelRow { name: ModelId::parse(NAMES[self.name]).unwrap(), quotas }.write(),
        };
        let field = |(number, version, bytes)| {
            // A mark tells edits apart by their dots: each drawn row is another edit.
            let count = xxhash_rust::xxh3::xxh3_64(format!("{self:?}").as_bytes());
            let dot = Dot { actor: Actor { storage: StorageId(2), boot: 1 }, count };
            let version = if self.is_damaged { version + 1 } else { version };
            (number, Field { stamp: Stamp::default(), dot, version, bytes })
        };
        let born = Stamp::at(std::time::Duration::from_secs(self.born.into()));
        Entry { kind: KeyRow::KIND, born, fields: fields.into_iter().map(field).collect() }
    }

    fn news(&self, news: News) -> AllNews {
        let mut all = AllNews::default();
        *match self.kind {
            Kind::Key => &mut all.keys,
            Kind::Tenant => &mut all.tenants,
            Kind::Model => &mut all.models,
        } = news;
        all
    }

    fn put(&self, index: &mut Index) {
        index.take(self.news(News { changed: vec![(self.key(), self.entry())], gone: Vec::new() }));
    }

    fn remove(&self, index: &mut Index) {
        index.take(self.news(News { changed: Vec::new(), gone: vec![self.key()] }));
    }
}

/// Who is known, what is open, how much it holds, what is limited.
type Seen = (Vec<String>, Open, (usize, usize), Vec<(LimitId, u64)>);

/// Everything that anybody can see of it.
fn seen(index: &Index) -> Seen {
    let who = |key: &&str| match index.identify(key.as_bytes()) {
        Ok(principal) => principal.name.to_string(),
        Err(error) => error.to_string(),
    };
    let sizes = index.keys.size() + index.tenants.size() + index.models.size();
    let mut limits: Vec<_> = index.definitions().iter().map(|it| (it.limit, it.units)).collect();
    limits.sort_unstable();
    (KEYS.iter().map(who).collect(), index.open(), (sizes, index.limits().0), limits)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_in_force_does_not_depend_on_the_order_in_which_rows_came_and_went(
        rows in prop::collection::vec((drawn(), any::<prop::sample::Index>()), 0..24),
    ) {
        // The last row of an instance is the one that it has; in the other index they come one by one, older ones among them.
        let mut last = BTreeMap::new();
        let mut wandering = Index::default();
        for (row, removed) in &rows {
            row.put(&mut wandering);
            last.insert((row.kind, row.key()), row.clone());
            let gone = &rows[removed.index(rows.len())].0;
            if gone.instance.is_multiple_of(3) {
                gone.remove(&mut wandering);
                last.remove(&(gone.kind, gone.key()));
            }
        }
        let (mut there, mut back) = (Index::default(), Index::default());
        last.values().for_each(|it| it.put(&mut there));
        last.values().rev().for_each(|it| it.put(&mut back));
        prop_assert_eq!(seen(&there), seen(&back));
        prop_assert_eq!(seen(&there), seen(&wandering));
        last.values().for_each(|it| it.remove(&mut there));
        prop_assert_eq!(seen(&there), seen(&Index::default()), "nothing is left of what went");
    }
}

#[test]
fn a_configured_key_needs_no_tenant_but_heeds_one_that_is_disabled() {
    let mut index = Index::default();
    let principal =
        Principal { name: "ops".into(), tenant: TenantId::parse("red").unwrap(), role: Role::Admin, id: None };
    index.configure(vec![Configured { principal: principal.into(), secret: Secret::new("sk-flag") }]);
    assert_eq!(&*index.identify(b"sk-flag").unwrap().name, "ops");
    assert_eq!(index.identify(b"sk-fla").unwrap_err(), AuthError::Unknown);
    let mut row = Drawn {
        kind: Kind::Tenant,
        instance: 1,
        what: 0,
        name: 0,
        tenant: 0,
        is_on: false,
        is_admin: false,
        is_damaged: false,
        born: 0,
    };
    row.put(&mut index);
    assert!(matches!(index.identify(b"sk-flag"), Err(AuthError::TenantDisabled(_))));
    row.is_on = true;
    row.put(&mut index);
    assert!(index.identify(b"sk-flag").is_ok() && index.open() == Open { models: false, admin: false });
}

#[test]
fn a_key_that_cannot_be_read_is_a_key_and_maybe_an_admins() {
    let mut index = Index::default();
    let numbers = Drawn {
        kind: Kind::Key,
        instance: 1,
        what: 0,
        name: 0,
        tenant: 0,
        is_on: true,
        is_admin: false,
        is_damaged: true,
        born: 0,
    };
    numbers.put(&mut index);
    assert_eq!(index.open(), Open { models: false, admin: false });
    assert_eq!(index.identify(b"sk-one").unwrap_err(), AuthError::Unknown);
    numbers.remove(&mut index);
    assert_eq!(index.open(), Open { models: true, admin: true });
}
