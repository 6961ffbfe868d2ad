//! The command line: parses, dispatches to what each subcommand runs, and says how it ended.
//!
//! Exit codes: 0 done, 1 failed while running, 2 a command line or configuration that cannot be used (nothing was
//! started). What a command prints goes to standard output, everything else to standard error.

mod args;
mod bench;
mod chaos;
mod client;
mod cluster;
mod configuration;
mod fleet;
mod history;
mod incumbent;
mod lab;
mod limits;
mod mesh;
#[cfg(test)]
mod reference;
mod tenants;
mod top;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;

use crate::config::Errors;
use crate::config::Loaded;

/// Parses, runs, reports.
#[must_use]
pub fn main() -> ExitCode {
    match args::command().try_get_matches() {
        Ok(matches) => report(dispatch(&matches)),
        Err(error) => {
            if error.use_stderr() {
                let text = error.render().to_string();
                eprint!("smg: {}", text.strip_prefix("error: ").unwrap_or(&text));
            } else {
                let _ = error.print(); // a reader that went away (`smg --help | head`) does not want the rest
            }
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// How a command failed.
#[derive(Debug)]
enum Failure {
    /// The user's to fix before anything starts.
    Usage(anyhow::Error),
    /// Went wrong while running.
    Run(anyhow::Error),
}

impl From<Errors> for Failure {
    fn from(errors: Errors) -> Self {
        Self::Usage(errors.into())
    }
}

impl From<crate::node::Error> for Failure {
    fn from(error: crate::node::Error) -> Self {
        if error.is_usage() { Self::Usage(error.into()) } else { Self::Run(error.into()) }
    }
}

fn report(result: Result<(), Failure>) -> ExitCode {
    let (error, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => (error, 2),
        Err(Failure::Run(error)) => (error, 1),
    };
    eprintln!("smg: {error:#}");
    ExitCode::from(code)
}

fn dispatch(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        None => serve(matches),
        Some(("serve", matches)) => serve(matches),
        Some(("config", matches)) => configuration::run(matches),
        Some(("workers", matches)) => fleet::workers(matches).map_err(Failure::Run),
        Some(("sim-worker", matches)) => lab::sim_worker(matches),
        Some(("lab", matches)) => lab::lab(matches),
        Some(("policies", matches)) => fleet::policies(matches).map_err(Failure::Run),
        Some(("bench", matches)) => bench::run(matches),
        Some(("keys", matches)) => tenants::keys(matches).map_err(Failure::Run),
        Some(("models", matches)) => tenants::models(matches).map_err(Failure::Run),
        Some(("tenants", matches)) => tenants::tenants(matches).map_err(Failure::Run),
        Some(("members", matches)) => cluster::members(matches).map_err(Failure::Run),
        Some(("status", matches)) => cluster::status(matches).map_err(Failure::Run),
        Some(("upgrade", matches)) => cluster::upgrade(matches).map_err(Failure::Run),
        Some(("drain", matches)) => cluster::drain(matches).map_err(Failure::Run),
        Some(("top", matches)) => top::run(matches).map_err(Failure::Run),
        Some(("chaos", matches)) => chaos::run(matches).map_err(Failure::Run),
        Some(("history", matches)) => history::run(matches).map_err(Failure::Run),
        Some(("mesh", matches)) => mesh::run(matches).map_err(Failure::Run),
        Some(("route", matches)) => fleet::route(matches).map_err(Failure::Run),
        Some((name, _)) => unreachable!("every subcommand of args::command is dispatched: {name}"),
    }
}

fn serve(matches: &ArgMatches) -> Result<(), Failure> {
    let loaded = load(matches)?;
    crate::node::run(loaded, &lab::stop(matches)).map_err(Failure::from)
}

/// The configuration of this command line.
fn load(matches: &ArgMatches) -> Result<Loaded, Failure> {
    let given = flags(matches)?;
    for warning in &given.warnings {
        eprintln!("smg: warning: {warning}");
    }
    Ok(crate::config::Sources::of_process(given.flags, given.config).load()?)
}

/// What a command line says, after the incumbent's flags had their word.
struct Said {
    flags: args::Flags,
    config: Option<PathBuf>,
    warnings: Vec<String>,
}

fn flags(matches: &ArgMatches) -> Result<Said, Failure> {
    let given = args::given(matches);
    let translated = incumbent::translate(given.incumbent).map_err(|it| Failure::Usage(it.into()))?;
    let mut flags = translated.flags;
    for (flag, values) in given.flags {
        args::merge(&mut flags, flag, values);
    }
    Ok(Said { flags, config: given.config, warnings: translated.warnings })
}

/// Prints what the command was asked for.
fn say(text: &str) {
    // A reader that went away (`| head`) does not want the rest.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests;
