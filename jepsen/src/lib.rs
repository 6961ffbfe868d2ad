//! Workloads and checkers in the manner of Jepsen: clients ask a cluster through HTTP while somebody hurts it, write down what they asked and what they were told, and afterwards it is decided whether
//! that can have happened.
//!
//! ```text
//!  workloads ── requests ──▶ cluster ◀── whoever hurts it
//!      │ invoke, ok, fail, info              │ what it did, and when
//!      └────────────▶ history ◀──────────────┘
//!                        │
//!            checkers: direct ─▶ linearizable? ─▶ adya
//! ```
//! *Invariants:* 1. nothing of smg is linked here; 2. an operation whose end is not known is `info`, which may have taken effect at any time from its beginning on, or never; 3. every checker has been seen to fail
//! on a history with a planted violation.

pub mod check;
pub mod edn;
pub mod history;
pub mod link;
pub mod page;
pub mod random;
pub mod recorder;
pub mod summary;
pub mod workload;

pub use check::Verdict;
pub use check::Violation;
pub use check::check;
pub use edn::edn;
pub use recorder::Recorder;
pub use workload::Name;
pub use workload::Run;
pub use workload::Target;
pub use workload::Workload;
