//! Who asks, and how much they may.

pub mod config;
