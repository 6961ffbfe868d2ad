//! `smg bench`: load on any OpenAI-compatible server, and what its answers took.
//!
//! `core/` decides: what is sent when, what an answer means, what is counted. [`run`] does it: one task for each
//! connection, over sockets of its own. Times count from when a request was due, so a server that stalls cannot hide
//! behind a load that waits for it.
//!
//! Absent on purpose: TLS and HTTP/2 towards the server; judgement of the answers' texts.

pub mod core;
mod driver;
mod exchange;
pub mod options;

pub use driver::Progress;
pub use driver::RunError;
pub use driver::run;
