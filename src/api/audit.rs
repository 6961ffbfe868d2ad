//! Who changed what through the admin API: one line each, target `audit`, at `info`.
//!
//! *Invariant:* what is shown is what the API shows to everybody who asks: of a worker's key that it has one, of an API key its id and whose it is.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::Value;

use crate::tenancy::keys::Principal;

/// Who sent an admin request.
#[derive(Clone, Debug)]
pub struct Author(Option<Arc<Principal>>);

impl Author {
    /// As the route's own check found it.
    #[must_use]
    pub fn of(request: &Request<Body>) -> Self {
        Self(request.extensions().get().cloned())
    }

    /// Notes an edit that was done. `before` and `after` are what the API shows; `Null` where there is nothing.
    pub fn did(&self, action: &'static str, worker: &str, before: &Value, after: &Value) {
        let (key, tenant) = self.0.as_deref().map_or(("", ""), |it| (&it.name, it.tenant.as_str()));
        tracing::info!(target: "audit", key, tenant, action, worker, %before, %after, "admin edit");
    }

    /// The same for what is no worker: a key or a tenant, by its id or name.
    pub fn decided(&self, action: &'static str, subject: &str, before: &Value, after: &Value) {
        let (key, tenant) = self.0.as_deref().map_or(("", ""), |it| (&it.name, it.tenant.as_str()));
        tracing::info!(target: "audit", key, tenant, action, subject, %before, %after, "admin edit");
    }
}
