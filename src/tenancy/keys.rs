//! API keys: from a header to a [`Principal`], in constant time for every key of the presented length.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::base::ids::TenantId;
use crate::base::secret::Secret;

use super::config::KeySpec;
pub use super::config::Role;
use super::metrics::Metrics;

/// Who asks, once the key is known.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The key's name: stable when the key is rotated.
    pub name: Arc<str>,
    /// Whose requests these are.
    pub tenant: TenantId,
    /// What the key may do.
    pub role: Role,
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
        let principal = Principal { name: spec.name.into(), tenant: spec.tenant, role: spec.role };
        Self { principal: Arc::new(principal), secret: spec.key }
    }
}

/// Why a request has no principal. The client's fault; nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither header was given.
    #[error("no API key was given: send `Authorization: Bearer KEY` or `x-api-key: KEY`")]
    Missing,
    /// The key is not one of ours.
    #[error("the API key is not known here")]
    Unknown,
    /// A user's key on an admin endpoint.
    #[error("this endpoint needs a key with the role `admin`")]
    NotAdmin,
    /// No admin key is configured and the caller is not on this machine.
    #[error("without an admin key the admin API answers on loopback only: configure one with `--api-key`")]
    NotLoopback,
}

/// The keys in force. Readers never wait; a reload replaces them whole.
pub struct Keys {
    keys: ArcSwap<Vec<Key>>,
    anonymous: Arc<Principal>,
    metrics: Metrics,
}

impl Keys {
    /// With no keys at all every caller is the anonymous tenant.
    #[must_use]
    pub fn new(keys: Vec<Key>, metrics: Metrics) -> Self {
        let tenant = TenantId::parse("anonymous").expect("a valid tenant id");
        let anonymous = Principal { name: "anonymous".into(), tenant, role: Role::User };
        Self { keys: ArcSwap::from_pointee(keys), anonymous: Arc::new(anonymous), metrics }
    }

    /// Puts other keys in force.
    pub fn replace(&self, keys: Vec<Key>) {
        self.keys.store(Arc::new(keys));
    }

    /// Who sends a model request.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>, AuthError> {
        self.identify(headers).inspect_err(|error| self.metrics.auth_failed(*error))
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Arc<Principal>, AuthError> {
        let keys = self.keys.load();
        if keys.is_empty() {
            return Ok(Arc::clone(&self.anonymous));
        }
        find(&keys, presented(headers).ok_or(AuthError::Missing)?)
    }

    /// Who calls the admin API: an admin key; or, where none is configured, anybody on this machine.
    pub fn authorise_admin(&self, headers: &HeaderMap, is_loopback: bool) -> Result<Arc<Principal>, AuthError> {
        self.identify_admin(headers, is_loopback).inspect_err(|error| self.metrics.auth_failed(*error))
    }

    fn identify_admin(&self, headers: &HeaderMap, is_loopback: bool) -> Result<Arc<Principal>, AuthError> {
        let keys = self.keys.load();
        if !keys.iter().any(|it| it.principal.role == Role::Admin) {
            return if is_loopback { Ok(Arc::clone(&self.anonymous)) } else { Err(AuthError::NotLoopback) };
        }
        let principal = find(&keys, presented(headers).ok_or(AuthError::Missing)?)?;
        if principal.role == Role::Admin { Ok(principal) } else { Err(AuthError::NotAdmin) }
    }
}

/// Every key is compared, so the time does not tell which one nearly matched.
fn find(keys: &[Key], presented: &[u8]) -> Result<Arc<Principal>, AuthError> {
    let mut found = None;
    for key in keys {
        if key.secret.matches(presented) {
            found = Some(&key.principal);
        }
    }
    found.cloned().ok_or(AuthError::Unknown)
}

/// The key in `Authorization: Bearer` or `x-api-key`.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes).and_then(|it| {
        let (scheme, key) = it.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(http::HeaderValue::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, role: Role, secret: &str) -> Key {
        let tenant = TenantId::parse("team").expect("valid");
        Key { principal: Arc::new(Principal { name: name.into(), tenant, role }), secret: Secret::new(secret) }
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
