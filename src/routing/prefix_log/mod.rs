//! What nodes tell each other of the prompts they placed, so that every node knows who holds which prefix ([protocol](../../../docs/protocol/routing.md)).
//!
//! ```text
//! Router ──placed, withdrawn, taught──▶ Outbox ──each half second──▶ core ──one row──▶ replication (`prefixes`)
//!   map  ◀──put, withdraw, forget──────  driver ◀────────────────── core ◀──news of all nodes────┘
//! ```
//! `core/` decides, `batch.rs` is the bytes, `driver.rs` the only task; the outbox is what a decision pays: a lock for some dozens of
//! nanoseconds. *Invariants.* 1. A hint of another node counts like an own placement of that age. 2. Rows in any order, lost and
//! repeated, end in the same map. 3. No byte of a prompt leaves the node: 48 bits of keyed hashes (P11). 4. A decision waits for nobody; what
//! does not fit is dropped and counted.

pub mod batch;
pub mod core;
mod driver;
mod outbox;

pub use self::driver::Sharing;
pub use self::driver::start;
pub use self::outbox::Outbox;

#[cfg(test)]
mod tests;
