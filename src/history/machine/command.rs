//! What can be asked of the machine, and what it answers. Both are written to disk: variants are only ever added at the end.

use serde::Deserialize;
use serde::Serialize;

/// Largest description of a worker, and largest document of policies.
pub const SPEC_BYTES_MAX: usize = 8 << 10;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Keeps a worker that was added through the admin API, or replaces what is kept of it.
    PutWorker {
        /// Its id.
        id: u64,
        /// Its description. Opaque here: the caller versions it, and seals the key in it before it comes here.
        spec: Vec<u8>,
    },
    /// Forgets a worker. Doing so twice changes nothing.
    RemoveWorker {
        /// Its id.
        id: u64,
    },
    /// Keeps the routing policies that were set through the admin API, all of them in one document.
    PutPolicies {
        /// The document. Opaque here: the caller versions it.
        spec: Vec<u8>,
    },
    /// Forgets them. Doing so twice changes nothing.
    RemovePolicies,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// An entry of the protocol, not of a caller.
    Nothing,
    /// It changed the state.
    Changed,
    /// The state was already so.
    Unchanged,
    /// It was refused; nothing was changed.
    Refused(Refusal),
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// As many workers are kept as may be.
    TooManyWorkers,
    /// The description is longer than [`SPEC_BYTES_MAX`].
    SpecTooLong,
}
