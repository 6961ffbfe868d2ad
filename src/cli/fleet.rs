//! `smg workers`, `smg policies` and `smg route explain`: questions to a running node, answered as a table or as JSON.

use std::fmt::Write as _;
use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::ArgMatches;
use http::Method;
use serde_json::Value;
use serde_json::json;

use super::client::DEADLINE;
use super::client::DRAIN_DEADLINE;
use super::client::Node;
use super::say;
use crate::base::ids::WorkerId;
use crate::workers::address::Origin;

/// Columns of the table, with the fields of the admin API they show.
pub(super) const COLUMNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("URL", "url"),
    ("STATE", "state"),
    ("SOURCE", "source"),
    ("VIA", "via"),
    ("ENGINE", "runtime_type"),
    ("MODELS", "models"),
    ("INFLIGHT", "load"),
    ("CLUSTER", "cluster_load"),
];

/// What an explanation says of each worker that was looked at.
const CONSIDERED: &[(&str, &str)] = &[
    ("WORKER", "worker"),
    ("CACHED", "expected_cached_tokens"),
    ("QUEUED", "queued_prefill_tokens"),
    ("INFLIGHT", "inflight"),
    ("PACE", "relative_prefill_rate"),
    ("COST", "cost"),
    ("AVAILABLE", "is_available"),
    ("TRIED", "is_tried"),
];

/// Lists, adds, changes, drains or removes.
pub(super) fn workers(matches: &ArgMatches) -> anyhow::Result<()> {
    let (answer, matches) = match matches.subcommand() {
        Some(("add", matches)) => {
            let mut body = described(matches)?;
            body["url"] = json!(matches.get_one::<String>("url").expect("required"));
            (Node::of(matches)?.ask(Method::POST, "/workers", Some(&body))?, matches)
        }
        Some(("update", matches)) => {
            let body = described(matches)?;
            (on_worker(matches, DEADLINE, Method::PATCH, Some(&body))?, matches)
        }
        Some(("drain", matches)) => {
            let body = json!({ "draining": !matches.get_flag("resume") });
            (on_worker(matches, DRAIN_DEADLINE, Method::PATCH, Some(&body))?, matches)
        }
        Some((_remove, matches)) => (on_worker(matches, DEADLINE, Method::DELETE, None)?, matches),
        None => (Node::of(matches)?.ask(Method::GET, "/workers", None)?, matches),
    };
    show(matches, &answer, answer.get("workers").and_then(Value::as_array).map(|it| table(COLUMNS, it)));
    Ok(())
}

/// Shows, sets or resets.
pub(super) fn policies(matches: &ArgMatches) -> anyhow::Result<()> {
    let (method, body, matches) = match matches.subcommand() {
        Some(("set", matches)) => (Method::PUT, Some(rules(matches)?), matches),
        Some((_reset, matches)) => (Method::DELETE, None, matches),
        None => (Method::GET, None, matches),
    };
    let answer = Node::of(matches)?.ask(method, "/policies", body.as_ref())?;
    show(matches, &answer, None);
    Ok(())
}

fn rules(matches: &ArgMatches) -> anyhow::Result<Value> {
    let mut models = Vec::new();
    for rule in matches.get_many::<String>("rule").into_iter().flatten() {
        let split = rule.rsplit_once(':').with_context(|| format!("expected PATTERN:POLICY, this is: `{rule}`"))?;
        models.push(json!({ "model": split.0, "policy": split.1 }));
    }
    let mut body = json!({ "models": models });
    if let Some(default) = matches.get_one::<String>("default") {
        body["default"] = json!(default);
    }
    Ok(body)
}

/// What the flags say of a worker; what they do not say is left as it is.
fn described(matches: &ArgMatches) -> anyhow::Result<Value> {
    let mut body = json!({});
    if let Some(key) = matches.get_one::<String>("worker-key") {
        let key = if key == "-" { std::io::read_to_string(std::io::stdin())?.trim().to_owned() } else { key.clone() };
        body["api_key"] = if key.is_empty() { Value::Null } else { json!(key) };
    }
    if let Some(models) = matches.get_many::<String>("model") {
        body["models"] = models.filter(|it| !it.is_empty()).cloned().collect();
    }
    if let Some(priority) = matches.get_one::<u32>("priority") {
        body["priority"] = json!(priority);
    }
    if let Some(cost) = matches.get_one::<f64>("cost") {
        body["cost"] = json!(cost);
    }
    if let Some(labels) = matches.get_many::<String>("label") {
        let split = |it: &String| {
            let (name, value) = it.split_once('=').with_context(|| format!("expected NAME=VALUE, this is: `{it}`"))?;
            anyhow::Ok((name.to_owned(), json!(value)))
        };
        body["labels"] = Value::Object(labels.map(split).collect::<anyhow::Result<_>>()?);
    }
    Ok(body)
}

/// Asks for something of the worker that the command line names by id or address.
fn on_worker(matches: &ArgMatches, deadline: Duration, method: Method, body: Option<&Value>) -> anyhow::Result<Value> {
    let (node, worker) = (Node::of(matches)?, matches.get_one::<String>("worker").expect("required"));
    let id = if WorkerId::parse(worker).is_some() { worker.clone() } else { id_at(&node, worker)? };
    node.ask_within(deadline, method, &format!("/workers/{id}"), body)
}

fn id_at(node: &Node, address: &str) -> anyhow::Result<String> {
    let url = Origin::parse(address).with_context(|| format!("neither an id nor an address: `{address}`"))?.url();
    let listed = node.ask(Method::GET, "/workers", None)?;
    let workers = listed["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = workers.iter().find(|it| it["url"] == *url).and_then(|it| it["id"].as_str());
    found.map(str::to_owned).with_context(|| format!("{node} has no worker at: {url}"))
}

/// Explains the route of a request.
pub(super) fn route(matches: &ArgMatches) -> anyhow::Result<()> {
    let (_explain, matches) = matches.subcommand().expect("clap requires one");
    let body = request(matches.get_one::<String>("prompt").expect("required"), matches.get_one::<String>("model"))?;
    let answer = Node::of(matches)?.ask(Method::POST, "/v1/route/explain", Some(&body))?;
    show(matches, &answer, Some(explained(&answer)));
    Ok(())
}

fn explained(answer: &Value) -> String {
    let (worker, rows) = (cell(answer.get("worker")), answer["considered"].as_array().map(Vec::as_slice));
    let why = format!("{worker} by {}, {}\n", cell(answer.get("policy")), cell(answer.get("reason")));
    let prompt = format!("about {} tokens, {} workers serve the model\n\n", answer["prompt_tokens"], answer["workers"]);
    why + &prompt + &table(CONSIDERED, rows.unwrap_or_default())
}

fn request(prompt: &str, model: Option<&String>) -> anyhow::Result<Value> {
    let text = if prompt == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        prompt.to_owned()
    };
    let mut body = match serde_json::from_str(&text) {
        Ok(body @ Value::Object(_)) => body,
        _ => json!({ "messages": [{ "role": "user", "content": text }] }),
    };
    if let Some(model) = model {
        body["model"] = json!(model);
    }
    Ok(body)
}

pub(super) fn show(matches: &ArgMatches, answer: &Value, table: Option<String>) {
    match table {
        Some(table) if !matches.get_flag("json") => say(&table),
        _ => say(&format!("{answer:#}\n")),
    }
}

/// Left-aligned columns, each as wide as its widest cell; fields that no row has are left out.
pub(super) fn table(columns: &[(&str, &str)], rows: &[Value]) -> String {
    let columns: Vec<_> = columns.iter().filter(|(_, field)| rows.iter().any(|it| it.get(field).is_some())).collect();
    let mut lines = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(_, field)| cell(row.get(field))).collect()));
    let widths: Vec<usize> =
        (0..columns.len()).map(|n| lines.iter().map(|line| line[n].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end()); // a String takes everything
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|it| cell(Some(it))).collect::<Vec<_>>().join(","),
        Some(Value::Object(fields)) => cell(fields.get("id").or_else(|| fields.get("name"))),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_shown_as_a_table_of_what_they_have() {
        let rows = [
            json!({ "id": "w-1", "url": "http://gpu1:8000", "models": [{ "id": "m" }, { "id": "n" }], "load": 3 }),
            json!({ "id": "w-22", "url": "http://g:1", "models": [], "load": 0 }),
        ];
        let expected = "ID    URL               MODELS  INFLIGHT\n\
                        w-1   http://gpu1:8000  m,n     3\n\
                        w-22  http://g:1                0\n";
        assert_eq!(table(COLUMNS, &rows), expected);
    }

    #[test]
    fn an_explanation_is_who_why_and_against_whom() {
        let looked =
            json!({"worker": "w-1", "expected_cached_tokens": 7, "cost": 3.5, "is_available": true, "is_tried": false});
        let answer = json!({"worker": "w-1", "policy": "cache_aware", "reason": "prefix", "prompt_tokens": 9, "workers": 2, "considered": [looked]});
        let expected = "w-1 by cache_aware, prefix\nabout 9 tokens, 2 workers serve the model\n\n\
                        WORKER  CACHED  COST  AVAILABLE  TRIED\nw-1     7       3.5   true       false\n";
        assert_eq!(explained(&answer), expected);
    }

    #[test]
    fn a_prompt_becomes_a_chat_and_a_body_stays_what_it_is() {
        let chat = request("hello", Some(&"m".to_owned())).expect("is made");
        assert_eq!(chat, json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] }));
        assert_eq!(request("{\"prompt\":\"x\"}", None).expect("is read"), json!({ "prompt": "x" }));
    }

    #[test]
    fn a_worker_is_described_by_what_was_said_and_nothing_else() {
        let described = |line: &str| {
            let matches = crate::cli::args::command().try_get_matches_from(line.split(' ')).expect("parses");
            let workers = matches.subcommand_matches("workers").and_then(|it| it.subcommand_matches("update"));
            super::described(workers.expect("an update")).expect("sound")
        };
        assert_eq!(described("smg workers update w"), json!({}));
        let line = "smg workers update w --worker-key= --model a --model b --priority 3 --cost 0.5 --label zone=a";
        let expected = json!({
            "api_key": null, "models": ["a", "b"], "priority": 3, "cost": 0.5, "labels": { "zone": "a" } });
        assert_eq!(described(line), expected);
        assert_eq!(described("smg workers update w --model="), json!({ "models": [] }));
    }
}
