//! `smg tenants` and `smg keys`: who may ask a running gateway, at every node of it.

use anyhow::Context as _;
use anyhow::bail;
use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use http::Method;
use serde_json::Value;
use serde_json::json;

use super::args::asking;
use super::args::required;
use super::client::Node;
use super::fleet::show;
use super::fleet::table;
use crate::tenancy::listing::KeyId;

/// Columns of the tables, with the fields of the admin API they show.
const TENANT_COLUMNS: &[(&str, &str)] = &[("NAME", "name"), ("ENABLED", "enabled"), ("KEYS", "keys")];
/// See [`TENANT_COLUMNS`]: how limits stand at the node that was asked.
const LIMIT_COLUMNS: &[(&str, &str)] = &[
    ("TENANT", "tenant"),
    ("WHAT", "what"),
    ("PER", "per"),
    ("LIMIT", "limit"),
    ("SHARE", "share"),
    ("LEFT", "left"),
    ("DEBT", "debt"),
    ("SPENT", "spent"),
];
/// See [`TENANT_COLUMNS`].
const KEY_COLUMNS: &[(&str, &str)] =
    &[("ID", "id"), ("NAME", "name"), ("TENANT", "tenant"), ("ROLE", "role"), ("STATE", "state"), ("SOURCE", "source")];

pub(super) fn commands() -> [Command; 2] {
    [tenants_command(), keys_command()]
}

fn tenants_command() -> Command {
    let name = || required("name", "The tenant's name");
    let disabled = switch("disabled", "Its keys are refused until it is enabled");
    asking(Command::new("tenants").about("The tenants of a running gateway: list, add, update, limit, remove"))
        .subcommand(asking(Command::new("add")).about("Add a tenant").arg(name()).arg(disabled))
        .subcommand(switching(
            asking(Command::new("update")).about("Enable a tenant, or disable it with all its keys").arg(name()),
        ))
        .subcommand(set_limit(asking(Command::new("set-limit")).arg(name())))
        .subcommand(asking(Command::new("remove")).about("Remove a tenant, and so end its keys").arg(name()))
}

fn set_limit(command: Command) -> Command {
    let of = |what: &'static str, help| {
        Arg::new(what).long(what).help(help).value_name("NUMBER|none").value_parser(number_or_none)
    };
    let group = clap::ArgGroup::new("limits").args(["requests", "tokens"]).required(true).multiple(true);
    let per = Arg::new("per").long("per").help("The window").value_parser(["second", "minute"]).default_value("minute");
    command
        .about("Set what a tenant may use in a second or a minute, in the whole cluster; `none` takes a limit away")
        .arg(of("requests", "So many requests"))
        .arg(of("tokens", "So many tokens, of prompts and answers together"))
        .arg(per)
        .group(group)
}

/// What a limit may be, as it is sent.
fn number_or_none(text: &str) -> Result<Option<u64>, String> {
    if text == "none" {
        Ok(None)
    } else {
        text.parse().map(Some).map_err(|_not_one| "a whole number, or none".to_owned())
    }
}

fn keys_command() -> Command {
    let key = || required("id", "The key: its id (k-...), or its name where no other key has it");
    let option = |name: &'static str, help| Arg::new(name).long(name).help(help);
    let given = option("given", "A key that is there already; `-` reads it from standard input").value_name("KEY");
    let add = asking(Command::new("add"))
        .about("Make a key and print it, once; it is in force at every node")
        .arg(required("name", "Who it stands for; stays when the key is rotated"))
        .arg(option("tenant", "Whose it is").value_name("TENANT").required(true))
        .arg(option("role", "What it may do").value_name("ROLE").value_parser(["user", "admin"]).default_value("user"))
        .arg(given);
    asking(Command::new("keys").about("The API keys of a running gateway: list, add, update, remove"))
        .subcommand(add)
        .subcommand(switching(asking(Command::new("update")).about("Disable a key, or enable it again").arg(key())))
        .subcommand(asking(Command::new("remove")).about("Remove a key, for good").arg(key()))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn switching(command: Command) -> Command {
    let group = clap::ArgGroup::new("to").args(["enable", "disable"]).required(true);
    command.arg(switch("enable", "Let it in again")).arg(switch("disable", "Refuse it")).group(group)
}

/// Lists, adds, enables, disables or removes tenants.
pub(super) fn tenants(matches: &ArgMatches) -> anyhow::Result<()> {
    let (answer, matches) = match matches.subcommand() {
        Some(("add", matches)) => {
            let body = json!({ "name": text(matches, "name"), "enabled": !matches.get_flag("disabled") });
            (Node::of(matches)?.ask(Method::POST, "/tenants", Some(&body))?, matches)
        }
        Some(("update", matches)) => {
            let body = json!({ "enabled": matches.get_flag("enable") });
            (Node::of(matches)?.ask(Method::PATCH, &tenant_path(matches)?, Some(&body))?, matches)
        }
        Some(("set-limit", matches)) => {
            (Node::of(matches)?.ask(Method::PATCH, &tenant_path(matches)?, Some(&limits(matches)))?, matches)
        }
        Some((_remove, matches)) => (Node::of(matches)?.ask(Method::DELETE, &tenant_path(matches)?, None)?, matches),
        None => (Node::of(matches)?.ask(Method::GET, "/tenants", None)?, matches),
    };
    show(matches, &answer, listed(&answer, "tenants").map(tenants_table));
    Ok(())
}

/// Lists, adds, enables, disables or removes keys.
pub(super) fn keys(matches: &ArgMatches) -> anyhow::Result<()> {
    let (answer, matches) = match matches.subcommand() {
        Some(("add", matches)) => {
            let answer = Node::of(matches)?.ask(Method::POST, "/keys", Some(&new_key(matches)?))?;
            show(matches, &answer, Some(told(&answer)));
            return Ok(());
        }
        Some(("update", matches)) => {
            let (node, body) = (Node::of(matches)?, json!({ "disabled": matches.get_flag("disable") }));
            let path = format!("/keys/{}", key_id(&node, matches)?);
            (node.ask(Method::PATCH, &path, Some(&body))?, matches)
        }
        Some((_remove, matches)) => {
            let node = Node::of(matches)?;
            let path = format!("/keys/{}", key_id(&node, matches)?);
            (node.ask(Method::DELETE, &path, None)?, matches)
        }
        None => (Node::of(matches)?.ask(Method::GET, "/keys", None)?, matches),
    };
    show(matches, &answer, listed(&answer, "keys").map(|it| table(KEY_COLUMNS, it)));
    Ok(())
}

/// The tenants, and below them what limits each has here.
fn tenants_table(tenants: &[Value]) -> String {
    let mut text = table(TENANT_COLUMNS, tenants);
    let rows: Vec<Value> = tenants.iter().flat_map(limit_rows).collect();
    if !rows.is_empty() {
        text += &format!("\n{}", table(LIMIT_COLUMNS, &rows));
    }
    text
}

fn limit_rows(tenant: &Value) -> Vec<Value> {
    let all = tenant["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |it: &Value| {
        let of = |field: &str| it["here"].get(field).cloned().unwrap_or_else(|| json!("-"));
        json!({
            "tenant": tenant["name"], "what": it["what"], "per": it["per"], "limit": it["limit"],
            "share": of("share"), "left": of("left"), "debt": of("debt"), "spent": of("spent"),
        })
    };
    all.iter().map(row).collect()
}

/// What `set-limit` asks for.
fn limits(matches: &ArgMatches) -> Value {
    let per = text(matches, "per");
    let given = ["requests", "tokens"].into_iter().filter_map(|what| {
        let limit = matches.get_one::<Option<u64>>(what)?;
        Some(json!({ "what": what, "per": per, "limit": limit }))
    });
    json!({ "limits": given.collect::<Vec<_>>() })
}

fn new_key(matches: &ArgMatches) -> anyhow::Result<Value> {
    let mut body =
        json!({ "name": text(matches, "name"), "tenant": text(matches, "tenant"), "role": text(matches, "role") });
    if let Some(given) = matches.get_one::<String>("given") {
        let is_piped = given == "-";
        let key = if is_piped { std::io::read_to_string(std::io::stdin())?.trim().to_owned() } else { given.clone() };
        body["key"] = json!(key);
    }
    Ok(body)
}

/// A new key for people: the key first, since it is told only now.
fn told(answer: &Value) -> String {
    let of = |field: &str| answer[field].as_str().unwrap_or_default();
    let mut text = String::new();
    if answer["key"].is_string() {
        text += &format!("{}\n\nThis key is not shown again. ", of("key"));
    }
    text += &format!("Its id is {}, its tenant {}, its role {}.\n", of("id"), of("tenant"), of("role"));
    if answer["note"].is_string() {
        text += &format!("{}\n", of("note"));
    }
    text
}

/// A name with other characters is refused here: in a path it could mean something else.
fn tenant_path(matches: &ArgMatches) -> anyhow::Result<String> {
    let name = text(matches, "name");
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    if !name.chars().all(is_plain) {
        bail!("no tenant can have this name: `{name}`");
    }
    Ok(format!("/tenants/{name}"))
}

/// What is no id is looked for among the names, and so never sent in a path: it may be a key.
fn key_id(node: &Node, matches: &ArgMatches) -> anyhow::Result<String> {
    let wanted = text(matches, "id");
    if KeyId::parse(wanted).is_some() {
        return Ok(wanted.to_owned());
    }
    let answer = node.ask(Method::GET, "/keys", None)?;
    id_of(wanted, listed(&answer, "keys").unwrap_or_default()).map(str::to_owned)
}

fn id_of<'a>(name: &str, keys: &'a [Value]) -> anyhow::Result<&'a str> {
    let ids: Vec<&str> = keys.iter().filter(|it| it["name"] == name).filter_map(|it| it["id"].as_str()).collect();
    match ids[..] {
        [id] => Ok(id),
        [] => bail!("neither the id nor the name of a key that was made here: see `smg keys`"),
        _ => Err(anyhow::anyhow!("{}", ids.join("\n  "))).context("several keys have this name, give the id of one"),
    }
}

fn listed<'a>(answer: &'a Value, field: &str) -> Option<&'a [Value]> {
    answer.get(field).and_then(Value::as_array).map(Vec::as_slice)
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).expect("required, or it has a default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_printed_first_and_a_given_one_is_not_repeated() {
        let mut answer = json!({"id": "k-1", "key": "sk-x", "tenant": "t", "role": "user", "note": "Mind."});
        let head = "sk-x\n\nThis key is not shown again. ";
        assert_eq!(told(&answer), format!("{head}Its id is k-1, its tenant t, its role user.\nMind.\n"));
        answer["key"] = Value::Null;
        assert!(told(&answer).starts_with("Its id is k-1"));
    }

    #[test]
    fn a_key_is_found_by_its_name_where_one_has_it() {
        let keys = [
            json!({"id": "k-1", "name": "ci"}),
            json!({"id": "k-2", "name": "app"}),
            json!({"id": "k-3", "name": "app"}),
            json!({"id": null, "name": "ops"}),
        ];
        assert_eq!(id_of("ci", &keys).expect("one"), "k-1");
        let error = format!("{:#}", id_of("app", &keys).expect_err("two"));
        assert!(error.contains("k-2") && error.contains("k-3"), "{error}");
        let error = id_of("sk-canary", &keys).expect_err("none").to_string();
        assert!(!error.contains("canary"), "{error}");
        assert!(id_of("ops", &keys).is_err(), "a configured key is not removed here");
    }

    #[test]
    fn what_a_command_line_says_is_what_is_asked() {
        let matches = |line: &str| super::super::args::command().try_get_matches_from(line.split(' '));
        let parsed = matches("smg keys add ci --tenant team --role admin").expect("parses");
        let add = parsed.subcommand_matches("keys").and_then(|it| it.subcommand_matches("add")).expect("an add");
        assert_eq!(new_key(add).expect("sound"), json!({"name": "ci", "tenant": "team", "role": "admin"}));
        assert!(matches("smg keys update ci").is_err() && matches("smg tenants update t --enable --disable").is_err());
    }
}
