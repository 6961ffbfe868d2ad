//! Machines that are not there: network namespaces, one TAP device each, and a switch in this process between them.
//!
//! ```text
//!  observer (the thread that made the lab)      machine 0     machine 1     machine 2
//!  10.66.0.254  clients, workers, questions     10.66.0.1     10.66.0.2     10.66.0.3
//!        eth0 ─────────────┐                      eth0          eth0          eth0
//!                          └────────── switch: every frame passes one thread ───┘
//! ```
//! The kernel's own network emulation (`netem`) is missing on many machines, this one's included; a switch in user space needs only TAP devices, hurts each
//! direction of each pair by itself, and counts what it did, so that a run can prove that its fault bit.
//!
//! *Invariants:* 1. nothing is left behind, however the process ends: namespaces have no names, TAP devices are not persistent, processes die with
//! the thread that started them; so two runs cannot collide either; 2. nothing touches the machine's own network; 3. what the switch holds is bounded.
//! *Absent:* broadcasts. Every machine knows every hardware address from the start, so losses hit what nodes say and not ARP.

mod fault;
pub mod frame;
mod lab;
mod namespace;
mod process;
mod switch;
mod tap;
mod turns;

pub use fault::Count;
pub use fault::Fault;
pub use lab::Lab;
pub use lab::Machine;
pub use lab::is_possible;
pub use process::Process;
pub use switch::Sent;
pub use switch::Switch;
pub use turns::Turns;
