//! The `smg` binary: parse, run, say how it ended.

use std::process::ExitCode;

fn main() -> ExitCode {
    smg::cli::main()
}
