//! The pure machine: command and state in, effects and outcome out. No raft, no disk, no clock.
//!
//! *Invariants.* 1. The same commands in the same order make the same state everywhere. 2. Refusing is an outcome, not
//! an error: every member refuses alike. 3. Every effect names one row, so that a store can write state and log position
//! in one batch.

mod command;
mod state;

pub use command::Command;
pub use command::Outcome;
pub use command::Refusal;
pub use command::SPEC_BYTES_MAX;
pub use state::Effect;
pub use state::State;
