//! Keys, tenants and models as rows of replicated tables.
//!
//! A field has a version of its own, because fields merge one by one and a later release may add some. Limits are the same fields in each of them (`quota`). A row of
//! which something cannot be read counts as a key that is refused, never as one with less said of it. *Invariant:* the hash of a key is in here, never the key.

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::Role;
use super::filed::Row;
use super::hash::KeyHash;
use super::keys::Principal;
use super::listing::KeyId;
use super::quota::Quota;
use super::quota::Quotas;
use super::quota::What;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::replication::admin::Entry;
use crate::replication::admin::InstanceId;

/// The version of every field written here.
const VERSION: u8 = 1;

/// Fields by number. Never given again. Few, because each weighs on the table's bound.
mod field {
    pub(super) const HASH: u16 = 1;
    pub(super) const TENANT: u16 = 2;
    pub(super) const NAME: u16 = 3;
    pub(super) const ROLE: u16 = 4;
    pub(super) const DISABLED: u16 = 5;

    pub(super) const TENANT_NAME: u16 = 1;
    pub(super) const TENANT_ENABLED: u16 = 2;

    pub(super) const MODEL_NAME: u16 = 1;
}

/// Fields of an edit, as tables take them.
pub(super) type Fields = Vec<(u16, u8, Vec<u8>)>;

/// A key's entry, read.
#[derive(Clone)]
pub(super) struct KeyRow {
    pub(super) hash: KeyHash,
    pub(super) principal: Arc<Principal>,
    /// The instance of the tenant that it was made for: another tenant of the same name, made later, is not its tenant.
    pub(super) tenant: InstanceId,
    pub(super) is_disabled: bool,
    pub(super) quotas: Quotas,
}

/// A tenant's entry, read.
#[derive(Clone)]
pub(super) struct TenantRow {
    pub(super) name: TenantId,
    pub(super) is_enabled: bool,
    pub(super) quotas: Quotas,
}

/// A model's entry, read: what is set for it, whoever serves it.
#[derive(Clone)]
pub(super) struct ModelRow {
    pub(super) name: ModelId,
    pub(super) quotas: Quotas,
}

/// Whose a key is, as it is kept.
#[derive(Serialize, Deserialize)]
struct OfTenant {
    name: String,
    /// The instance, in hex.
    id: String,
}

impl Row for KeyRow {
    type Name = u64;
    const KIND: u16 = 1;

    fn read(id: InstanceId, entry: &Entry) -> Option<Self> {
        let hash = entry.fields.get(&field::HASH).filter(|it| it.version == VERSION)?;
        let tenant: OfTenant = value(entry, field::TENANT)?;
        let name: String = value(entry, field::NAME)?;
        let role = Role::parse(&value::<String>(entry, field::ROLE)?)?;
        let tenant_name = TenantId::parse(&tenant.name).ok()?;
        let principal = Principal { name: name.into(), tenant: tenant_name, role, id: Some(KeyId(id)) };
        Some(Self {
            hash: KeyHash::read(&hash.bytes)?,
            principal: Arc::new(principal),
            tenant: InstanceId(u128::from_str_radix(&tenant.id, 16).ok()?),
            is_disabled: flag(entry, field::DISABLED, false)?,
            quotas: read_quotas(entry)?,
        })
    }

    fn name(&self) -> u64 {
        self.hash.slot()
    }

    fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// It keeps the admin API from being open.
    fn is_counted(row: Option<&Self>) -> bool {
        row.is_none_or(|it| it.principal.role == Role::Admin && !it.is_disabled)
    }
}

impl KeyRow {
    /// The fields of a new one.
    pub(super) fn write(&self) -> Fields {
        let Principal { name, tenant, role, .. } = &*self.principal;
        let tenant = OfTenant { name: tenant.as_str().to_owned(), id: format!("{:032x}", self.tenant.0) };
        vec![
            (field::HASH, VERSION, self.hash.bytes().to_vec()),
            written(field::TENANT, &tenant),
            written(field::NAME, &&**name),
            written(field::ROLE, &role.as_str()),
        ]
    }
}

/// Disables a key, or takes that back.
pub(super) fn key_disabled(is_disabled: bool) -> Fields {
    vec![written(field::DISABLED, &is_disabled)]
}

impl Row for TenantRow {
    type Name = TenantId;
    const KIND: u16 = 1;

    fn read(_: InstanceId, entry: &Entry) -> Option<Self> {
        let name = TenantId::parse(&value::<String>(entry, field::TENANT_NAME)?).ok()?;
        Some(Self { name, is_enabled: flag(entry, field::TENANT_ENABLED, true)?, quotas: read_quotas(entry)? })
    }

    fn name(&self) -> TenantId {
        self.name.clone()
    }

    fn quotas(&self) -> &Quotas {
        &self.quotas
    }
}

impl TenantRow {
    /// The fields of a new one.
    pub(super) fn write(&self) -> Fields {
        let name = written(field::TENANT_NAME, &self.name.as_str());
        [vec![name], tenant_enabled(self.is_enabled), written_quotas(&self.quotas)].concat()
    }
}

impl Row for ModelRow {
    type Name = ModelId;
    const KIND: u16 = 1;

    fn read(_: InstanceId, entry: &Entry) -> Option<Self> {
        let name = ModelId::parse(&value::<String>(entry, field::MODEL_NAME)?).ok()?;
        Some(Self { name, quotas: read_quotas(entry)? })
    }

    fn name(&self) -> ModelId {
        self.name.clone()
    }

    fn quotas(&self) -> &Quotas {
        &self.quotas
    }
}

impl ModelRow {
    /// The fields of a new one.
    pub(super) fn write(&self) -> Fields {
        [vec![written(field::MODEL_NAME, &self.name.as_str())], written_quotas(&self.quotas)].concat()
    }
}

/// Enables a tenant or disables it.
pub(super) fn tenant_enabled(is_enabled: bool) -> Fields {
    vec![written(field::TENANT_ENABLED, &is_enabled)]
}

/// Sets limits, or takes them away.
pub(super) fn limited(quotas: &[(What, Option<u64>)]) -> Fields {
    quotas.iter().map(|(what, units)| written(what.field(), units)).collect()
}

/// The limits of any row. `None`: one is there that cannot be read.
fn read_quotas(entry: &Entry) -> Option<Quotas> {
    let mut quotas = Quotas::default();
    for what in What::all() {
        if let Some(field) = entry.fields.get(&what.field()) {
            let revision = u64::try_from(field.stamp.wall().as_millis()).unwrap_or(u64::MAX);
            let units: Option<u64> = value(entry, what.field())?;
            quotas.0.extend(units.map(|units| (what, Quota { units, revision })));
        }
    }
    Some(quotas)
}

fn written_quotas(quotas: &Quotas) -> Fields {
    quotas.iter().map(|(what, it)| written(what.field(), &Some(it.units))).collect()
}

/// A field that need not be there. `None`: it is, and cannot be read.
fn flag(entry: &Entry, number: u16, absent: bool) -> Option<bool> {
    if entry.fields.contains_key(&number) { value(entry, number) } else { Some(absent) }
}

fn value<T: DeserializeOwned>(entry: &Entry, number: u16) -> Option<T> {
    let field = entry.fields.get(&number).filter(|it| it.version == VERSION)?;
    serde_json::from_slice(&field.bytes).ok()
}

fn written<T: Serialize>(number: u16, value: &T) -> (u16, u8, Vec<u8>) {
    (number, VERSION, serde_json::to_vec(value).expect("text and truth values are JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use crate::base::ids::StorageId;
    use crate::replication::admin::Field;
    use crate::replication::dots::Actor;
    use crate::replication::dots::Dot;
    use crate::replication::hlc::Stamp;
    use proptest::prelude::*;

    fn entry(fields: Fields) -> Entry {
        let dot = Dot { actor: Actor { storage: StorageId(1), boot: 1 }, count: 1 };
        let field = |(number, version, bytes)| (number, Field { stamp: Stamp::default(), dot, version, bytes });
        Entry { kind: KeyRow::KIND, born: Stamp::default(), fields: fields.into_iter().map(field).collect() }
    }

    fn fields_read<R: Row>(fields: Fields) -> Option<R> {
        R::read(InstanceId(7), &entry(fields))
    }

    fn row() -> KeyRow {
        let tenant = TenantId::parse("team").expect("valid");
        let principal = Principal { name: "ci".into(), tenant, role: Role::User, id: None };
        let (hash, quotas) = (KeyHash::of(b"sk-x"), Quotas::default());
        KeyRow { hash, principal: principal.into(), tenant: InstanceId(0xAB), is_disabled: false, quotas }
    }

    #[test]
    fn what_was_written_is_read_back_and_its_bytes_do_not_change() {
        let fields = row().write();
        let texts: Vec<_> = fields[1..].iter().map(|it| String::from_utf8_lossy(&it.2).into_owned()).collect();
        assert_eq!(texts, [r#"{"name":"team","id":"000000000000000000000000000000ab"}"#, r#""ci""#, r#""user""#]);
        let read = fields_read::<KeyRow>([fields, key_disabled(true)].concat()).expect("is read");
        assert!(read.hash.is(&row().hash) && read.is_disabled && read.tenant == row().tenant);
        assert_eq!((&*read.principal.name, read.principal.tenant.as_str()), ("ci", "team"));
        assert_eq!(read.principal.id, Some(KeyId(InstanceId(7))));
        let tenant =
            TenantRow { name: TenantId::parse("t").expect("valid"), is_enabled: false, quotas: Quotas::default() };
        let read = fields_read::<TenantRow>(tenant.write()).expect("is read");
        assert_eq!((read.name.as_str(), read.is_enabled, read.quotas), ("t", false, Quotas::default()));
        let [rpm, tps] =
            [("requests", "minute"), ("tokens", "second")].map(|it| What::parse(it.0, it.1).expect("is one"));
        let limits = limited(&[(rpm, Some(60)), (tps, None)]);
        assert_eq!(limits.iter().map(|it| &*it.2).collect::<Vec<_>>(), [&b"60"[..], b"null"]);
        let model = ModelRow { name: ModelId::parse("a/b:c").expect("valid"), quotas: Quotas::default() };
        assert_eq!(fields_read::<ModelRow>(model.write()).expect("is read").name, model.name);
        // The same fields in each kind of row.
        let all = [
            fields_read::<TenantRow>([tenant.write(), limits.clone()].concat()).expect("is read").quotas,
            fields_read::<KeyRow>([row().write(), limits.clone()].concat()).expect("is read").quotas,
            fields_read::<ModelRow>([model.write(), limits].concat()).expect("is read").quotas,
        ];
        for quotas in all {
            assert_eq!(quotas.iter().map(|(what, it)| (what, it.units)).collect::<Vec<_>>(), [(rpm, 60)]);
        }
        let odd = vec![(17, VERSION, b"-1".to_vec())];
        assert!(fields_read::<TenantRow>([tenant.write(), odd.clone()].concat()).is_none());
        assert!(fields_read::<KeyRow>([row().write(), odd].concat()).is_none(), "it is refused, not unlimited");
    }

    #[test]
    fn a_row_of_which_something_is_newer_or_damaged_is_not_half_read() {
        for odd in [
            (field::DISABLED, VERSION + 1, b"false".to_vec()),
            (field::DISABLED, VERSION, b"maybe".to_vec()),
            (field::ROLE, VERSION, br#""root""#.to_vec()),
            (field::HASH, VERSION, b"short".to_vec()),
        ] {
            assert!(fields_read::<KeyRow>([row().write(), vec![odd]].concat()).is_none());
        }
        let unknown = (99, 1, vec![1]);
        assert!(fields_read::<KeyRow>([row().write(), vec![unknown]].concat()).is_some(), "there is room for more");
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_field_is_refused_and_never_grants_more(bytes in fuzz::damaged(row().write().into_iter().map(|it| it.2).chain([b"60".to_vec(), b"null".to_vec(), b"true".to_vec()]).collect()), number in prop_oneof![1..7_u16, 1..40_u16], version in prop_oneof![Just(VERSION), 0..3_u8]) {
            let odd = (number, version, bytes);
            let key = fuzz::within(1 << 20, || fields_read::<KeyRow>([row().write(), vec![odd.clone()]].concat()));
            // What can be read says what is meant; what cannot, refuses the whole row.
            let is_readable = |is_right: fn(&[u8]) -> bool| odd.1 == VERSION && is_right(&odd.2);
            let is_flag = |it: &[u8]| serde_json::from_slice::<bool>(it).is_ok();
            let is_units = |it: &[u8]| serde_json::from_slice::<Option<u64>>(it).is_ok();
            let is_quota = What::all().any(|it| it.field() == odd.0);
            if odd.0 == field::DISABLED {
                prop_assert_eq!(key.as_ref().map(|it| it.is_disabled), serde_json::from_slice(&odd.2).ok().filter(|_| odd.1 == VERSION));
            }
            if is_quota {
                prop_assert_eq!(key.is_some(), is_readable(is_units));
                let units = key.as_ref().and_then(|it| it.quotas.iter().next().map(|it| it.1.units));
                prop_assert_eq!(units, serde_json::from_slice(&odd.2).ok().flatten().filter(|_| key.is_some()));
            }
            // No field that is read is read under another version.
            let is_known = is_quota || (1..=field::DISABLED).contains(&odd.0);
            if key.is_some() && is_known {
                let newer = (odd.0, VERSION + 1, odd.2.clone());
                prop_assert!(fields_read::<KeyRow>([row().write(), vec![newer]].concat()).is_none());
            }
            if let Some(read) = key {
                prop_assert!(read.principal.role == Role::User || (odd.0 == field::ROLE && odd.2.trim_ascii() == br#""admin""#));
                prop_assert!(read.hash.is(&row().hash) || odd.0 == field::HASH);
            }
            let tenant = TenantRow { name: TenantId::parse("t").expect("valid"), is_enabled: false, quotas: Quotas::default() };
            let tenant = fields_read::<TenantRow>([tenant.write(), vec![odd.clone()]].concat());
            if odd.0 == field::TENANT_ENABLED || is_quota {
                prop_assert_eq!(tenant.is_some(), is_readable(if is_quota { is_units } else { is_flag }));
            }
            if let Some(read) = tenant {
                prop_assert!(!read.is_enabled || (odd.0 == field::TENANT_ENABLED && odd.2.trim_ascii() == b"true"));
            }
            let _ = fields_read::<ModelRow>(vec![odd]); // any answer will do
        }
    }
}
