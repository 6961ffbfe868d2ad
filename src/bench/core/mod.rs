//! The decisions of a load run: what is sent when, what an answer means, what is counted. Nothing here waits.

pub mod answer;
pub mod events;
pub mod plan;
pub mod prompt;
pub mod report;
pub mod request;
pub mod tally;
pub mod trace;
