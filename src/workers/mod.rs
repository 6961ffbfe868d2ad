//! The model servers upstream: what they are, whether they are well, how they are spoken to.

pub mod worker;
