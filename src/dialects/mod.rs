//! Wire APIs as pure translations between bytes and [`form`], the one internal form of a request and of an event stream.
//!
//! Nothing here waits, reads a clock or knows a worker. Same dialect on both sides: bodies pass by splicing bytes
//! ([`json`] finds the few fields that are ours), so what we do not own arrives unchanged.

pub mod form;
pub mod json;
pub mod openai;
pub mod sse;
