//! Who asks, and how much they may.
//!
//! *Invariants:* a key is compared before any other work is done for a request; keys never leave this area; a permit is
//! given back exactly once, whatever ends the request.

pub mod admission;
pub mod budget;
pub mod config;
pub mod edits;
mod filed;
pub mod hash;
pub mod index;
pub mod keys;
pub mod limit_spec;
pub mod listing;
pub mod metrics;
pub mod quota;
mod rows;
