//! The whole cluster in simulation: the cores that ship, on virtual time, from one seed.
//!
//! | file | what must hold | what happens |
//! |---|---|---|
//! | `any_trouble.rs` | P2 and membership | edits while nodes crash, stop, lose disks and clocks, and the network loses, doubles, cuts and splits |
//! | `deleted.rs` | P2 | DELETE, then the node with the flag restarts; an edit that races DELETE; a node that was away for a week |
//! | `split.rs` | P2 | a long split with edits on both sides |
//! | `strangers.rs` | P9 | whoever is no member says whatever it wants |
//! | `bounds.rs` | P8 | keys, rows, members and edits without end |
//! | `thousand.rs` | figures | a thousand nodes, when asked for |
//!
//! Simulations of single areas lie beside them (`membership/tests`, `replication/sim`, `ledger/tests`); here is what only all of them together can show. `make sim` runs
//! both kinds with as many seeds as one likes. A run that fails names its seed, and the same seed is the same run, byte for byte.

mod any_trouble;
mod bounds;
mod cluster;
mod deleted;
mod fleet;
mod node;
mod routing;
mod split;
mod strangers;
mod thousand;

use std::ops::Range;

/// Seeds of a run in `make test`, or as `make sim SEED=… N=…` has it.
fn seeds(usually: u64) -> Range<u64> {
    let first = asked_or("SMG_SIM_SEED", 0);
    first..first + asked_or("SMG_SIM_SEEDS", usually)
}

/// A number that somebody asked for, or the usual one.
fn asked_or(name: &str, usually: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(usually)
}

/// Whether runs were asked for that take minutes.
fn is_asked_for(what: &str) -> bool {
    std::env::var("SMG_SIM_LONG").is_ok_and(|it| it.split(',').any(|it| it == what))
}
