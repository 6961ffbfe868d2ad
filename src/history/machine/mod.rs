//! The history machine: one command and the rows before it in, an outcome and the rows after it out. Pure.
//!
//! *Ground state:* the log. *Derived:* every row; the same commands in the same order make the same rows everywhere. *Invariants.* 1. Refusing is an outcome: every member refuses alike, and
//! nothing but the memory of commands has changed. 2. A command's id counts once among the last [`REMEMBERED`]; one that is so late that it cannot be known is refused. 3. No clock of a member is
//! believed for more than a day at a time, and nothing but expiry goes by clocks. 4. Every list has a bound.

mod batch;
mod command;
mod conversations;
mod draft;
mod expiry;
mod jobs;
pub(super) mod keys;
pub mod read;
mod responses;
mod restore;
mod step;
#[cfg(test)]
mod tests;
mod uploads;
pub mod verify;

use crate::raft;
use crate::raft::Coded as _;

pub use batch::Batch;
pub use batch::Outcomes;
pub use batch::steps;
pub use command::Act;
pub use command::Begin;
pub use command::Command;
pub use command::CommandId;
pub use command::Entry;
pub use command::Finish;
pub use command::Idempotency;
pub use command::Outcome;
pub use command::Refusal;
pub use command::Room;
pub use step::step;

/// Commands that are remembered by their ids. A retry that comes later than that many commands is refused, because nobody knows whether it was carried out.
pub const REMEMBERED: u64 = 65_536;
/// Items of one response's input or output, or added to a conversation at a time.
pub const ITEMS_MAX: usize = 16_384;
/// Items of a conversation. All go in one step when it is deleted.
pub const CONVERSATION_ITEMS_MAX: usize = 32_768;
/// Responses in a chain. Longer ones are not read by any model; each read walks all of it.
pub const CHAIN_LEN_MAX: u32 = 10_000;
/// Events of one response that can be followed; the last of them goes before the end.
pub const EVENTS_MAX: u64 = 65_536;
/// Longest key of an idempotent request, in bytes.
pub const KEY_LEN_MAX: usize = 255;
/// Largest content of one command. Larger than a request body may be by default, with what was answered.
pub const CONTENT_BYTES_MAX: u64 = 160 << 20;
/// Content that was handed in and is not yet in a command, of all together.
pub const STAGED_BYTES_MAX: u64 = 1 << 30;
/// How long such content waits for its command.
pub const STAGED_MS: u64 = 600_000;
/// The furthest that the machine's clock goes at a time. A member whose clock is years ahead would otherwise delete everything that expires.
pub const CLOCK_STEP_MS: u64 = 86_400_000;
/// Records that expire in one step.
pub const EXPIRE_MAX: usize = 256;

/// History as a group carries it: it is its rows. An entry of its log is a [`Batch`], and what it answers [`Outcomes`].
#[derive(Default)]
pub struct History;

impl raft::Machine for History {
    const IS_ITS_ROWS: bool = true;

    fn is_record(key: &[u8]) -> bool {
        keys::is_record(key)
    }

    fn restore(&mut self, _: &[u8], _: &[u8]) -> Result<(), raft::Unreadable> {
        Ok(())
    }

    fn step(
        &mut self,
        rows: &dyn raft::Rows,
        _index: u64,
        command: &[u8],
        changes: &mut Vec<raft::RowChange>,
    ) -> Result<Vec<u8>, raft::Unreadable> {
        let (outcomes, changed) = steps(rows, &Batch::decode(command)?.0)?;
        changes.extend(changed);
        Outcomes(outcomes).encode().map_err(|_bug| raft::Unreadable)
    }
}
