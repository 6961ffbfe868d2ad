//! A model server's inside, imitated: batching, prefill, decoding and the block cache, without any model.
//!
//! [`core`] decides in virtual time and is what a simulation of a whole cluster uses as well; [`driver`] ties it to the
//! real (or paused) clock. [`cache`] is the prefix cache, [`tokens`] the deterministic tokenisation. Absent on purpose:
//! preemption, chunked prefill, KV transfer between workers.

pub mod cache;
pub mod core;
pub mod driver;
pub mod tokens;
