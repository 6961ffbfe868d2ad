//! What clap is told: every option of [`Config`] becomes a flag, so an option costs one line in its area.
//!
//! Values are taken as text here and read by the configuration loader, which knows kinds, ranges and origins.

use std::path::PathBuf;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use clap::value_parser;

use super::Failure;
use super::bench;
use super::incumbent;
use super::lab;
use crate::base::setting::OptionSpec;
use crate::base::setting::Section;
use crate::config::Config;
use crate::config::sentence;

const ABOUT: &str = "A model gateway that is a cluster: one binary in front of LLM inference servers and model APIs";

const EXAMPLES: &str = "Examples:
  smg --worker-urls http://localhost:8000
  smg --worker-urls http://gpu1:8000 http://gpu2:8000 --policy cache_aware
  smg config check --config smg.toml

Every flag is also an environment variable (--log-level: SMG_LOG_LEVEL) and a key of the file; see docs/reference/.";

/// The whole command line.
#[must_use]
pub(super) fn command() -> Command {
    serving(Command::new("smg"))
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .args_conflicts_with_subcommands(true)
        .subcommand(
            serving(Command::new("serve"))
                .about("Serve; what `smg` alone does")
                .visible_aliases(["launch", "start"])
                .arg(lab::end_with_stdin()),
        )
        .subcommand(configuration())
        .subcommand(lab::lab_command())
        .subcommand(lab::sim_worker_command())
        .subcommand(bench::command())
        .subcommand(workers())
        .subcommand(policies())
        .subcommand(route())
        .subcommands(super::tenants::commands())
        .subcommands(super::cluster::commands())
        .subcommand(super::top::command())
        .subcommand(super::mesh::command())
        .subcommand(super::history::command())
        .subcommand(super::chaos::command())
}

fn configuration() -> Command {
    Command::new("config")
        .about("Look at the configuration without starting anything")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            serving(Command::new("print")).about("Every value and where it came from, as a file; secrets starred"),
        )
        .subcommand(serving(Command::new("check")).about("Say what is wrong, or nothing"))
}

fn workers() -> Command {
    let worker = || required("worker", "The worker: its id (w-...) or its address");
    let command = Command::new("workers").about("The workers of a running gateway: list, add, update, drain, remove");
    let resume = Arg::new("resume").long("resume").action(ArgAction::SetTrue).help("Give it requests again");
    asking(command)
        .subcommand(
            describing(asking(Command::new("add")))
                .about("Add a worker")
                .arg(required("url", "The worker's address, http://host:port")),
        )
        .subcommand(describing(asking(Command::new("update"))).about("Change what is said of a worker").arg(worker()))
        .subcommand(
            asking(Command::new("drain"))
                .about("Give a worker no new requests and wait for what is in flight")
                .arg(worker())
                .arg(resume),
        )
        .subcommand(asking(Command::new("remove")).about("Remove a worker").arg(worker()))
}

/// What can be said of a worker.
fn describing(command: Command) -> Command {
    let option = |name: &'static str, help| Arg::new(name).long(name).help(help);
    let list = |name, help| option(name, help).action(ArgAction::Append);
    let key = "Key sent to it as bearer token; `-` reads it from standard input, an empty one takes it away";
    command
        .arg(option("worker-key", key).value_name("KEY"))
        .arg(list("model", "A model it serves, instead of asking it; an empty one: ask it").value_name("MODEL"))
        .arg(option("priority", "For tools").value_name("NUMBER").value_parser(value_parser!(u32)))
        .arg(option("cost", "2: it counts as half as fast").value_name("FACTOR").value_parser(value_parser!(f64)))
        .arg(list("label", "For tools; replaces all labels").value_name("NAME=VALUE"))
}

fn policies() -> Command {
    let rule = Arg::new("rule").num_args(0..).value_name("PATTERN:POLICY").help("In order; the first that fits counts");
    let default = Arg::new("default").long("default").value_name("POLICY").help("Policy of models that no rule fits");
    asking(Command::new("policies").about("The routing policies of a running gateway, by model"))
        .subcommand(asking(Command::new("set")).about("Replace the rules, in force at once").arg(rule).arg(default))
        .subcommand(asking(Command::new("reset")).about("Back to what the options say"))
}

fn route() -> Command {
    let explain = asking(Command::new("explain"))
        .about("Which worker a request would go to, and why, without sending it")
        .arg(Arg::new("model").long("model").value_name("MODEL").help("Model of the request"))
        .arg(required("prompt", "The prompt, or a whole request body as JSON; `-` reads it from standard input"));
    Command::new("route")
        .about("Routing decisions")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(explain)
}

pub(super) fn required(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).value_name(name.to_ascii_uppercase()).help(help)
}

/// Arguments of every command that asks a running node.
pub(super) fn asking(command: Command) -> Command {
    let node = Arg::new("node").long("node").value_name("URL").default_value("http://127.0.0.1:30000");
    let key = Arg::new("key").long("key").value_name("KEY").help("Admin key; default: the first of SMG_API_KEY");
    command
        .arg(node.help("The node to ask"))
        .arg(key)
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the node's answer as it came"))
}

/// Arguments of every command that has a whole configuration.
pub(super) fn serving(command: Command) -> Command {
    let config = Arg::new("config").long("config").value_name("PATH").value_parser(value_parser!(PathBuf));
    let mut command = command.arg(config.help("Configuration file (TOML); also SMG_CONFIG"));
    let defaults = Config::default();
    for option in Config::options() {
        let arg = flag(option.spec).help(help(option.spec, &defaults.render(option)));
        command = command.arg(arg.help_heading(heading(option.section)));
    }
    // Hidden: they are accepted, not advertised.
    let old = incumbent::FLAGS.iter().map(|it| {
        Arg::new(it.name).long(it.name).hide(true).num_args(0..).action(ArgAction::Append).allow_hyphen_values(false)
    });
    command.args(old)
}

/// Arguments of a command whose options are its own, not the configuration's.
pub(super) fn own_flags<S: Section>() -> impl Iterator<Item = Arg> {
    let defaults = S::default();
    S::options().iter().map(move |spec| flag(spec).help(help(spec, &defaults.render(spec.key))))
}

/// Their values.
pub(super) fn own_options<S: Section>(matches: &ArgMatches) -> Result<S, Failure> {
    let mut options = S::default();
    for spec in S::options() {
        let Some(values) = values(matches, spec.flag) else { continue };
        let text = if spec.is_list { values.join(",") } else { values.last().cloned().unwrap_or_default() };
        options.set(spec.key, &text).map_err(|expected| {
            let shown = if spec.is_secret { "***" } else { &text };
            Failure::Usage(anyhow::anyhow!("command line: `--{}` is `{shown}`: {expected}", spec.flag))
        })?;
    }
    Ok(options)
}

fn heading(section: &str) -> String {
    let mut letters = section.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

pub(super) fn help(spec: &OptionSpec, default: &str) -> String {
    let text = sentence(spec.doc);
    if default.is_empty() { text } else { format!("{text} [default: {default}]") }
}

pub(super) fn flag(spec: &'static OptionSpec) -> Arg {
    let arg = Arg::new(spec.flag).long(spec.flag).value_name(value_name(spec));
    if spec.is_switch {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").action(ArgAction::Append)
    } else if spec.is_list {
        arg.num_args(0..).action(ArgAction::Append)
    } else {
        // Given twice, the last one counts, as people expect of wrapper scripts. `-1` is a value, not a flag.
        arg.num_args(1).action(ArgAction::Append).allow_negative_numbers(true)
    }
}

/// The first word of the kind: `duration (250ms, ...)` is `DURATION`.
pub(super) fn value_name(spec: &OptionSpec) -> String {
    if spec.is_switch {
        return "true|false".to_owned();
    }
    spec.kind.split([' ', ',']).next().unwrap_or("value").to_ascii_uppercase()
}

/// Flags and their values, in the order they are to be applied.
pub(super) type Flags = Vec<(String, Vec<String>)>;

/// What a command line gave.
pub(super) struct Given {
    pub(super) flags: Flags,
    pub(super) incumbent: Flags,
    pub(super) config: Option<PathBuf>,
}

/// Takes the flags out of clap's hands.
pub(super) fn given(matches: &ArgMatches) -> Given {
    let mut flags = Flags::new();
    for option in Config::options() {
        if let Some(mut values) = values(matches, option.spec.flag) {
            if !option.spec.is_list {
                values.drain(..values.len().saturating_sub(1));
            }
            flags.push((option.spec.flag.to_owned(), values));
        }
    }
    let old = incumbent::FLAGS.iter().filter_map(|it| Some((it.name.to_owned(), values(matches, it.name)?)));
    Given { flags, incumbent: old.collect(), config: matches.get_one::<PathBuf>("config").cloned() }
}

pub(super) fn values(matches: &ArgMatches, name: &str) -> Option<Vec<String>> {
    // An argument without a value is still an argument: `--worker-urls` alone is the empty list.
    matches.contains_id(name).then(|| matches.get_many::<String>(name).into_iter().flatten().cloned().collect())
}

/// A switch that was given no value is on.
pub(super) fn switched(flag: &str, values: Vec<String>) -> Vec<String> {
    let is_switch = Config::options().iter().any(|it| it.spec.flag == flag && it.spec.is_switch);
    if is_switch && values.is_empty() { vec!["true".to_owned()] } else { values }
}

/// Adds to a list, replaces anything else.
pub(super) fn merge(flags: &mut Flags, flag: String, values: Vec<String>) {
    let is_list = Config::options().iter().any(|it| it.spec.flag == flag && it.spec.is_list);
    match flags.iter_mut().find(|(name, _)| *name == flag) {
        Some((_, before)) if is_list => before.extend(values),
        Some((_, before)) => *before = values,
        None => flags.push((flag, values)),
    }
}
