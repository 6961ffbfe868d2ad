//! API keys: from a header to a [`Principal`], in a time that does not depend on how many keys there are or how near a wrong one came.

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::header::AUTHORIZATION;
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::secret::Secret;

use super::config::KeySpec;
pub use super::config::Role;
use super::index::Index;
use super::listing::KeyId;
use super::metrics::Metrics;
use super::quota::Applies;

/// Who asks without a key, where none is needed. No tenant may be called so.
pub const ANONYMOUS: &str = "anonymous";

/// Who asks, once the key is known.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The key's name: stable when the key is rotated.
    pub name: Arc<str>,
    /// Whose requests these are.
    pub tenant: TenantId,
    /// What the key may do.
    pub role: Role,
    /// Which key of the table it is; `None`: it is configured, or there is none.
    pub id: Option<KeyId>,
}

/// One configured key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Who it stands for.
    pub principal: Arc<Principal>,
    /// The key itself.
    pub secret: Secret,
}

impl From<KeySpec> for Key {
    fn from(spec: KeySpec) -> Self {
        let principal = Principal { name: spec.name.into(), tenant: spec.tenant, role: spec.role, id: None };
        Self { principal: Arc::new(principal), secret: spec.key }
    }
}

/// Why a request has no principal. The client's fault; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither header was given.
    #[error("no API key was given: send `Authorization: Bearer KEY` or `x-api-key: KEY`")]
    Missing,
    /// A header was given twice: whoever stands before this node may have looked at the other one.
    #[error("more than one API key was given: send one `Authorization` or one `x-api-key` header")]
    Repeated,
    /// The key is not one of ours.
    #[error("the API key is not known here")]
    Unknown,
    /// An admin disabled the key.
    #[error("this API key is disabled: an admin can enable it with `smg keys update`, or make another one")]
    Disabled,
    /// An admin disabled the key's tenant.
    #[error(
        "the tenant of this API key is disabled: `{0}`. An admin can enable it with `smg tenants update {0} --enable`"
    )]
    TenantDisabled(TenantId),
    /// An admin removed the key's tenant.
    #[error(
        "the tenant of this API key was removed: `{0}`. It needs a key of a tenant that is there, made with `smg keys add`"
    )]
    TenantGone(TenantId),
    /// A user's key on an admin endpoint.
    #[error("this endpoint needs a key with the role `admin`")]
    NotAdmin,
    /// There is no admin key and the caller is not on this machine.
    #[error(
        "without an admin key the admin API answers on loopback only: make one there with `smg keys add`, or configure one with `--api-key`"
    )]
    NotLoopback,
}

/// The keys in force: those that are configured at this node, and those of the tables. A reader waits for one batch of changes at most.
pub struct Keys {
    index: RwLock<Index>,
    anonymous: Arc<Principal>,
    metrics: Metrics,
}

impl Keys {
    /// With these configured. With no keys at all every caller is the anonymous tenant.
    #[must_use]
    pub fn new(keys: Vec<Key>, metrics: Metrics) -> Self {
        let tenant = TenantId::parse(ANONYMOUS).expect("a valid tenant id");
        let anonymous = Principal { name: ANONYMOUS.into(), tenant, role: Role::User, id: None };
        let mut index = Index::default();
        index.configure(keys);
        Self { index: RwLock::new(index), anonymous: Arc::new(anonymous), metrics }
    }

    /// Other keys are configured. Those of the tables stay in force.
    pub fn replace(&self, keys: Vec<Key>) {
        self.change(|index| index.configure(keys));
    }

    /// Who sends a model request.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>, AuthError> {
        self.identify(headers).inspect_err(|error| self.metrics.auth_failed(error))
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Arc<Principal>, AuthError> {
        let index = self.index.read();
        if index.open().models {
            return Ok(Arc::clone(&self.anonymous));
        }
        index.identify(presented(headers)?)
    }

    /// Who calls the admin API: an admin key; or, where there is none, anybody on this machine.
    pub fn authorise_admin(&self, headers: &HeaderMap, is_loopback: bool) -> Result<Arc<Principal>, AuthError> {
        self.identify_admin(headers, is_loopback).inspect_err(|error| self.metrics.auth_failed(error))
    }

    fn identify_admin(&self, headers: &HeaderMap, is_loopback: bool) -> Result<Arc<Principal>, AuthError> {
        let index = self.index.read();
        if index.open().admin {
            return if is_loopback { Ok(Arc::clone(&self.anonymous)) } else { Err(AuthError::NotLoopback) };
        }
        let principal = index.identify(presented(headers)?)?;
        if principal.role == Role::Admin { Ok(principal) } else { Err(AuthError::NotAdmin) }
    }

    /// The limits that a request of somebody for a model takes from.
    #[must_use]
    pub fn applying(&self, principal: &Principal, model: &ModelId) -> SmallVec<[Applies; 4]> {
        self.read(|index| index.applying(principal, model))
    }

    /// Reads the index. Short: changes wait meanwhile.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.index.read())
    }

    /// Changes the index. Short: requests wait meanwhile.
    pub(super) fn change(&self, change: impl FnOnce(&mut Index)) {
        change(&mut self.index.write());
    }
}

/// The key in `Authorization: Bearer` or, where there is none, in `x-api-key`.
fn presented(headers: &HeaderMap) -> Result<&[u8], AuthError> {
    let bearer = only(headers, AUTHORIZATION)?.and_then(|it| {
        let (scheme, key) = it.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    let key = only(headers, HeaderName::from_static("x-api-key"))?;
    bearer.or(key).ok_or(AuthError::Missing)
}

/// The one header of that name.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&[u8]>, AuthError> {
    let mut all = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(AuthError::Repeated),
        (first, None) => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, role: Role, secret: &str) -> Key {
        let tenant = TenantId::parse("team").expect("valid");
        Key {
            principal: Arc::new(Principal { name: name.into(), tenant, role, id: None }),
            secret: Secret::new(secret),
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().expect("a header value"))])
    }

    #[test]
    fn both_headers_are_read_and_wrong_keys_are_refused() {
        let keys =
            Keys::new(vec![key("u", Role::User, "sk-user"), key("a", Role::Admin, "sk-admin")], Metrics::default());
        for good in [
            headers("authorization", "Bearer sk-user"),
            headers("authorization", "bearer  sk-user"),
            headers("x-api-key", "sk-user"),
        ] {
            assert_eq!(&*keys.authenticate(&good).expect("known").name, "u");
        }
        for bad in ["Bearer sk-use", "Bearer sk-userr", "Basic sk-user", "Bearer "] {
            assert!(keys.authenticate(&headers("authorization", bad)).is_err(), "{bad}");
        }
        assert_eq!(keys.authenticate(&HeaderMap::new()).expect_err("refused"), AuthError::Missing);
    }

    #[test]
    fn of_two_headers_of_a_kind_none_counts_and_authorization_comes_first() {
        let keys =
            Keys::new(vec![key("u", Role::User, "sk-user"), key("a", Role::Admin, "sk-admin")], Metrics::default());
        for name in ["authorization", "x-api-key"] {
            for values in [["Bearer sk-user", "Bearer sk-admin"], ["sk-user", "sk-user"], ["Basic x", "Bearer sk-user"]]
            {
                let mut twice = headers(name, values[0]);
                twice.append(name, values[1].parse().expect("a header value"));
                assert_eq!(keys.authenticate(&twice).expect_err("refused"), AuthError::Repeated, "{name} {values:?}");
            }
        }
        let both = |bearer: &str, key: &str| {
            let mut both = headers("authorization", bearer);
            both.extend(headers("x-api-key", key));
            keys.authenticate(&both).map(|it| it.name.to_string())
        };
        assert_eq!(both("Bearer sk-user", "sk-admin"), Ok("u".to_owned()));
        assert_eq!(both("Bearer sk-none", "sk-admin"), Err(AuthError::Unknown));
        assert_eq!(both("Basic c2s6", "sk-user"), Ok("u".to_owned()));
    }

    #[test]
    fn only_admins_call_the_admin_api_and_without_one_only_this_machine() {
        let keys =
            Keys::new(vec![key("u", Role::User, "sk-user"), key("a", Role::Admin, "sk-admin")], Metrics::default());
        let call = |value| keys.authorise_admin(&headers("authorization", value), true).map(|it| it.name.to_string());
        assert_eq!(call("Bearer sk-admin"), Ok("a".to_owned()));
        assert_eq!(call("Bearer sk-user"), Err(AuthError::NotAdmin));
        let none = Keys::new(Vec::new(), Metrics::default());
        assert!(none.authorise_admin(&HeaderMap::new(), true).is_ok());
        assert_eq!(none.authorise_admin(&HeaderMap::new(), false).expect_err("refused"), AuthError::NotLoopback);
    }
}
