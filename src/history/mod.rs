//! History: responses, conversations and their items, as the cluster agrees on them (P3).
//!
//! ```text
//!  api ──▶ Backend ──▶ machine::step   one command, rows before it  ──▶  outcome, rows that are now otherwise
//!                └───▶ machine::read   rows of one moment            ──▶  a response, its items, a chain, a page
//! ```
//! The machine is a function over rows, which lie on disk: history is larger than memory. Whoever owns the rows decides what kind of backend it is: the rows of a raft group, or a map.
//!
//! *Invariants.* 1. A key of an owner's row begins with the owner, and no command or read names two owners. 2. A command that is applied twice does once what it does. 3. What was deleted
//! is in no row. 4. Only the latest attempt of a job writes. *Absent on purpose:* what a response means (`dialects`), who may ask (`tenancy`), how entries travel (`raft`).

pub mod backend;
pub mod config;
#[cfg(test)]
mod conformance;
pub mod export;
pub mod external;
pub(crate) mod faults;
pub mod group;
mod handle;
mod ids;
mod leases;
pub mod machine;
mod memory;
mod record;
mod seals;
mod tend;

pub use crate::raft::Rows;
pub use crate::raft::Unreadable;
pub use backend::Absent;
pub use backend::Backend;
pub use backend::Unavailable;
pub use external::External;
pub use handle::Handle;
pub use handle::HistoryError;
pub use handle::LIMIT;
pub use handle::now_ms;
pub use ids::Id;
pub use ids::InvalidName;
pub use ids::Owner;
pub use memory::Memory;
pub use record::Conversation;
pub use record::Item;
pub use record::Job;
pub use record::Lease;
pub use record::Response;
pub use record::Status;
pub use record::Usage;
pub use seals::InvalidKeys;
pub use seals::Keys;
pub use tend::run;
