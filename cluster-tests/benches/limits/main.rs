//! Figures of limits on real nodes in this process: real sockets on loopback, a real control group on disk, an optimised build. `make report-limits` runs it.
//!
//! `PART=skewed` (usual) loads eight nodes and writes every window to a file as it goes; `PART=table` prints the table of such a file, also while it grows. Requests
//! are offered straight at each node's `limits::Handle`, because 10,000 a second over HTTP would measure the machine. `PART=latency` is how long admission takes,
//! `PART=memory` what a node does with more limits than it knows.

#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

mod counter;
mod latency;
mod memory;
mod nodes;
mod rows;
mod skewed;
mod table;

use std::path::PathBuf;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    match words.first().map_or("skewed", String::as_str) {
        "skewed" => runtime.block_on(skewed::run()),
        "latency" => runtime.block_on(latency::run()),
        "memory" => runtime.block_on(memory::run()),
        "table" => table::print(&file()),
        other => println!("no such part: `{other}`"),
    }
}

/// Where windows are written.
fn file() -> PathBuf {
    let usual = || PathBuf::from(std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned()));
    std::env::var("WINDOWS_FILE").map_or_else(|_| usual().join("limits-windows.tsv"), PathBuf::from)
}

/// A number from the environment, to measure less or more than usual.
fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(usual)
}
