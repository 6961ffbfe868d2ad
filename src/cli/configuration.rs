//! `smg config print` and `smg config check`: what a start would do with this command line, environment and file.

use clap::ArgMatches;

use super::Failure;
use crate::config::render_print;

/// Runs either.
pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("print", matches)) => super::say(&render_print(&super::load(matches)?)),
        Some((_check, matches)) => {
            super::load(matches)?;
            super::say("smg: the configuration is fine\n");
        }
        None => unreachable!("clap requires one"),
    }
    Ok(())
}
