//! The model servers upstream: what they are, whether they are well, how they are spoken to.
//!
//! [`edits::Edits`] is the door for operators: it keeps what they decide, then puts it in force. [`registry::Registry`]
//! publishes a [`registry::Fleet`] that readers take without waiting. Each [`registry::Entry`] has a [`worker::Worker`] (how
//! to speak to it), a [`load::Load`] (what it has to do for this node) and a [`health::Health`] core. *Invariants:* every request in flight is held by exactly one load guard; a worker's key is
//! never shown and never sent to another origin; nothing here chooses.

pub mod address;
pub mod config;
#[cfg(test)]
mod conformance;
pub mod detect;
pub mod edits;
pub mod fake;
mod faults;
pub mod fleet;
pub mod forward;
pub mod health;
pub mod http;
pub mod lifetime;
pub mod load;
pub mod metrics;
pub mod observers;
pub mod prober;
pub mod rate;
pub mod registry;
pub mod spec;
pub mod worker;
