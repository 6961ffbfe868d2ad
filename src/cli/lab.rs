//! `smg sim-worker` and `smg lab`: workers that are not there, alone or behind a cluster of gateways.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use clap::value_parser;

use super::Failure;
use super::args;
use super::say;
use crate::base::tasks::Stop;
use crate::lab::cluster;
use crate::lab::cluster::NODES_MAX;
use crate::lab::cluster::Plan;
use crate::lab::cluster::Wish;
use crate::lab::process;
use crate::lab::sim_worker::Options;

/// A node needs this much longer than its drain to stop everything else.
const GRACE: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "Examples:
  smg lab
  smg lab --nodes 1 --workers 2 --policy round_robin
  smg lab --data-dir lab --port 40000 --prometheus-port 41000

Clients go to --port of the first node, 10 more of the next, and so on; the mesh is one above each, workers begin 500 above the first.";

/// `smg sim-worker`: its own options and how many.
pub(super) fn sim_worker_command() -> Command {
    Command::new("sim-worker")
        .about("Serve as one or more simulated workers: OpenAI-compatible, batching, prefix cache, faults on command")
        .arg(number(
            "workers",
            "1",
            1024,
            "How many; each has its own port, the next after --port (or a free one when that is 0)",
        ))
        .args(args::own_flags::<Options>())
        .arg(end_with_stdin())
}

/// `smg lab`: a gateway's whole command line, and how many of everything.
pub(super) fn lab_command() -> Command {
    let command = Command::new("lab")
        .about("A cluster of gateways in front of simulated workers, each a process on this machine");
    args::serving(command)
        .arg(number("nodes", "3", NODES_MAX.into(), "How many gateways"))
        .arg(number(
            "workers",
            "4",
            400,
            "How many simulated workers, each named at one node; --worker-urls adds real ones",
        ))
        .after_help(EXAMPLES)
}

/// For children: whoever started this process holds the other end of its standard input.
pub(super) fn end_with_stdin() -> Arg {
    Arg::new("end-with-stdin").long("end-with-stdin").hide(true).action(ArgAction::SetTrue)
}

/// What ends this process beside signals.
pub(super) fn stop(matches: &ArgMatches) -> Stop {
    let is_child = matches.try_get_one::<bool>("end-with-stdin").ok().flatten() == Some(&true);
    if is_child { cluster::end_of_stdin() } else { Stop::new() }
}

fn number(name: &'static str, default: &'static str, most: i64, help: &'static str) -> Arg {
    let parser = value_parser!(u16).range(if name == "nodes" { 1 } else { 0 }..=most);
    Arg::new(name).long(name).value_name("NUMBER").default_value(default).value_parser(parser).help(help)
}

fn count(matches: &ArgMatches, name: &str) -> u16 {
    matches.get_one::<u16>(name).copied().unwrap_or(1)
}

/// Serves as simulated workers until told to stop.
pub(super) fn sim_worker(matches: &ArgMatches) -> Result<(), Failure> {
    let options: Options = args::own_options(matches)?;
    let list = |urls: &[String]| say(&urls.iter().fold(String::new(), |text, url| text + url + "\n"));
    let ran = process::run(usize::from(count(matches, "workers")), &options, &stop(matches), list);
    ran.map_err(|error| Failure::Run(anyhow::Error::from(error).context("cannot run the simulated workers")))
}

/// Runs a cluster until told to stop. Its files stay if the command line named a place for them.
pub(super) fn lab(matches: &ArgMatches) -> Result<(), Failure> {
    let mut loaded = super::load(matches)?;
    let named = loaded.config.node.data_dir.take().filter(|it| it != "none").map(PathBuf::from);
    let is_kept = named.is_some();
    let given = super::flags(matches)?;
    let wish = Wish {
        nodes: count(matches, "nodes"),
        workers: count(matches, "workers"),
        port: loaded.config.server.port,
        metrics_port: loaded.config.node.prometheus_port,
        directory: named.unwrap_or_else(cluster::temporary_directory),
        config: given.config,
        flags: given.flags,
    };
    let plan = Plan::of(&wish).map_err(|error| Failure::Usage(error.into()))?;
    let ran = run(&plan, &wish.directory, loaded.config.server.drain_timeout + GRACE);
    if !is_kept {
        let _ = std::fs::remove_dir_all(&wish.directory); // it was not made, or is in use by who looks into it
    }
    ran.map_err(Failure::Run)
}

fn run(plan: &Plan, directory: &Path, grace: Duration) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let binary = std::env::current_exe().context("cannot find this program")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(cluster::run(plan, &binary, grace, &say))?)
}
