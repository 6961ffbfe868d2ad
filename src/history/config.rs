//! Options of history.

use std::time::Duration;

use crate::base::secret::Secret;
use crate::base::setting::ByteSize;

crate::config! {
    /// Responses and conversations that are kept.
    pub struct Config in "history" {
        /// Where responses and conversations are kept: `raft` (in this cluster, on the disks of its nodes), `memory` (this node, until the restart),
        /// `postgres`, `redis` or `oracle` (a server, see `--history-url`), or `none`: nothing is kept, and `/v1/responses` is passed on to workers that speak it.
        "history-backend" => history_backend: Kind = Kind::default(),
        /// The server of `--history-backend` `postgres`, `redis` or `oracle`, such as `postgres://smg:PASSWORD@db.example/smg?sslmode=require`,
        /// `rediss://:PASSWORD@cache.example:6379/0` or `oracle://smg:PASSWORD@db.example:1521/ORCLPDB1`. Several gateways share what is there.
        "history-url" => history_url: Option<Secret> = None,
        /// File with keys that seal the content of responses and conversations wherever it is kept, 64 hex digits a line: the first seals, all open. The same at every node. Default: content is not sealed.
        "history-key-file" => history_key_file: Option<String> = None,
        /// How long responses and conversations are kept. 0 is for ever.
        "history-retention" => history_retention: Duration = Duration::from_secs(30 * 86_400),
        /// Most that one tenant keeps. Beyond it new responses and items are refused; what began may end.
        "history-tenant-bytes" => history_tenant_bytes: ByteSize = ByteSize(10 << 30),
        /// How long what was deleted, or has expired, may still lie in the files of a node with `--history-backend` `raft`: in its log, its rows and snapshots. It is unreadable at once. Only if something was
        /// deleted, and at most twice in that time, files are written anew for it, all that have anything of history. Choose it well above the time that this takes. 0 leaves it to when they are written anew anyway.
        "purge-within" => purge_within: Duration = Duration::from_secs(86_400),
        /// Who sees what is kept: everybody of the `tenant`, or only the `principal` (the key, by its name) that made it. Each sees only what was made under the same scope.
        "history-scope" => history_scope: Scope = Scope::default(),
    }
}

/// Where history is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// In the cluster.
    #[default]
    Raft,
    /// Until the restart.
    Memory,
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// Oracle.
    Oracle,
    /// Nowhere.
    None,
}

crate::named_values!(
    Kind,
    "raft, memory, postgres, redis, oracle or none",
    Kind::Raft = "raft",
    Kind::Memory = "memory",
    Kind::Postgres = "postgres" | "postgresql",
    Kind::Redis = "redis",
    Kind::Oracle = "oracle",
    Kind::None = "none"
);

/// Who sees a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All keys of the tenant.
    #[default]
    Tenant,
    /// The key that made it.
    Principal,
}

crate::named_values!(Scope, "tenant or principal", Scope::Tenant = "tenant", Scope::Principal = "principal");
