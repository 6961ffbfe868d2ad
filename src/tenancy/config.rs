//! Options of admission and keys.

use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::TenantId;
use crate::base::secret::Secret;
use crate::base::setting::Setting;

use super::keys::Key;
use super::keys::Principal;
use super::keys::Role;

crate::config! {
    /// Who may ask and how many at a time.
    pub struct Config in "tenancy" {
        /// API keys: `KEY` (an admin's), or `NAME:TENANT:ROLE:KEY` with the role `admin` or `user`. Without any, everybody may ask.
        "api-key" => keys: Vec<Key> = Vec::new(),
        /// Requests in flight at one time; 0 for no limit.
        "max-concurrent-requests" => concurrent_max: usize = 0,
        /// Requests that may wait for a slot; beyond it: 429.
        "queue-size" => queue_len_max: usize = 100,
        /// Longest wait for a slot; beyond it: 429.
        "queue-timeout-secs" => queue_timeout: Duration = Duration::from_secs(60),
    }
}

impl Setting for Key {
    const KIND: &'static str = "KEY or NAME:TENANT:ROLE:KEY";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(4, ':').collect();
        let (name, tenant, role, secret) = match parts[..] {
            [name, tenant, "admin", secret] => (name, tenant, Role::Admin, secret),
            [name, tenant, "user", secret] => (name, tenant, Role::User, secret),
            [secret] => ("default", "default", Role::Admin, secret),
            _ => return Err("expected `KEY` or `NAME:TENANT:ROLE:KEY` with the role `admin` or `user`".to_owned()),
        };
        if secret.len() < 4 {
            return Err("expected a key of at least 4 characters".to_owned());
        }
        let tenant = TenantId::parse(tenant).map_err(|error| error.to_string())?;
        Ok(Self { principal: Arc::new(Principal { name: name.into(), tenant, role }), secret: Secret::new(secret) })
    }

    fn render(&self) -> String {
        "***".to_owned()
    }
}
