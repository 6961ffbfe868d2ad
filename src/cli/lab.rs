//! `smg sim-worker` and `smg lab`: workers that are not there, alone or behind a gateway.

use anyhow::Context as _;
use clap::Arg;
use clap::ArgMatches;
use clap::Command;
use clap::value_parser;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::Failure;
use super::args;
use super::say;
use crate::base::tasks::Tasks;
use crate::config::Config;
use crate::config::Origin;
use crate::lab::Lab;
use crate::lab::sim_worker::Options;

/// `smg sim-worker`: its own options and how many.
pub(super) fn sim_worker_command() -> Command {
    Command::new("sim-worker")
        .about("Serve as one or more simulated workers: OpenAI-compatible, batching, prefix cache, faults on command")
        .arg(workers("1", "How many; each has its own port, the next after --port (or a free one when that is 0)"))
        .args(args::own_flags::<Options>())
}

/// `smg lab`: a gateway's whole command line, and how many workers stand behind it.
pub(super) fn lab_command() -> Command {
    let command = Command::new("lab").about("A gateway in front of simulated workers, all in this process");
    args::serving(command).arg(workers("4", "How many simulated workers; --worker-urls adds real ones"))
}

fn workers(default: &'static str, help: &'static str) -> Arg {
    let parser = value_parser!(u16).range(0..=1024);
    Arg::new("workers").long("workers").value_name("NUMBER").default_value(default).value_parser(parser).help(help)
}

/// Serves as simulated workers until told to stop.
pub(super) fn sim_worker(matches: &ArgMatches) -> Result<(), Failure> {
    let options: Options = args::own_options(matches)?;
    let simulated = Simulated::start(matches, &options).map_err(Failure::Run)?;
    say(&simulated.lab.urls().iter().fold(String::new(), |text, url| text + url + "\n"));
    simulated.runtime.block_on(stopped()).map_err(Failure::Run)
}

/// Serves as a gateway with simulated workers behind it.
pub(super) fn lab(matches: &ArgMatches) -> Result<(), Failure> {
    let options = Options { port: 0, ..Options::like_a_gpu() };
    let simulated = Simulated::start(matches, &options).map_err(Failure::Run)?;
    let urls = simulated.lab.urls();
    let mut loaded = super::load(matches, &urls)?;
    if loaded.origin("data-dir") == Origin::Default {
        // A playground neither remembers nor reads what a gateway in the same directory keeps.
        loaded.config.node.data_dir = Some("none".to_owned());
    }
    say(&welcome(&loaded.config, &urls));
    crate::node::run(loaded).map_err(|error| Failure::Run(error.into()))
}

fn welcome(config: &Config, urls: &[String]) -> String {
    let (port, metrics) = (config.server.port, config.node.prometheus_port);
    let workers = urls.join("\n             ");
    let model = Options::default().models.first().cloned().unwrap_or_default();
    format!(
        "gateway      http://127.0.0.1:{port}/v1\n\
         workers      {workers}\n\
         metrics      http://127.0.0.1:{metrics}/metrics\n\
         try          curl -N http://127.0.0.1:{port}/v1/chat/completions -H 'content-type: application/json' -d \\\n             \
         '{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n"
    )
}

/// Simulated workers on a runtime of their own, so that they do not take the gateway's turns.
struct Simulated {
    lab: Lab,
    runtime: Runtime,
    /// Held: the workers' tasks end with their owner.
    _tasks: Tasks,
}

impl Simulated {
    fn start(matches: &ArgMatches, options: &Options) -> anyhow::Result<Self> {
        let workers = matches.get_one::<u16>("workers").copied().unwrap_or(1);
        let threads = options.threads.clamp(1, 1024);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        let tasks = Tasks::new();
        let lab = runtime.block_on(async { Lab::start(usize::from(workers), options, &tasks) });
        let lab = lab.context("cannot start the simulated workers")?;
        Ok(Self { lab, runtime, _tasks: tasks })
    }
}

async fn stopped() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
