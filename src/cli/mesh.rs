//! `smg members`, `smg status` and `smg mesh secret`.

use clap::ArgMatches;
use clap::Command;
use http::Method;
use serde_json::Value;
use serde_json::json;

use super::args::asking;
use super::client::Node;
use super::fleet::show;
use super::fleet::table;
use super::say;
use crate::transport::trust::MeshSecret;

/// Columns of the table, with the fields of the admin API they show.
const COLUMNS: &[(&str, &str)] = &[
    ("NODE", "node_id"),
    ("NAME", "name"),
    ("ADDRESS", "addr"),
    ("STATE", "state"),
    ("INCARNATION", "incarnation"),
    ("ZONE", "zone"),
];

pub(super) fn commands() -> [Command; 3] {
    let secret = Command::new("secret").about("Print a new mesh secret; give it to every node of a cluster");
    [
        asking(Command::new("members").about("The nodes of a running cluster, as one of them sees them")),
        asking(Command::new("status").about("How a running node is, and whom it sees")),
        Command::new("mesh")
            .about("What a cluster needs before it starts")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(secret),
    ]
}

/// Lists.
pub(super) fn members(matches: &ArgMatches) -> anyhow::Result<()> {
    let answer = Node::of(matches)?.ask(Method::GET, "/cluster/members", None)?;
    show(matches, &answer, Some(table(COLUMNS, listed(&answer))));
    Ok(())
}

/// Readiness and members together.
pub(super) fn status(matches: &ArgMatches) -> anyhow::Result<()> {
    let node = Node::of(matches)?;
    let cluster = node.ask(Method::GET, "/cluster/members", None)?;
    let readiness = node.ask(Method::GET, "/readiness", None);
    let readiness = readiness.unwrap_or_else(|error| json!({"status": "not ready", "reason": error.to_string()}));
    let text = summary(&node.to_string(), &readiness, &cluster);
    show(matches, &json!({"node": readiness, "cluster": cluster}), Some(text));
    Ok(())
}

/// Prints a new one.
pub(super) fn secret() {
    say(&format!("{}\n", MeshSecret::generate().expose()));
}

fn listed(answer: &Value) -> &[Value] {
    answer["members"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn summary(node: &str, readiness: &Value, cluster: &Value) -> String {
    let word = |field: &str| readiness[field].as_str().unwrap_or("unknown");
    let mut text = format!("{node}: {}\n", word("status"));
    if let Some(reason) = readiness["reason"].as_str() {
        text += &format!("  {reason}\n");
    } else {
        text += &format!("  workers: {}\n  durability: {}\n", readiness["workers"], word("durability"));
    }
    if cluster["mesh"] != true {
        return text + "  mesh: off\n";
    }
    let count = |state: &str| listed(cluster).iter().filter(|it| it["state"] == state).count();
    let counts = ["alive", "suspect", "left", "down"].map(|it| format!("{} {it}", count(it)));
    text + &format!("  mesh: {}\n", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_summed_up_whether_it_is_ready_and_alone_or_not() {
        let ready = json!({"status": "ready", "workers": 2, "durability": "on"});
        let alone = summary("n", &ready, &json!({"mesh": false, "members": []}));
        assert_eq!(alone, "n: ready\n  workers: 2\n  durability: on\n  mesh: off\n");
        let cluster = json!({"mesh": true, "members": [{"state": "alive"}, {"state": "down"}, {"state": "alive"}]});
        let busy = summary("n", &json!({"status": "not ready", "reason": "busy"}), &cluster);
        assert_eq!(busy, "n: not ready\n  busy\n  mesh: 2 alive, 0 suspect, 0 left, 1 down\n");
    }
}
