//! Which worker answers: eight policies over one view of candidates. Decisions only; the caller performs them.
//!
//! [`router::Router`] is the handle everybody uses: it holds the policies of every model, the prefix map and the retry
//! budget. [`policies`] and [`prefix_map`] are the pure parts below it; [`retry`] decides what follows a failed attempt; [`prefix_log`] tells other
//! nodes what was placed, and takes what they tell.
//!
//! *Invariants:* a worker already tried is never chosen again; the same input and entropy give the same choice; routing
//! never does IO and never keeps a byte of a prompt.

pub mod affinity;
pub mod candidate;
pub mod config;
pub mod draw;
pub mod edits;
pub mod explain;
mod faults;
mod heard;
pub mod metrics;
mod models;
pub mod policies;
pub mod prefix_log;
pub mod prefix_map;
pub mod request;
pub mod retry;
pub mod route;
pub mod router;
pub mod rules;
mod scratch;
pub mod shortlist;

pub use config::Config;
pub use metrics::Metrics;
pub use route::Feedback;
pub use route::Placed;
pub use route::Reason;
pub use route::Route;
pub use route::RouteError;
pub use router::Router;
pub use rules::Policies;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
