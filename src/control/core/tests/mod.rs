//! Laws of the cores, on random histories, and each planted bug seen by one of them.

mod bootstrap;
mod lives;
mod voters;

use crate::control::faults::Fault;
use crate::control::faults::plant;

/// Runs a test with a bug planted. It must fail.
fn sees(fault: Fault, test: fn()) {
    plant(Some(fault));
    let passed = std::panic::catch_unwind(test).is_ok();
    plant(None);
    assert!(!passed, "{fault:?} was not seen");
}
