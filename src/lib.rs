//! `smg`: a model gateway that is a cluster.
//!
//! Every process is an equal gateway in front of LLM inference servers. Modules are declared in reading order: nouns
//! first, then what watches, what speaks a wire API, what answers, what decides, and last what puts it together.
//! Which area may name which is law (`tidy.rs`) and explained in `docs/architecture.md`.

pub mod base;
pub mod observability;

pub mod chaos;
pub mod storage;

pub mod membership;
pub mod replication;
pub mod transport;

pub mod control;
pub mod raft;

pub mod dialects;
pub mod workers;

pub mod history;
pub mod ledger;
pub mod limits;

pub mod routing;
pub mod tenancy;

pub mod api;

pub mod bench;
pub mod lab;

pub mod cli;
pub mod config;
pub mod node;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tidy;
