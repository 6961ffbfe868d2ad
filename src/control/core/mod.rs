//! The decisions of the control group: how the first group comes to be (`bootstrap`), which lives of which data directories are heard (`lives`, `gate`), who
//! votes (`voters`). Told the time, given every draw.
//!
//! *Ground state:* what is [`Kept`](bootstrap::Kept) on this disk, and the group's own. *Derived:* everything else.

pub mod bootstrap;
pub mod gate;
pub mod lives;
#[cfg(test)]
mod tests;
pub mod voters;
