//! Nouns every area shares: ids, time, entropy, tasks, secrets, bounds. Depends on nothing of ours.

pub mod byte_lists;
pub mod clock;
pub mod entropy;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod ids;
pub mod limits;
pub mod nearest;
#[cfg(test)]
pub(crate) mod older;
pub(crate) mod planted;
pub mod seal;
pub mod secret;
pub mod setting;
pub mod tasks;
pub mod turns;
