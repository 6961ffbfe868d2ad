//! The command line: dispatches to what each subcommand runs.

use std::process::ExitCode;

/// Parses, runs, reports.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
