//! History on real servers: `make test-backends` installs PostgreSQL and Redis and runs this. Words choose claims by name; `bench` takes figures instead.
//!
//! A program rather than a test: `cargo test` has no servers, and what cannot run must not count as passed.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]
#![expect(clippy::unwrap_used, reason = "a claim that fails ends the run")]

mod claims;
#[path = "../../../src/history/conformance.rs"]
mod conformance;
mod figures;

// What the suite names, as it names it where it lies.
use smg::base;
use smg::history;
use smg::raft;

use std::process::ExitCode;

use cluster_tests::Capture;
use smg::history::config::Kind;

/// Once they took ten times as long as this they will not end.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        if words.first().is_some_and(|it| it == "bench") {
            for kind in [Kind::Postgres, Kind::Redis] {
                figures::take(kind).await;
            }
            return;
        }
        let log = Capture::start();
        let claims = tokio::time::timeout(DEADLINE, claims::hold(&words));
        claims.await.expect("the claims end in time");
        claims::nothing_is_told(&log.lines());
    });
    ExitCode::SUCCESS
}
