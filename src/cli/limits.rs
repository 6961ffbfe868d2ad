//! Limits on the command line: how they are set, and how they stand in the whole cluster.
//!
//! A node knows its own part only, so every node is asked, as `smg top` does: sums by default, a row for each node with `--nodes`. Nodes that did not answer are named, because
//! sums without them are too small.

use anyhow::Context as _;
use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;

use super::args::asking;
use super::client::DEADLINE;
use super::client::Node;
use super::cluster::listed;
use super::fleet::table;
use crate::limits::mint::UNITS_MAX;

/// Columns of the table, with the fields they show.
const COLUMNS: &[(&str, &str)] = &[
    ("NAME", "name"),
    ("WHAT", "what"),
    ("PER", "per"),
    ("NODE", "node"),
    ("LIMIT", "limit"),
    ("SHARE", "share"),
    ("LEFT", "left"),
    ("OPEN", "in_use"),
    ("DEBT", "debt"),
    ("SPENT", "spent"),
];
/// What a node says of its part. Units can be added up.
const PARTS: &[&str] = &["share", "left", "in_use", "waiting", "debt", "spent", "returned", "asked"];

/// The part of a command that sets limits of something.
pub(super) fn set_limit(whose: &str, named: Arg) -> Command {
    let of = |what: &'static str, help| {
        let arg = Arg::new(what).long(what).help(help).value_name("NUMBER|none").value_parser(number_or_none);
        arg.allow_negative_numbers(true) // refused, in words that help
    };
    let group = clap::ArgGroup::new("limits").args(["requests", "tokens", "streams"]).required(true).multiple(true);
    let per = Arg::new("per")
        .long("per")
        .help("The window of requests and tokens")
        .value_parser(["second", "minute"])
        .default_value("minute");
    asking(Command::new("set-limit"))
        .about(format!(
            "Set what {whose} may use in a second or a minute, in the whole cluster; `none` takes a limit away"
        ))
        .arg(named)
        .arg(of("requests", "So many requests; 0: none at all"))
        .arg(of("tokens", "So many tokens, of prompts and answers together"))
        .arg(of("streams", "So many requests open at a time"))
        .arg(per)
        .group(group)
}

/// A listing that can show each node by itself.
pub(super) fn by_node(command: Command) -> Command {
    let help = "Limits at each node by itself, not their sums";
    command.arg(Arg::new("nodes").long("nodes").action(ArgAction::SetTrue).help(help))
}

/// What a limit may be, as it is sent.
fn number_or_none(text: &str) -> Result<Option<u64>, String> {
    let expected = || format!("a limit is a whole number from 0 to {UNITS_MAX}, or `none`");
    if text == "none" {
        return Ok(None);
    }
    text.parse().ok().filter(|it| *it <= UNITS_MAX).map(Some).ok_or_else(expected)
}

/// What `set-limit` asks for.
pub(super) fn wanted(matches: &ArgMatches) -> Value {
    let per = matches.get_one::<String>("per").expect("it has a default");
    let given = ["requests", "tokens", "streams"].into_iter().filter_map(|what| {
        let limit = matches.get_one::<Option<u64>>(what)?;
        let has_windows = what != "streams";
        Some(if has_windows {
            json!({ "what": what, "per": per, "limit": limit })
        } else {
            json!({ "what": what, "limit": limit })
        })
    });
    json!({ "limits": given.collect::<Vec<_>>() })
}

/// A listing of one node, and what all nodes say of the limits in it.
pub(super) struct Listing {
    /// What the node that was asked says, and how its limits stand everywhere.
    pub(super) answer: Value,
    list: &'static str,
    silent: Vec<String>,
    is_by_node: bool,
}

impl Listing {
    /// Asks a node for a list, and all others for their part.
    pub(super) fn ask(matches: &ArgMatches, path: &'static str, list: &'static str) -> anyhow::Result<Self> {
        let node = Node::of(matches)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (answer, members) = runtime.block_on(async {
            let answer = node.get(DEADLINE, path).await?;
            // An older node, or one without the mesh, is alone.
            anyhow::Ok((answer, node.get(DEADLINE, "/cluster/members").await.unwrap_or_default()))
        })?;
        let is_limited = |it: &Value| !listed(it, "limits").is_empty();
        let has_limits = listed(&answer, list).iter().any(is_limited);
        let others = listed(&members, "members").iter().filter(|it| has_limits && it["is_self"] != true && is_here(it));
        let others: Vec<_> = others.map(|it| (name(it), it["http"].as_str().map(str::to_owned))).collect();
        let answers = runtime.block_on(join_all(others.into_iter().map(|(name, url)| {
            let node = &node;
            async move {
                let asked =
                    async { node.beside(&url.context("it does not say where it is")?)?.get(DEADLINE, path).await };
                (name, asked.await)
            }
        })));
        let me = listed(&members, "members").iter().find(|it| it["is_self"] == true);
        let me = me.map_or_else(|| node.to_string(), name);
        Ok(Self::of(answer, list, &me, answers, matches.get_flag("nodes")))
    }

    fn of(
        mut answer: Value,
        list: &'static str,
        me: &str,
        others: Vec<(String, anyhow::Result<Value>)>,
        is_by_node: bool,
    ) -> Self {
        let mut silent = Vec::new();
        let mut parts = vec![(me.to_owned(), answer.clone())];
        for (name, answer) in others {
            match answer {
                Ok(answer) => parts.push((name, answer)),
                Err(_) => silent.push(name),
            }
        }
        for item in answer[list].as_array_mut().into_iter().flatten() {
            let id = identity(item);
            for limit in item["limits"].as_array_mut().into_iter().flatten() {
                let nodes: Vec<Value> = parts.iter().map(|it| part(it, list, &id, limit)).collect();
                limit["cluster"] = sum(&nodes);
                limit["nodes"] = json!(nodes);
            }
        }
        answer["unanswered"] = json!(silent);
        Self { answer, list, silent, is_by_node }
    }

    /// The things themselves, with these columns, and below them their limits.
    pub(super) fn table(&self, columns: &[(&str, &str)]) -> String {
        let items = listed(&self.answer, self.list);
        let mut text = table(columns, items);
        let rows: Vec<Value> = items.iter().flat_map(|it| self.rows(it)).collect();
        if !rows.is_empty() {
            text += &format!("\n{}", table(COLUMNS, &rows));
        }
        if !self.silent.is_empty() {
            text += &format!("\nno answer from: {}. What they hold is missing above\n", self.silent.join(", "));
        }
        text
    }

    fn rows(&self, item: &Value) -> Vec<Value> {
        let row = |limit: &Value, part: &Value| {
            let mut row =
                json!({"name": item["name"], "what": limit["what"], "per": limit["per"], "limit": limit["limit"]});
            for field in ["node", "share", "left", "in_use", "debt", "spent"] {
                let is_said = field != "in_use" || limit["what"] == "streams";
                if let Some(value) = part.get(field).filter(|_| is_said) {
                    row[field] = value.clone();
                }
            }
            // What was reserved and turned out not to be needed was not spent, for people.
            if let (Some(spent), Some(returned)) = (part["spent"].as_u64(), part["returned"].as_u64()) {
                row["spent"] = json!(spent.saturating_sub(returned));
            }
            row
        };
        let of = |limit: &Value| match self.is_by_node {
            true => listed(limit, "nodes").iter().map(|it| row(limit, it)).collect(),
            false => vec![row(limit, &limit["cluster"])],
        };
        listed(item, "limits").iter().flat_map(of).collect()
    }
}

fn is_here(member: &Value) -> bool {
    matches!(member["state"].as_str(), Some("alive" | "suspect"))
}

fn name(member: &Value) -> String {
    member["name"].as_str().or(member["node_id"].as_str()).unwrap_or("a node without a name").to_owned()
}

/// What says that two nodes speak of the same: an id where there is one, else a name.
fn identity(item: &Value) -> Value {
    item.get("id").filter(|it| it.is_string()).unwrap_or(&item["name"]).clone()
}

/// One node's part of a limit; `null` where it has not heard of its share.
fn part((node, answer): &(String, Value), list: &str, id: &Value, limit: &Value) -> Value {
    let item = listed(answer, list).iter().find(|it| identity(it) == *id);
    let same = |it: &&Value| it["what"] == limit["what"] && it["per"] == limit["per"];
    let here = item.and_then(|it| listed(it, "limits").iter().find(same)).map(|it| &it["here"]);
    let mut part = json!({ "node": node });
    for field in PARTS {
        part[*field] = here.map_or(Value::Null, |it| it[*field].clone());
    }
    part
}

/// What all nodes have together; `null` where none has heard of its share.
fn sum(nodes: &[Value]) -> Value {
    let of = |field: &str| {
        let known: Vec<u64> = nodes.iter().filter_map(|it| it[field].as_u64()).collect();
        if known.is_empty() { Value::Null } else { json!(known.iter().sum::<u64>()) }
    };
    PARTS.iter().map(|it| ((*it).to_owned(), of(it))).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(share: Option<u64>, spent: u64) -> Value {
        let here = share
            .map(|share| json!({"share": share, "left": share - 1, "debt": 0, "spent": spent + 10, "returned": 10}));
        let limit = json!({"what": "requests", "per": "minute", "limit": 9, "here": here});
        json!({"tenants": [{"name": "team", "enabled": true, "limits": [limit]}], "total": 1})
    }

    #[test]
    fn what_all_nodes_hold_is_added_up_and_who_is_silent_is_named() {
        let listing = |is_by_node| {
            let others = vec![
                ("gw-2".to_owned(), Ok(answer(Some(3), 5))),
                ("gw-3".to_owned(), Err(anyhow::anyhow!("no"))),
                ("gw-4".to_owned(), Ok(answer(None, 0))),
            ];
            Listing::of(answer(Some(4), 2), "tenants", "gw-1", others, is_by_node)
        };
        let columns = &[("NAME", "name"), ("ENABLED", "enabled")];
        let sums = listing(false).table(columns);
        assert_eq!(
            sums,
            "NAME  ENABLED\nteam  true\n\n\
             NAME  WHAT      PER     LIMIT  SHARE  LEFT  DEBT  SPENT\n\
             team  requests  minute  9      7      5     0     7\n\n\
             no answer from: gw-3. What they hold is missing above\n"
        );
        let each = listing(true);
        let text = each.table(columns);
        for row in ["gw-1  9      4      3     0     2", "gw-2  9      3      2     0     5", "gw-4  9      -      -"] {
            assert!(text.contains(row), "{row} in {text}");
        }
        assert_eq!(each.answer["unanswered"], json!(["gw-3"]));
        assert_eq!(each.answer["tenants"][0]["limits"][0]["cluster"]["spent"], 27);
    }

    #[test]
    fn a_limit_is_a_whole_number_in_range_or_none() {
        assert_eq!((number_or_none("0"), number_or_none("none")), (Ok(Some(0)), Ok(None)));
        assert_eq!(number_or_none("2147483648"), Ok(Some(1 << 31)));
        for bad in ["-1", "1.5", "2147483649", "1e3", "", "many", "99999999999999999999"] {
            let error = number_or_none(bad).expect_err(bad);
            assert!(error.contains("from 0 to 2147483648, or `none`"), "{error}");
        }
    }
}
