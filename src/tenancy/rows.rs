//! Keys and tenants as rows of replicated tables.
//!
//! A field has a version of its own, because fields merge one by one and a later release may add some: a tenant has room for its limits. A row of
//! which something cannot be read counts as a key that is refused, never as one with less said of it. *Invariant:* the hash of a key is in here, never the key.

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::Role;
use super::hash::KeyHash;
use super::keys::Principal;
use super::quota::Quota;
use super::quota::Quotas;
use super::quota::What;
use crate::base::ids::TenantId;
use crate::replication::admin::Entry;
use crate::replication::admin::InstanceId;

/// The only kind of entry that this release knows in the table of keys. Others are no keys.
pub(super) const KEY: u16 = 1;
/// The same for the table of tenants.
pub(super) const TENANT: u16 = 1;

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
}

/// A tenant's entry, read.
#[derive(Clone)]
pub(super) struct TenantRow {
    pub(super) name: TenantId,
    pub(super) is_enabled: bool,
    pub(super) quotas: Quotas,
}

/// Whose a key is, as it is kept.
#[derive(Serialize, Deserialize)]
struct OfTenant {
    name: String,
    /// The instance, in hex.
    id: String,
}

impl KeyRow {
    /// Reads an entry of the kind [`KEY`]. `None`: another release wrote something of it.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let hash = entry.fields.get(&field::HASH).filter(|it| it.version == VERSION)?;
        let tenant: OfTenant = value(entry, field::TENANT)?;
        let name: String = value(entry, field::NAME)?;
        let role = Role::parse(&value::<String>(entry, field::ROLE)?)?;
        let principal = Principal { name: name.into(), tenant: TenantId::parse(&tenant.name).ok()?, role };
        Some(Self {
            hash: KeyHash::read(&hash.bytes)?,
            principal: Arc::new(principal),
            tenant: InstanceId(u128::from_str_radix(&tenant.id, 16).ok()?),
            is_disabled: flag(entry, field::DISABLED, false)?,
        })
    }

    /// The fields of a new one.
    pub(super) fn write(&self) -> Fields {
        let Principal { name, tenant, role } = &*self.principal;
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

impl TenantRow {
    /// Reads an entry of the kind [`TENANT`]. `None`: another release wrote something of it.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let name = TenantId::parse(&value::<String>(entry, field::TENANT_NAME)?).ok()?;
        let mut quotas = Quotas::default();
        for what in What::all() {
            if let Some(field) = entry.fields.get(&what.field()) {
                let revision = u64::try_from(field.stamp.wall().as_millis()).unwrap_or(u64::MAX);
                let units: Option<u64> = value(entry, what.field())?;
                quotas.0.extend(units.map(|units| (what, Quota { units, revision })));
            }
        }
        Some(Self { name, is_enabled: flag(entry, field::TENANT_ENABLED, true)?, quotas })
    }

    /// The fields of a new one.
    pub(super) fn write(&self) -> Fields {
        let quotas = self.quotas.iter().flat_map(|(what, it)| tenant_quota(what, Some(it.units)));
        let name = written(field::TENANT_NAME, &self.name.as_str());
        [vec![name], tenant_enabled(self.is_enabled), quotas.collect()].concat()
    }
}

/// Enables a tenant or disables it.
pub(super) fn tenant_enabled(is_enabled: bool) -> Fields {
    vec![written(field::TENANT_ENABLED, &is_enabled)]
}

/// Sets one limit of a tenant, or takes it away.
pub(super) fn tenant_quota(what: What, units: Option<u64>) -> Fields {
    vec![written(what.field(), &units)]
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
    use crate::base::ids::StorageId;
    use crate::replication::admin::Field;
    use crate::replication::dots::Actor;
    use crate::replication::dots::Dot;
    use crate::replication::hlc::Stamp;

    fn entry(fields: Fields) -> Entry {
        let dot = Dot { actor: Actor { storage: StorageId(1), boot: 1 }, count: 1 };
        let field = |(number, version, bytes)| (number, Field { stamp: Stamp::default(), dot, version, bytes });
        Entry { kind: KEY, born: Stamp::default(), fields: fields.into_iter().map(field).collect() }
    }

    fn row() -> KeyRow {
        let tenant = TenantId::parse("team").expect("valid");
        let principal = Principal { name: "ci".into(), tenant, role: Role::User };
        KeyRow { hash: KeyHash::of(b"sk-x"), principal: principal.into(), tenant: InstanceId(0xAB), is_disabled: false }
    }

    #[test]
    fn what_was_written_is_read_back_and_its_bytes_do_not_change() {
        let fields = row().write();
        let texts: Vec<_> = fields[1..].iter().map(|it| String::from_utf8_lossy(&it.2).into_owned()).collect();
        assert_eq!(texts, [r#"{"name":"team","id":"000000000000000000000000000000ab"}"#, r#""ci""#, r#""user""#]);
        let read = KeyRow::read(&entry([fields, key_disabled(true)].concat())).expect("is read");
        assert!(read.hash.is(&row().hash) && read.is_disabled && read.tenant == row().tenant);
        assert_eq!((&*read.principal.name, read.principal.tenant.as_str()), ("ci", "team"));
        let tenant =
            TenantRow { name: TenantId::parse("t").expect("valid"), is_enabled: false, quotas: Quotas::default() };
        let read = TenantRow::read(&entry(tenant.write())).expect("is read");
        assert_eq!((read.name.as_str(), read.is_enabled, read.quotas), ("t", false, Quotas::default()));
        let [rpm, tps] =
            [("requests", "minute"), ("tokens", "second")].map(|it| What::parse(it.0, it.1).expect("is one"));
        let fields = [tenant.write(), tenant_quota(rpm, Some(60)), tenant_quota(tps, None)].concat();
        assert_eq!(fields.iter().map(|it| &*it.2).skip(2).collect::<Vec<_>>(), [&b"60"[..], b"null"]);
        let read = TenantRow::read(&entry(fields)).expect("is read");
        assert_eq!(read.quotas.iter().map(|(what, it)| (what, it.units)).collect::<Vec<_>>(), [(rpm, 60)]);
        assert!(TenantRow::read(&entry([tenant.write(), vec![(17, VERSION, b"-1".to_vec())]].concat())).is_none());
    }

    #[test]
    fn a_row_of_which_something_is_newer_or_damaged_is_not_half_read() {
        for odd in [
            (field::DISABLED, VERSION + 1, b"false".to_vec()),
            (field::DISABLED, VERSION, b"maybe".to_vec()),
            (field::ROLE, VERSION, br#""root""#.to_vec()),
            (field::HASH, VERSION, b"short".to_vec()),
        ] {
            assert!(KeyRow::read(&entry([row().write(), vec![odd]].concat())).is_none());
        }
        let unknown = (99, 1, vec![1]);
        assert!(KeyRow::read(&entry([row().write(), vec![unknown]].concat())).is_some(), "there is room for more");
    }
}
