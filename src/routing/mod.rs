//! Which worker answers: policies over one view of candidates. Pure decisions; the caller performs them.
//!
//! *Invariants:* a worker already tried is never chosen again; the same input and entropy give the same choice; routing
//! never does IO and never keeps a byte of a prompt.

pub mod candidate;
pub mod request;
pub mod route;
pub mod router;

pub use route::Feedback;
pub use route::Placed;
pub use route::Reason;
pub use route::Route;
pub use route::RouteError;
pub use router::Router;
