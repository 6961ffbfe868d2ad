//! The replicated tables: number, name, kind, bounds, bytes per second. A table is one line here.
//!
//! Numbers are on the wire and on disk and are never given again. A table that a peer has and this release does not is not
//! asked for; members that know it exchange it with each other.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::admin::Bounds;
use super::owned::Rule;
use super::owned::Share;

/// A table on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(pub u16);

/// Who writes it and how much it may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Anyone writes, instances merge.
    Admin(Bounds),
    /// Each member writes its own rows. Kept on disk only where they outlive their owner.
    Owned(Rule, Share),
}

/// One table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its number.
    pub id: TableId,
    /// Its name in views, metrics and messages.
    pub name: &'static str,
    /// Who writes it, and how much.
    pub kind: Kind,
    /// What it may send in a second, in bytes. What is beyond waits for the next round.
    pub bytes_per_s: usize,
}

/// Starts of nodes that may edit one table, ever: a cluster of eight whose nodes are all started anew and edit each day needs five years. As bytes, 80 KB where directories
/// are kept and 400 KB where each start has a new one.
const RUNS_MAX: usize = 16_384;

const fn admin(id: u16, name: &'static str, entries_max: usize, bytes_max: usize) -> Spec {
    Spec {
        id: TableId(id),
        name,
        kind: Kind::Admin(Bounds { entries_max, bytes_max, runs_max: RUNS_MAX }),
        bytes_per_s: 1 << 20,
    }
}

const fn owned(id: u16, name: &'static str, rule: Rule, rows_max: usize, bytes_max: usize, bytes_per_s: usize) -> Spec {
    Spec { id: TableId(id), name, kind: Kind::Owned(rule, Share { rows_max, bytes_max }), bytes_per_s }
}

/// Workers added through the API. Credentials are sealed before they come here.
pub const WORKERS: TableId = TableId(1);
/// Workers that DELETE keeps away although a source asserts them.
pub const SUPPRESSIONS: TableId = TableId(2);
/// API keys, hashed.
pub const KEYS: TableId = TableId(3);
/// Tenants and their limits.
pub const TENANTS: TableId = TableId(4);
/// Routing policies by model.
pub const POLICIES: TableId = TableId(5);
/// Bindings of the `manual` policy.
pub const AFFINITY: TableId = TableId(6);
/// Data directories that an operator forgot for good.
pub const FORGOTTEN: TableId = TableId(7);
/// What is set for models by name: their limits.
pub const MODELS: TableId = TableId(8);
/// What flags, files and discovery of each node assert.
pub const SOURCES: TableId = TableId(32);
/// What each node's probes saw.
pub const HEALTH: TableId = TableId(33);
/// In-flight work by worker, as each node has it.
pub const LOADS: TableId = TableId(34);
/// Placements by worker: keyed hashes and numbers only.
pub const PREFIXES: TableId = TableId(35);
/// Release, zone, start, what a node can do.
pub const NODES: TableId = TableId(36);

/// The field of [`FORGOTTEN`] that names the data directory: 16 bytes, big-endian.
pub const FORGOTTEN_STORAGE: u16 = 1;

/// All of them.
pub const TABLES: &[Spec] = &[
    admin(WORKERS.0, "workers", 16_384, 32 << 20),
    admin(SUPPRESSIONS.0, "suppressions", 16_384, 8 << 20),
    admin(KEYS.0, "keys", 65_536, 32 << 20),
    admin(TENANTS.0, "tenants", 16_384, 16 << 20),
    admin(POLICIES.0, "policies", 4096, 4 << 20),
    admin(AFFINITY.0, "affinity", 65_536, 32 << 20),
    admin(FORGOTTEN.0, "forgotten", 4096, 1 << 20),
    admin(MODELS.0, "models", 4096, 4 << 20),
    owned(SOURCES.0, "sources", Rule::Keep, 16_384, 4 << 20, 256 << 10),
    owned(HEALTH.0, "health", Rule::Expire(Duration::from_secs(30)), 16_384, 1 << 20, 64 << 10),
    owned(LOADS.0, "loads", Rule::Expire(Duration::from_secs(5)), 16_384, 1 << 20, 64 << 10),
    owned(PREFIXES.0, "prefixes", Rule::Drop, 65_536, 4 << 20, 128 << 10),
    owned(NODES.0, "nodes", Rule::Keep, 64, 64 << 10, 16 << 10),
];
