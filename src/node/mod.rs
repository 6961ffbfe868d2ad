//! The composition root: builds every area, runs, drains.

pub mod config;
