//! The simulation of eight nodes and more with the bugs that it must find, the laws of transfers, the bounds, and the figures.

mod bounds;
mod driver;
mod fuzz;
mod group;
mod laws;
mod permits;
mod report;
mod sim;
mod streams;
mod streams_world;
mod world;

use super::faults;
use super::faults::Fault;

/// Plants a bug for as long as it lives.
struct Planted;

impl Planted {
    fn new(fault: Fault) -> Self {
        faults::plant(Some(fault));
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        faults::plant(None);
    }
}

/// A number that somebody asked for, or the usual one.
fn asked_or(name: &str, usually: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(usually)
}
