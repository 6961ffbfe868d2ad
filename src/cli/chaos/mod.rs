//! `smg chaos`: faults on purpose, at nodes that were started with `--chaos`.
//!
//! A fault is one node's: what is between two nodes is begun at the first of them, and hits both directions there. Nodes are called what people call them; where
//! they serve is what the node that is asked knows of the others.

mod scenario;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Arg;
use clap::ArgAction;
use clap::ArgGroup;
use clap::ArgMatches;
use clap::Command;
use clap::value_parser;
use futures_util::future::join_all;
use http::Method;
use serde_json::Value;
use serde_json::json;

use super::args::asking;
use super::args::required;
use super::client::DEADLINE;
use super::client::Node;
use super::cluster::listed;
use super::fleet::show;
use super::fleet::table;
use crate::base::setting::Setting as _;

const PATH: &str = "/admin/chaos";
const COLUMNS: &[(&str, &str)] = &[
    ("NODE", "node"),
    ("ID", "id"),
    ("KIND", "kind"),
    ("WHAT", "what"),
    ("SINCE S", "since_seconds"),
    ("LEFT S", "left_seconds"),
];

const EXAMPLES: &str = "Examples:
  smg chaos partition gw-1 gw-2 --for 30s
  smg chaos delay gw-1 gw-2 gw-3 --ms 100 --jitter 20 --for 1m
  smg chaos worker http://gpu1:8000 --refuse --for 10s
  smg chaos lift
  smg chaos run docs/examples/chaos.toml

Nodes take part that were started with --chaos: labs, nothing that others rely on. Every fault ends by itself.";

pub(super) fn command() -> Command {
    let scenario = required("scenario", "File (TOML) with its steps").value_parser(value_parser!(PathBuf));
    asking(Command::new("chaos"))
        .about("Faults on purpose in a lab: those in force at every node; or begin some, or end them")
        .after_help(EXAMPLES)
        .subcommands(between())
        .subcommands(inside())
        .subcommand(worker())
        .subcommand(
            asking(Command::new("lift"))
                .about("End faults before their time: one, or all that every node has")
                .arg(Arg::new("id").value_name("ID").help("Its id (f-...) at the node; default: all"))
                .arg(at("The node whose faults end; default with an id: the one that is asked, else every node")),
        )
        .subcommand(
            asking(Command::new("run"))
                .about("Go through a scenario: begin its faults when they are due; when it ends or is interrupted, end what is left of them")
                .arg(scenario),
        )
}

fn lasting(command: Command) -> Command {
    let lasts = Arg::new("for").long("for").required(true).value_name("DURATION").value_parser(duration);
    asking(command).arg(lasts.help("How long: `500ms`, `30s`, `10m` at most"))
}

fn duration(text: &str) -> Result<String, String> {
    Duration::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn at(help: &'static str) -> Arg {
    Arg::new("at").long("at").value_name("NODE").help(help)
}

fn number(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("NUMBER").value_parser(value_parser!(u64)).help(help)
}

/// Faults of what passes between one node and others.
fn between() -> [Command; 3] {
    let pair = |name, about: &'static str| {
        let direction =
            Arg::new("direction").long("direction").value_parser(["both", "in", "out"]).default_value("both");
        let others = required("others", "The nodes at the other end, or `*`").num_args(1..);
        lasting(Command::new(name).about(about))
            .arg(required("at", "The node that has the fault: its name or id"))
            .arg(others)
            .arg(direction.help("Which messages, as the first node sees them"))
    };
    let ratio = Arg::new("ratio").long("ratio").required(true).value_name("SHARE").value_parser(value_parser!(f64));
    [
        pair("partition", "Nothing passes between a node and others"),
        pair("loss", "Some of what passes between a node and others is lost")
            .arg(ratio.help("How much of it, up to 1")),
        pair("delay", "What passes between a node and others is late")
            .arg(number("ms", "By how many milliseconds, each way").required(true))
            .arg(number("jitter", "And up to so many more, drawn for each message").default_value("0")),
    ]
}

/// Faults inside one node.
fn inside() -> [Command; 4] {
    let node = || required("at", "The node: its name or id");
    let flag = |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let group = Arg::new("group").long("group").value_parser(["both", "control", "history"]).default_value("both");
    let offset =
        Arg::new("offset").long("offset").required(true).value_name("SECONDS").value_parser(value_parser!(i64));
    [
        lasting(Command::new("gossip").about("A node's membership and tables neither speak nor listen")).arg(node()),
        lasting(Command::new("raft").about("A node's raft groups neither speak nor listen"))
            .arg(node())
            .arg(group.help("Which")),
        lasting(Command::new("clock").about("A node's wall clock is off; what it measures with goes on"))
            .arg(node())
            .arg(offset.allow_negative_numbers(true).help("By how much; below 0 it is slow")),
        lasting(Command::new("disk").about("A node's disk fails, is slow or is full"))
            .arg(node())
            .arg(flag("fail", "Writes and fsyncs fail: the node stops, as it does when a disk fails"))
            .arg(flag("full", "There is no room for anything new"))
            .arg(number("slow", "Each fsync takes so many milliseconds longer"))
            .group(ArgGroup::new("how").args(["fail", "full", "slow"]).required(true)),
    ]
}

fn worker() -> Command {
    let refuse = Arg::new("refuse").long("refuse").action(ArgAction::SetTrue).help("Connections to it are refused");
    lasting(Command::new("worker").about("A worker seems to fail, to every node or to one"))
        .arg(required("worker", "Its address or id (w-...), or `*`"))
        .arg(at("Only this node sees it"))
        .arg(refuse)
        .arg(number("ms", "Requests reach it so many milliseconds late"))
        .arg(number("status", "It answers with this status, such as 503"))
        .arg(number("reset-after", "Its answers break off after so many bytes"))
        .group(ArgGroup::new("how").args(["refuse", "ms", "status", "reset-after"]).required(true))
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().unwrap_or(("list", matches));
    let node = Node::of(matches)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::ask(node).await?;
        match name {
            "list" => {
                let (faults, silent) = cluster.faults().await?;
                show(matches, &json!({"faults": faults, "unanswered": silent}), Some(listing(&faults, &silent)));
                Ok(())
            }
            "run" => {
                let file = matches.get_one::<PathBuf>("scenario").expect("required");
                scenario::run(file, &cluster, matches.get_flag("json")).await
            }
            "lift" => lift(matches, &cluster).await,
            kind => begin(matches, kind, &cluster).await,
        }
    })
}

/// What a command asks for, as the API takes it.
fn asked(kind: &str, matches: &ArgMatches) -> Value {
    let text = |name| matches.get_one::<String>(name).cloned();
    let count = |name| matches.get_one::<u64>(name).copied();
    let mut fault = json!({"kind": kind, "for": text("for")});
    match kind {
        "partition" | "loss" | "delay" => {
            fault["nodes"] = json!(matches.get_many::<String>("others").into_iter().flatten().collect::<Vec<_>>());
            fault["direction"] = json!(text("direction"));
            if kind == "loss" {
                fault["ratio"] = json!(matches.get_one::<f64>("ratio"));
            }
            if kind == "delay" {
                fault["ms"] = json!(count("ms"));
                fault["jitter_ms"] = json!(count("jitter"));
            }
        }
        "raft" => fault["group"] = json!(text("group")),
        "clock" => fault["offset_seconds"] = json!(matches.get_one::<i64>("offset")),
        "disk" => {
            let slow = count("slow");
            let how = if matches.get_flag("fail") {
                "disk_fail"
            } else if slow.is_some() {
                "disk_slow"
            } else {
                "disk_full"
            };
            fault["kind"] = json!(how);
            slow.into_iter().for_each(|it| fault["ms"] = json!(it));
        }
        "worker" => {
            fault["worker"] = json!(text("worker"));
            let hows = [
                ("ms", "worker_delay", "ms"),
                ("status", "worker_status", "status"),
                ("reset-after", "worker_reset", "after_bytes"),
            ];
            let how = hows.into_iter().find_map(|(arg, kind, field)| Some((kind, field, count(arg)?)));
            fault["kind"] = json!(how.map_or("worker_refuse", |it| it.0));
            how.into_iter().for_each(|(_, field, number)| fault[field] = json!(number));
        }
        _ => {}
    }
    fault
}

async fn begin(matches: &ArgMatches, kind: &str, cluster: &Cluster) -> anyhow::Result<()> {
    let fault = asked(kind, matches);
    let places = match matches.get_one::<String>("at") {
        Some(name) => vec![cluster.find(name)?],
        None => cluster.here().collect(),
    };
    let answers = join_all(places.iter().map(|it| it.ask(Method::POST, PATH, Some(&fault)))).await;
    let mut begun = Vec::new();
    let mut failed = Vec::new();
    for (place, answer) in places.iter().zip(answers) {
        match answer {
            Ok(fault) => begun.push(with_node(fault, place)),
            Err(error) => failed.push(format!("{}: {error:#}", place.name)),
        }
    }
    let text = begun.iter().fold(String::new(), |text, it| text + &line(it) + "\n");
    if !begun.is_empty() {
        show(matches, &json!({"faults": begun}), Some(text));
    }
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

async fn lift(matches: &ArgMatches, cluster: &Cluster) -> anyhow::Result<()> {
    let named = matches.get_one::<String>("at").map(|it| cluster.find(it)).transpose()?;
    let id = matches.get_one::<String>("id");
    let path = id.map_or_else(|| PATH.to_owned(), |it| format!("{PATH}/{it}"));
    let places = match (named, id) {
        (Some(place), _) => vec![place],
        (None, Some(_)) => vec![cluster.me()],
        (None, None) => cluster.places.iter().collect(),
    };
    let answers = join_all(places.iter().map(|it| it.ask(Method::DELETE, &path, None))).await;
    let (mut lifted, mut failed) = (Vec::new(), Vec::new());
    for (place, answer) in places.iter().zip(answers) {
        match answer {
            Ok(answer) if answer.get("faults").is_some() => {
                lifted.extend(listed(&answer, "faults").iter().cloned().map(|it| with_node(it, place)));
            }
            Ok(fault) => lifted.push(with_node(fault, place)),
            Err(error) => failed.push(format!("{}: {error:#}", place.name)),
        }
    }
    let text = format!(
        "{} lifted\n",
        if lifted.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", lifted.len()) }
    );
    show(matches, &json!({"faults": lifted, "failed": failed}), Some(text));
    // A node that cannot be reached ends its faults by itself, one that has none is well.
    let is_certain = id.is_some() || failed.len() == places.len();
    anyhow::ensure!(!is_certain || failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn with_node(mut fault: Value, place: &Place) -> Value {
    fault["node"] = json!(place.name);
    fault["what"] = json!(what(&fault));
    fault
}

/// A fault's own fields in a few words.
fn what(fault: &Value) -> String {
    const OTHER: [&str; 7] = ["id", "kind", "node", "what", "since_seconds", "left_seconds", "for"];
    let fields = fault.as_object().into_iter().flatten().filter(|it| !OTHER.contains(&it.0.as_str()));
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    fields.map(|(name, value)| format!("{name}={}", word(value))).collect::<Vec<_>>().join(" ")
}

/// A fault that has begun, in a line.
fn line(fault: &Value) -> String {
    let word = |field: &str| fault[field].as_str().unwrap_or_default().to_owned();
    let what = if word("what").is_empty() { String::new() } else { format!(" {}", word("what")) };
    format!("{} at {}: {}{what}, {} s left", word("id"), word("node"), word("kind"), fault["left_seconds"])
}

fn listing(faults: &[Value], silent: &[String]) -> String {
    let mut text = if faults.is_empty() { "nothing fails on purpose\n".to_owned() } else { table(COLUMNS, faults) };
    for it in silent {
        text += &format!("{it}\n");
    }
    text
}

/// A node that can be asked, or not.
struct Place {
    name: String,
    id: String,
    /// Whether the node that is asked thinks that it runs.
    is_here: bool,
    node: Option<Node>,
}

impl Place {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let node = self.node.as_ref().context("it does not say where it serves")?;
        node.answer(DEADLINE, method, path, body).await
    }
}

/// The nodes that one of them knows. The one that is asked comes first.
struct Cluster {
    places: Vec<Place>,
}

impl Cluster {
    async fn ask(node: Node) -> anyhow::Result<Self> {
        let answer = node.get(DEADLINE, "/cluster/members").await?;
        let this = node.get(DEADLINE, "/cluster/node").await?;
        Ok(Self::of(&answer, &this, node))
    }

    fn of(answer: &Value, this: &Value, node: Node) -> Self {
        let word = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let others = listed(answer, "members").iter().filter(|it| it["is_self"] != true && it["state"] != "left");
        let others = others.map(|it| Place {
            name: it["name"].as_str().map_or_else(|| word(it, "node_id"), str::to_owned),
            id: word(it, "node_id"),
            is_here: it["state"] != "down",
            node: it["http"].as_str().and_then(|url| node.beside(url).ok()),
        });
        let others: Vec<_> = others.collect();
        let mut places =
            vec![Place { name: word(this, "name"), id: word(this, "node_id"), is_here: true, node: Some(node) }];
        places.extend(others);
        Self { places }
    }

    /// Those that run.
    fn here(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|it| it.is_here)
    }

    fn me(&self) -> &Place {
        &self.places[0]
    }

    /// By name or id; a name that two have is nobody's.
    fn find(&self, wanted: &str) -> anyhow::Result<&Place> {
        let mut found = self.places.iter().filter(|it| it.name == wanted || it.id == wanted);
        let names = || self.places.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        match (found.next(), found.next()) {
            (Some(place), None) => Ok(place),
            (Some(_), Some(_)) => {
                anyhow::bail!("several nodes are called `{wanted}`: name it by its id (`smg members`)")
            }
            (None, _) => anyhow::bail!("no node is called `{wanted}`; there are: {}", names()),
        }
    }

    /// The faults of all nodes, and why some did not say theirs.
    async fn faults(&self) -> anyhow::Result<(Vec<Value>, Vec<String>)> {
        let answers = join_all(self.places.iter().map(|it| it.ask(Method::GET, PATH, None))).await;
        let (mut faults, mut silent) = (Vec::new(), Vec::new());
        for (place, answer) in self.places.iter().zip(answers) {
            match answer {
                Ok(answer) => faults.extend(listed(&answer, "faults").iter().cloned().map(|it| with_node(it, place))),
                Err(error) => silent.push(format!("{}: {error:#}", place.name)),
            }
        }
        anyhow::ensure!(silent.len() < self.places.len(), "{}", silent.join("; "));
        Ok((faults, silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(line: &str) -> Value {
        let matches = command().try_get_matches_from(line.split(' ')).expect("parses");
        let (kind, matches) = matches.subcommand().expect("a fault");
        asked(kind, matches)
    }

    #[test]
    fn each_command_asks_for_a_fault_that_the_api_takes() {
        for (line, expected) in [
            (
                "chaos partition a b c --for 30s",
                json!({"kind": "partition", "for": "30s", "nodes": ["b", "c"], "direction": "both"}),
            ),
            (
                "chaos loss a * --ratio 0.3 --direction in --for 1m",
                json!({"kind": "loss", "for": "1m", "nodes": ["*"], "direction": "in", "ratio": 0.3}),
            ),
            (
                "chaos delay a b --ms 100 --jitter 20 --for 1s",
                json!({"kind": "delay", "for": "1s", "nodes": ["b"], "direction": "both", "ms": 100, "jitter_ms": 20}),
            ),
            ("chaos gossip a --for 1s", json!({"kind": "gossip", "for": "1s"})),
            ("chaos raft a --group history --for 1s", json!({"kind": "raft", "for": "1s", "group": "history"})),
            ("chaos clock a --offset -90 --for 1s", json!({"kind": "clock", "for": "1s", "offset_seconds": -90})),
            ("chaos disk a --fail --for 1s", json!({"kind": "disk_fail", "for": "1s"})),
            ("chaos disk a --full --for 1s", json!({"kind": "disk_full", "for": "1s"})),
            ("chaos disk a --slow 40 --for 1s", json!({"kind": "disk_slow", "for": "1s", "ms": 40})),
            (
                "chaos worker http://w:1 --refuse --for 1s",
                json!({"kind": "worker_refuse", "for": "1s", "worker": "http://w:1"}),
            ),
            ("chaos worker * --ms 5 --for 1s", json!({"kind": "worker_delay", "for": "1s", "worker": "*", "ms": 5})),
            (
                "chaos worker * --status 503 --for 1s",
                json!({"kind": "worker_status", "for": "1s", "worker": "*", "status": 503}),
            ),
            (
                "chaos worker * --reset-after 9 --for 1s",
                json!({"kind": "worker_reset", "for": "1s", "worker": "*", "after_bytes": 9}),
            ),
        ] {
            let mut body = body(line);
            assert_eq!(body, expected, "{line}");
            body.as_object_mut().unwrap().remove("for");
            let fault: crate::chaos::fault::Fault = serde_json::from_value(body).expect(line);
            assert_eq!(fault.check(), Ok(()), "{line}");
        }
        for line in
            ["chaos partition a b", "chaos disk a --for 1s", "chaos worker * --for 1s", "chaos gossip a --for soon"]
        {
            assert!(command().try_get_matches_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn nodes_are_found_by_what_people_call_them_and_the_asked_one_comes_first() {
        let members = json!({"members": [
            {"name": "gw-2", "node_id": "n-2", "state": "alive", "http": "http://127.0.0.1:2"},
            {"name": "gw-1", "node_id": "n-1", "state": "alive", "is_self": true},
            {"name": null, "node_id": "n-3", "state": "down", "http": null},
            {"name": "gw-4", "node_id": "n-4", "state": "left"},
            {"name": "gw-2", "node_id": "n-5", "state": "alive"},
        ]});
        let node = || Node::at("http://127.0.0.1:1", None).unwrap();
        let cluster = Cluster::of(&members, &json!({"name": "gw-1", "node_id": "n-1"}), node());
        assert_eq!(cluster.places.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["n-1", "n-2", "n-3", "n-5"]);
        assert_eq!(cluster.me().name, "gw-1");
        assert_eq!(cluster.here().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["n-1", "n-2", "n-5"]);
        assert_eq!(cluster.find("n-2").map(|it| it.name.clone()).unwrap(), "gw-2");
        assert!(cluster.find("n-3").is_ok_and(|it| it.node.is_none()));
        assert!(cluster.find("gw-2").err().unwrap().to_string().contains("several nodes"));
        assert!(cluster.find("gw-4").err().unwrap().to_string().contains("there are: gw-1, gw-2"));
        let alone = Cluster::of(&json!({"members": []}), &json!({"name": "gw", "node_id": null}), node());
        assert_eq!(alone.places.len(), 1);
    }

    #[test]
    fn faults_are_shown_in_words() {
        let fault = json!({"kind": "delay", "id": "f-3", "node": "gw-1", "nodes": ["n-1", "n-2"], "ms": 100, "left_seconds": 9.5});
        let place = Place { name: "gw-1".to_owned(), id: String::new(), is_here: true, node: None };
        let shown = with_node(fault, &place);
        assert_eq!(shown["what"], "nodes=n-1,n-2 ms=100");
        assert_eq!(line(&shown), "f-3 at gw-1: delay nodes=n-1,n-2 ms=100, 9.5 s left");
        let text = listing(&[shown], &["gw-2: no".to_owned()]);
        assert!(text.contains("gw-1  f-3  delay  nodes=n-1,n-2 ms=100") && text.ends_with("gw-2: no\n"), "{text}");
        assert_eq!(listing(&[], &[]), "nothing fails on purpose\n");
    }
}
