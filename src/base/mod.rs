//! Nouns every area shares: ids, time, entropy, tasks, secrets, bounds, the journal. Depends on nothing of ours.

pub mod clock;
pub mod entropy;
pub mod ids;
pub mod journal;
pub mod limits;
pub mod secret;
pub mod setting;
pub mod tasks;
pub mod turns;
