//! A whole cluster on one machine: nodes and simulated workers, each a process of its own, so that any can be killed.
//!
//! `plan.rs` says which processes with which arguments and ports, purely; `driver.rs` starts them, watches them, and ends them. Each child
//! holds the reading end of a pipe whose other end is the lab's: when the lab is gone, however it went, the pipe closes and the
//! child stops as on SIGTERM. *Invariants.* 1. No child outlives the lab. 2. Nothing is restarted unasked: who kills a node wants to see what the others do.
//! 3. Each worker is named at one node only; that the others use it is the cluster's doing. *Absent on purpose:* the children's output on the terminal;
//! it is in files.

mod driver;
mod plan;

pub use self::driver::LabError;
pub use self::driver::run;
pub use self::plan::NODES_MAX;
pub use self::plan::Part;
pub use self::plan::Plan;
pub use self::plan::Wish;
pub use self::plan::WishError;
pub use self::plan::temporary_directory;

use crate::base::tasks::Stop;

/// Fires when standard input has come to its end: whoever started this process is gone.
#[must_use]
pub fn end_of_stdin() -> Stop {
    let stop = Stop::new();
    let ended = stop.clone();
    // A thread, not a task: a runtime would wait for a read that only ends with the parent.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()); // an error is an end too
        ended.cancel();
    });
    stop
}
