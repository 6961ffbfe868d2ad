//! `smg tenants`, `smg keys` and `smg models`: who may ask a running gateway for what, and how much, at every node of it.

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
use super::limits;
use super::limits::Listing;
use crate::tenancy::listing::KeyId;

/// Columns of the tables, with the fields of the admin API they show.
const TENANT_COLUMNS: &[(&str, &str)] = &[("NAME", "name"), ("ENABLED", "enabled"), ("KEYS", "keys")];
/// See [`TENANT_COLUMNS`].
const KEY_COLUMNS: &[(&str, &str)] =
    &[("ID", "id"), ("NAME", "name"), ("TENANT", "tenant"), ("ROLE", "role"), ("STATE", "state"), ("SOURCE", "source")];

/// See [`TENANT_COLUMNS`].
const MODEL_COLUMNS: &[(&str, &str)] = &[("NAME", "name"), ("WORKERS", "workers")];

pub(super) fn commands() -> [Command; 3] {
    [tenants_command(), keys_command(), models_command()]
}

fn tenants_command() -> Command {
    let name = || required("name", "The tenant's name");
    let disabled = switch("disabled", "Its keys are refused until it is enabled");
    limits::by_node(asking(
        Command::new("tenants").about("The tenants of a running gateway: list, add, update, limit, remove"),
    ))
    .subcommand(asking(Command::new("add")).about("Add a tenant").arg(name()).arg(disabled))
    .subcommand(switching(
        asking(Command::new("update")).about("Enable a tenant, or disable it with all its keys").arg(name()),
    ))
    .subcommand(limits::set_limit("a tenant", name()))
    .subcommand(asking(Command::new("remove")).about("Remove a tenant, and so end its keys").arg(name()))
}

fn models_command() -> Command {
    let name = || required("name", "The model, as clients name it");
    limits::by_node(asking(
        Command::new("models").about("The models of a running gateway and what is set for them: list, limit, remove"),
    ))
    .subcommand(limits::set_limit("a model", name()))
    .subcommand(
        asking(Command::new("remove"))
            .about("Take away all that is set for a model; workers go on serving it")
            .arg(name()),
    )
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
    limits::by_node(asking(
        Command::new("keys").about("The API keys of a running gateway: list, add, update, limit, remove"),
    ))
    .subcommand(add)
    .subcommand(limits::set_limit("a key", key()))
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
            (Node::of(matches)?.ask(Method::PATCH, &tenant_path(matches)?, Some(&limits::wanted(matches)))?, matches)
        }
        Some((_remove, matches)) => (Node::of(matches)?.ask(Method::DELETE, &tenant_path(matches)?, None)?, matches),
        None => return list(matches, "/tenants", "tenants", TENANT_COLUMNS),
    };
    show(matches, &answer, None);
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
        Some(("set-limit", matches)) => {
            let node = Node::of(matches)?;
            let path = format!("/keys/{}", key_id(&node, matches)?);
            (node.ask(Method::PATCH, &path, Some(&limits::wanted(matches)))?, matches)
        }
        Some((_remove, matches)) => {
            let node = Node::of(matches)?;
            let path = format!("/keys/{}", key_id(&node, matches)?);
            (node.ask(Method::DELETE, &path, None)?, matches)
        }
        None => return list(matches, "/keys", "keys", KEY_COLUMNS),
    };
    show(matches, &answer, None);
    Ok(())
}

/// Lists models, sets limits of one, or takes away what is set for it.
pub(super) fn models(matches: &ArgMatches) -> anyhow::Result<()> {
    let (answer, matches) = match matches.subcommand() {
        Some(("set-limit", matches)) => {
            (Node::of(matches)?.ask(Method::PATCH, &model_path(matches), Some(&limits::wanted(matches)))?, matches)
        }
        Some((_remove, matches)) => (Node::of(matches)?.ask(Method::DELETE, &model_path(matches), None)?, matches),
        None => return list(matches, "/models", "models", MODEL_COLUMNS),
    };
    show(matches, &answer, None);
    Ok(())
}

fn list(matches: &ArgMatches, path: &'static str, field: &'static str, columns: &[(&str, &str)]) -> anyhow::Result<()> {
    let listing = Listing::ask(matches, path, field)?;
    show(matches, &listing.answer, Some(listing.table(columns)));
    Ok(())
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

/// Models are called as they like: what means something in a path is escaped.
fn model_path(matches: &ArgMatches) -> String {
    let escaped = |it: u8| {
        let is_plain = it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'~');
        if is_plain { char::from(it).to_string() } else { format!("%{it:02X}") }
    };
    format!("/models/{}", text(matches, "name").bytes().map(escaped).collect::<String>())
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
        let parsed = matches("smg models set-limit org/m:8b.q --requests none --tokens 7 --streams 2").expect("parses");
        let set = parsed.subcommand_matches("models").and_then(|it| it.subcommand_matches("set-limit")).expect("one");
        assert_eq!(model_path(set), "/models/org%2Fm%3A8b%2Eq");
        let wanted = json!({"limits": [{"what": "requests", "per": "minute", "limit": null}, {"what": "tokens", "per": "minute", "limit": 7}, {"what": "streams", "limit": 2}]});
        assert_eq!(limits::wanted(set), wanted);
        assert!(matches("smg keys set-limit ci").is_err(), "it says nothing");
        assert_eq!(new_key(add).expect("sound"), json!({"name": "ci", "tenant": "team", "role": "admin"}));
        assert!(matches("smg keys update ci").is_err() && matches("smg tenants update t --enable --disable").is_err());
    }
}
