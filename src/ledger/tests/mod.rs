//! The laws of an account, the simulation with the bugs that it must find, and the driver over real sockets.

mod laws;
mod real;
mod sim;

use super::faults;
use super::faults::Fault;

/// Seeds within which each planted bug must be found.
const SEEDS: u64 = 12;

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

#[test]
fn every_planted_bug_is_found() {
    for fault in faults::ALL {
        let _planted = Planted::new(*fault);
        let found = laws::stopped_observer().err();
        let found =
            found.or_else(|| (0..SEEDS).find_map(|seed| laws::drawn(seed).err().or_else(|| sim::run(seed).err())));
        assert!(found.is_some(), "{fault:?} was not found in {SEEDS} seeds");
    }
}
