//! What admission and authentication can be told, and how a key is written down: [`KeySpec`].
//!
//! A key is never rendered: `smg config print` shows who it stands for and stars.

use std::time::Duration;

use super::limit_spec::LimitSpec;
use crate::base::ids::TenantId;
use crate::base::secret::Secret;
use crate::base::setting::AtMost;
use crate::base::setting::Expected;
use crate::base::setting::Setting;

crate::config! {
    /// Who may ask, and how much at a time.
    pub struct Config in "tenancy" {
        /// Keys that are accepted, each `KEY` (an admin's), `NAME:KEY`, `NAME:TENANT:KEY` or `NAME:TENANT:ROLE:KEY` with
        /// the role `user` (default) or `admin`. A key that contains a colon needs all four parts. In the file also as
        /// `[[tenancy.keys]]` tables with `name`, `tenant`, `role` and `key`. None: everybody may send model requests.
        "api-key" => keys: Vec<KeySpec> = Vec::new(),
        /// Limits, each `WHOSE:NAME:WHAT:PER:NUMBER`, such as `tenant:team-a:requests:minute:600`: WHOSE is `tenant`, `key` or
        /// `model`, WHAT `requests` or `tokens`, PER `second` or `minute`; `tenant:team-a:streams:10` is requests open at a time. 0 means
        /// none at all. In the file also as
        /// `[[tenancy.limits]]` tables with `of`, `name`, `what`, `per` and `limit`. Written at the start and by SIGHUP where the
        /// cluster has another value, for all nodes; one that is taken out here stays until `smg tenants set-limit` takes it away.
        "limit" => limits: Vec<LimitSpec> = Vec::new(),
        /// Requests in flight at one time; 0 (or -1) is no limit.
        "max-concurrent-requests" => max_concurrent_requests: AtMost = AtMost(0),
        /// Requests that may wait for a slot of `--max-concurrent-requests`. Beyond it: 429.
        "queue-size" => queue_size: usize = 100,
        /// How long a request waits for a slot. Beyond it: 429.
        "queue-timeout" => queue_timeout: Duration = Duration::from_secs(60),
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Workers, drain, explain: everything.
    Admin,
    /// Model requests.
    User,
}

impl Role {
    /// As people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }

    /// Reads that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Admin, Self::User].into_iter().find(|it| it.as_str() == text)
    }
}

/// One configured key and who it stands for.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// Stable when the key is rotated; shown in logs.
    pub name: String,
    /// Whose requests these are.
    pub tenant: TenantId,
    /// What the key may do.
    pub role: Role,
    /// The key itself.
    pub key: Secret,
}

const EXPECTED: &str =
    "expected `KEY`, `NAME:KEY`, `NAME:TENANT:KEY` or `NAME:TENANT:ROLE:KEY` with the role `admin` or `user`";

/// Shortest key accepted. A shorter one can be guessed over the network; this keeps out empty ones and slips.
const KEY_LEN_MIN: usize = 4;

impl Setting for KeySpec {
    const KIND: &'static str = "key ([NAME[:TENANT[:ROLE]]:]KEY)";
    const IS_SECRET: bool = true;
    const TABLE_KEYS: &'static [&'static str] = &["name", "tenant", "role", "key"];

    fn parse(text: &str) -> Result<Self, Expected> {
        let parts: Vec<&str> = text.splitn(4, ':').collect();
        // One key alone is the operator's own; whoever names keys also says which of them are admins.
        let (name, tenant, role, key) = match parts[..] {
            [key] => ("default", "default", "admin", key),
            [name, key] => (name, name, "user", key),
            [name, tenant, key] => (name, tenant, "user", key),
            [name, tenant, role, key] => (name, tenant, role, key),
            _ => return Err(EXPECTED.into()),
        };
        let role = Role::parse(if role.is_empty() { "user" } else { role }).ok_or(EXPECTED)?;
        if name.is_empty() {
            return Err(EXPECTED.into());
        }
        if key.len() < KEY_LEN_MIN || key.bytes().any(|it| !it.is_ascii_graphic()) {
            return Err(
                format!("expected a key of at least {KEY_LEN_MIN} printable ASCII characters without spaces").into()
            );
        }
        let tenant = TenantId::parse(if tenant.is_empty() { name } else { tenant });
        let tenant = tenant.map_err(|error| format!("expected a tenant: {error}"))?;
        Ok(Self { name: name.to_owned(), tenant, role, key: Secret::new(key) })
    }

    fn render(&self) -> String {
        format!("{}:{}:{}:***", self.name, self.tenant, self.role.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, rendered: &str, key: &str) {
        let spec = KeySpec::parse(text).expect("parses");
        assert_eq!((spec.render().as_str(), spec.key.expose()), (rendered, key), "{text}");
    }

    #[test]
    fn every_form_of_a_key_is_read() {
        check("sk-one", "default:default:admin:***", "sk-one");
        check("ci:sk-two", "ci:ci:user:***", "sk-two");
        check("ci:team-a:sk-three", "ci:team-a:user:***", "sk-three");
        check("ops:team-a:admin:sk-four", "ops:team-a:admin:***", "sk-four");
        check("ops:team-a:user:with:colon", "ops:team-a:user:***", "with:colon");
        check("ops:::sk-table", "ops:ops:user:***", "sk-table");
    }

    #[test]
    fn a_key_that_is_refused_is_not_told() {
        for text in ["", "ab", "a:b:root:canary", ":canary", "n:", "name:two words"] {
            let error = KeySpec::parse(text).expect_err(text).to_string();
            assert!(error.starts_with("expected") && !error.contains("canary"), "{error}");
        }
    }
}
