//! What the control group agrees on, as a pure machine: command and state in, rows and an outcome out.
//!
//! *Invariants.* 1. The same commands in the same order make the same state everywhere; nothing else makes it. 2. Refusing is an outcome, not
//! an error: every member refuses alike. 3. The rows that a command changed, put over the rows before, restore the state. 4. Every map has a bound, and what
//! is over it is refused, or for forgotten storages the oldest dropped. 5. Proposing a command again changes nothing more.

mod command;
mod state;
#[cfg(test)]
mod tests;

pub use command::Command;
pub use command::MINT_SHARES_MAX;
pub use command::NAME_BYTES_MAX;
pub use command::Outcome;
pub use command::Refusal;
pub use command::Register;
pub use state::MintChange;
pub use state::Registration;
pub use state::State;

/// The highest feature level that this release can work at. A command or behaviour that older releases would misread comes with the next one.
pub const LEVEL: u32 = 2;
