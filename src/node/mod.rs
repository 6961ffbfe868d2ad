//! The composition root: builds every area, runs, drains.

pub mod config;

use crate::config::Loaded;

/// Why a node could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing serves yet.
    #[error("this build cannot serve")]
    NothingServes,
}

/// Runs a node until it is told to stop, then drains it. `loaded` can be read again on SIGHUP.
pub fn run(loaded: Loaded) -> Result<(), Error> {
    drop(loaded);
    Err(Error::NothingServes)
}
