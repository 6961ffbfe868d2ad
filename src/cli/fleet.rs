//! `smg workers` and `smg route explain`: questions to a running node, answered as a table or as JSON.

use std::fmt::Write as _;
use std::io::Read as _;

use clap::ArgMatches;
use http::Method;
use serde_json::Value;
use serde_json::json;

use super::client::Node;
use super::say;

/// Columns of the table, with the fields of the admin API they show.
const COLUMNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("URL", "url"),
    ("STATE", "state"),
    ("ENGINE", "runtime_type"),
    ("MODELS", "models"),
    ("INFLIGHT", "load"),
];

/// Lists, adds or removes.
pub(super) fn workers(matches: &ArgMatches) -> anyhow::Result<()> {
    let (method, path, body, matches) = match matches.subcommand() {
        Some(("add", matches)) => {
            let url = matches.get_one::<String>("url").expect("required");
            (Method::POST, "/workers".to_owned(), Some(json!({ "url": url })), matches)
        }
        Some((_remove, matches)) => {
            let id = matches.get_one::<String>("id").expect("required");
            (Method::DELETE, format!("/workers/{id}"), None, matches)
        }
        None => (Method::GET, "/workers".to_owned(), None, matches),
    };
    let answer = Node::of(matches)?.ask(method, &path, body.as_ref())?;
    show(matches, &answer, answer.get("workers").and_then(Value::as_array).map(|it| table(it)));
    Ok(())
}

/// Explains the route of a request.
pub(super) fn route(matches: &ArgMatches) -> anyhow::Result<()> {
    let (_explain, matches) = matches.subcommand().expect("clap requires one");
    let body = request(matches.get_one::<String>("prompt").expect("required"), matches.get_one::<String>("model"))?;
    let answer = Node::of(matches)?.ask(Method::POST, "/v1/route/explain", Some(&body))?;
    show(matches, &answer, None);
    Ok(())
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

fn show(matches: &ArgMatches, answer: &Value, table: Option<String>) {
    match table {
        Some(table) if !matches.get_flag("json") => say(&table),
        _ => say(&format!("{answer:#}\n")),
    }
}

/// Left-aligned columns, each as wide as its widest cell; fields that no row has are left out.
fn table(rows: &[Value]) -> String {
    let columns: Vec<_> = COLUMNS.iter().filter(|(_, field)| rows.iter().any(|it| it.get(field).is_some())).collect();
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
        assert_eq!(table(&rows), expected);
    }

    #[test]
    fn a_prompt_becomes_a_chat_and_a_body_stays_what_it_is() {
        let chat = request("hello", Some(&"m".to_owned())).expect("is made");
        assert_eq!(chat, json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] }));
        assert_eq!(request("{\"prompt\":\"x\"}", None).expect("is read"), json!({ "prompt": "x" }));
    }
}
