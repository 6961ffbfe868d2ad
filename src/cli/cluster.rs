//! `smg status`, `smg members` and `smg drain`: a node and the cluster as it sees it. What is asked here `smg top` asks again and again.

use std::time::Duration;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use futures_util::future::join_all;
use http::Method;
use serde_json::Value;
use serde_json::json;

use super::args::asking;
use super::args::required;
use super::client::DEADLINE;
use super::client::Node;
use super::fleet;
use super::fleet::show;
use super::fleet::table;

const MEMBERS: &[(&str, &str)] = &[
    ("NAME", "name"),
    ("NODE", "node_id"),
    ("STATE", "state"),
    ("ADDRESS", "addr"),
    ("CLIENTS", "http"),
    ("ZONE", "zone"),
    ("RELEASE", "release"),
    ("INCARNATION", "incarnation"),
];
const TABLES: &[(&str, &str)] =
    &[("TABLE", "name"), ("ENTRIES", "entries"), ("SENT", "bytes_sent"), ("COLOUR", "colour")];
const LINKS: &[(&str, &str)] = &[("TO", "name"), ("NODE", "node_id"), ("CLASS", "class"), ("RTT MS", "rtt_ms")];
const TASKS: &[(&str, &str)] = &[("TASK", "name"), ("STOPS IN STAGE", "stage"), ("RUNNING", "running")];

pub(super) fn commands() -> [Command; 4] {
    let ready = Arg::new("ready").long("ready").action(ArgAction::SetTrue);
    let ready = ready.help("Only say whether it is ready, and fail if it is not: for health checks");
    let forget = asking(Command::new("forget"))
        .about("Forget a node that left or is down, and the workers that it alone named: it is not coming back")
        .arg(required("member", "Its name, its id (n-...) or its data directory (s-...)"));
    [
        asking(Command::new("members").about("The nodes of a running cluster, as one of them sees them"))
            .subcommand(forget),
        asking(Command::new("status").about("How a running node is: members, tables, workers, links, tasks"))
            .arg(ready),
        asking(
            Command::new("drain")
                .about("Take a node out of service as SIGTERM does: it finishes what is in flight and ends"),
        ),
        Command::new("upgrade")
            .about("Finish an upgrade when every node runs the new release")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(asking(Command::new("finalize")).about(
                "Use what the new release brings, as far as every node's can follow; older releases are refused from then on",
            )),
    ]
}

/// What a node tells of itself and of the cluster. Null where it did not answer, or is of a release that has no such page.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) readiness: Value,
    pub(super) node: Value,
    pub(super) members: Value,
    pub(super) health: Value,
    pub(super) tables: Value,
    pub(super) links: Value,
    pub(super) workers: Value,
}

impl Seen {
    /// Asks everything at once. An error if the node itself cannot be reached or does not let us.
    pub(super) async fn of(node: &Node, deadline: Duration) -> anyhow::Result<Self> {
        let pages = ["/readiness", "/cluster/node", "/cluster/health", "/cluster/tables", "/cluster/links", "/workers"];
        let members = node.get(deadline, "/cluster/members").await?;
        let answers = join_all(pages.map(|path| node.get(deadline, path))).await;
        let mut answers = answers.into_iter();
        let readiness = answers.next().unwrap_or(Ok(Value::Null));
        let readiness = readiness.unwrap_or_else(|error| json!({"status": "not ready", "reason": error.to_string()}));
        let mut next = || answers.next().and_then(Result::ok).unwrap_or(Value::Null);
        let [node, health, tables, links, workers] = std::array::from_fn(|_| next());
        Ok(Self { readiness, node, members, health, tables, links, workers })
    }
}

/// Lists, or forgets one.
pub(super) fn members(matches: &ArgMatches) -> anyhow::Result<()> {
    if let Some(matches) = matches.subcommand_matches("forget") {
        let member = matches.get_one::<String>("member").expect("required");
        let answer = Node::of(matches)?.ask(Method::DELETE, &format!("/cluster/members/{member}"), None)?;
        show(matches, &answer, Some(format!("{} is forgotten\n", answer["node_id"].as_str().unwrap_or(member))));
        return Ok(());
    }
    let answer = Node::of(matches)?.ask(Method::GET, "/cluster/members", None)?;
    show(matches, &answer, Some(table(MEMBERS, &by_name(&answer))));
    Ok(())
}

/// Members in the order that people look for them in.
fn by_name(answer: &Value) -> Vec<Value> {
    let mut members = listed(answer, "members").to_vec();
    members.sort_by_key(|it| it["name"].as_str().map(str::to_owned));
    members
}

/// Everything about a node on one page.
pub(super) fn status(matches: &ArgMatches) -> anyhow::Result<()> {
    let node = Node::of(matches)?;
    if matches.get_flag("ready") {
        let answer = node.ask(Method::GET, "/readiness", None)?;
        show(matches, &answer, Some("ready\n".to_owned()));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(Seen::of(&node, DEADLINE))?;
    let Seen { readiness, node: this, members, health, tables, links, workers } = &seen;
    let all = json!({"readiness": readiness, "node": this, "cluster": members, "health": health, "tables": tables, "links": links,
        "workers": workers});
    show(matches, &all, Some(summary(&node.to_string(), &seen)));
    Ok(())
}

/// Takes a node out of service.
pub(super) fn drain(matches: &ArgMatches) -> anyhow::Result<()> {
    let node = Node::of(matches)?;
    let answer = node.ask(Method::POST, "/cluster/drain", None)?;
    let text = format!(
        "{node} is draining: {} requests in flight, {} s at most, then its process ends\n",
        answer["requests_active"], answer["drain_timeout_seconds"]
    );
    show(matches, &answer, Some(text));
    Ok(())
}

/// Finishes an upgrade.
pub(super) fn upgrade(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some((_, matches)) = matches.subcommand() else { return Ok(()) };
    let answer = Node::of(matches)?.ask(Method::POST, "/cluster/upgrade/finalize", None)?;
    if let Some(reason) = answer["reason"].as_str() {
        anyhow::bail!("the cluster still works at feature level {}: {reason}", answer["feature_level"]);
    }
    let text = match answer["before"] == answer["feature_level"] {
        true => format!("the cluster works at feature level {} already\n", answer["before"]),
        false => {
            format!("the cluster works at feature level {} now, was {}\n", answer["feature_level"], answer["before"])
        }
    };
    show(matches, &answer, Some(text));
    Ok(())
}

/// The list in an answer.
pub(super) fn listed<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn summary(url: &str, seen: &Seen) -> String {
    let (node, word) = (&seen.node, |of: &Value, field: &str| of[field].as_str().unwrap_or("unknown").to_owned());
    let mut text =
        format!("{} ({url}) is {}", node["name"].as_str().unwrap_or("the node"), word(&seen.readiness, "status"));
    if let Some(seconds) = node["uptime_seconds"].as_u64() {
        text += &format!(", up {}, release {}", duration(seconds), word(node, "release"));
    }
    text.push('\n');
    if let Some(reason) = seen.readiness["reason"].as_str() {
        text += &format!("  {reason}\n");
    }
    let number = |field: &str| node[field].as_u64().unwrap_or(0);
    text += &format!("  workers    {}, {} available\n", number("workers"), number("workers_available"));
    text +=
        &format!("  requests   {} in flight, {} since the start", number("requests_active"), number("requests_total"));
    text += &hit_rate(node).map_or_else(|| "\n".to_owned(), |it| format!(", {it:.0} % of prompt tokens were cached\n"));
    text += &format!("  durability {}\n", word(node, "durability"));
    if seen.members["mesh"] == true {
        let count = |state: &str| listed(&seen.members, "members").iter().filter(|it| it["state"] == state).count();
        let counts = ["alive", "suspect", "left", "down"].map(|it| format!("{} {it}", count(it)));
        text += &format!("  mesh       {}\n", counts.join(", "));
    } else {
        text += "  mesh       off\n";
    }
    if let Some(line) = control(&node["control"]) {
        text += &line;
    }
    if let Some(faults) = node["chaos"].as_array() {
        let kinds: Vec<_> = faults.iter().filter_map(|it| it["kind"].as_str()).collect();
        let now =
            if kinds.is_empty() { "no fault in force".to_owned() } else { format!("in force: {}", kinds.join(", ")) };
        text += &format!("  CHAOS      it can be made to fail; {now}\n");
    }
    for reason in listed(&seen.health, "reasons").iter().filter_map(Value::as_str) {
        text += &format!("  RED        {reason}\n");
    }
    let tables: Vec<Value> = listed(&seen.tables, "tables").iter().cloned().map(with_colour).collect();
    let parts = [
        ("members", table(MEMBERS, &by_name(&seen.members)), !listed(&seen.members, "members").is_empty()),
        (
            "workers",
            table(fleet::COLUMNS, listed(&seen.workers, "workers")),
            !listed(&seen.workers, "workers").is_empty(),
        ),
        ("tables", table(TABLES, &tables), !tables.is_empty()),
        ("links", table(LINKS, listed(&seen.links, "links")), !listed(&seen.links, "links").is_empty()),
        ("tasks", table(TASKS, listed(node, "tasks")), !listed(node, "tasks").is_empty()),
    ];
    for (title, rows, _) in parts.into_iter().filter(|it| it.2) {
        text += &format!("\n{title}\n{}", rows.lines().fold(String::new(), |text, line| text + "  " + line + "\n"));
    }
    text
}

/// The control group in a line, where there is one to speak of.
fn control(group: &Value) -> Option<String> {
    let standing = group["standing"].as_str()?;
    let voters = group["voters"].as_array().map_or(0, Vec::len);
    let leader = group["leader"].as_str().map_or("no leader is known".to_owned(), |it| format!("led by {it}"));
    let s = if voters == 1 { "" } else { "s" };
    let more =
        if voters > 0 { format!(", {leader}, {voters} voter{s}, term {}", group["term"]) } else { String::new() };
    Some(format!("  control    {standing}{more}\n"))
}

/// A table's state in a word.
pub(super) fn colour(table: &Value) -> &'static str {
    match (table["red"].as_bool(), table["in_force"].as_bool()) {
        (Some(true), _) => "RED",
        (_, Some(false)) => "waiting",
        _ => "green",
    }
}

fn with_colour(mut table: Value) -> Value {
    table["colour"] = json!(colour(&table));
    table
}

/// Per cent of prompt tokens that were cached, once there were any.
pub(super) fn hit_rate(node: &Value) -> Option<f64> {
    let (cached, input) = (node["cached_tokens"].as_f64()?, node["input_tokens"].as_f64()?);
    (input > 0.0).then(|| 100.0 * cached / input)
}

/// `3d 4h`, `2h 5m`, `40s`.
pub(super) fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_summed_up_whether_it_is_ready_and_alone_or_not() {
        let node = json!({"name": "gw-1", "uptime_seconds": 7500, "release": "1.2.3", "workers": 2, "workers_available": 1,
            "requests_active": 3, "requests_total": 40, "input_tokens": 200, "cached_tokens": 50, "durability": "on"});
        let alone = Seen {
            readiness: json!({"status": "ready"}),
            node,
            members: json!({"mesh": false, "members": []}),
            ..Seen::default()
        };
        let expected = "gw-1 (n) is ready, up 2h 5m, release 1.2.3\n  workers    2, 1 available\n  \
            requests   3 in flight, 40 since the start, 25 % of prompt tokens were cached\n  durability on\n  mesh       off\n";
        assert_eq!(summary("n", &alone), expected);
        let group = json!({"standing": "member of c-1", "leader": "s-2", "term": 3, "voters": ["s-1", "s-2"]});
        let line = control(&group);
        assert_eq!(line.as_deref(), Some("  control    member of c-1, led by s-2, 2 voters, term 3\n"));
        assert_eq!(
            control(&json!({"standing": "member of c-1", "leader": "s-2", "term": 1, "voters": ["s-2"]})).as_deref(),
            Some("  control    member of c-1, led by s-2, 1 voter, term 1\n")
        );
        assert_eq!(
            control(&json!({"standing": "no group yet", "leader": null, "voters": []})).as_deref(),
            Some("  control    no group yet\n")
        );
        let hurt = json!({"name": "gw-1", "chaos": [{"kind": "partition"}, {"kind": "clock"}]});
        let text = summary("n", &Seen { node: hurt, ..alone.clone() });
        assert!(text.contains("\n  CHAOS      it can be made to fail; in force: partition, clock\n"), "{text}");
        let members = json!([{"name": "gw-1", "state": "alive"}, {"name": null, "state": "down"}]);
        let busy = Seen {
            readiness: json!({"status": "not ready", "reason": "busy"}),
            members: json!({"mesh": true, "members": members}),
            health: json!({"status": "red", "reasons": ["`keys` was not exchanged"]}),
            tables: json!({"tables": [{"name": "keys", "entries": 1, "bytes_sent": 2, "red": true, "in_force": true}]}),
            ..alone
        };
        let text = summary("n", &busy);
        for part in [
            "gw-1 (n) is not ready",
            "\n  busy\n",
            "\n  mesh       1 alive, 0 suspect, 0 left, 1 down\n",
            "\n  RED        `keys` was not exchanged\n",
            "\nmembers\n  NAME  STATE\n  -     down\n  gw-1  alive\n",
            "\ntables\n  TABLE  ENTRIES  SENT  COLOUR\n  keys   1        2     RED\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn times_are_short() {
        let shown: Vec<_> = [40, 65, 7500, 273_600].map(duration).into();
        assert_eq!(shown, ["40s", "1m 5s", "2h 5m", "3d 4h"]);
    }
}
