//! `smg history`: how history is, all of it as a file and back, and what a person does to a stopped node's.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context as _;
use clap::Arg;
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
use super::mesh::store_of;
use super::say;
use crate::control;
use crate::history::export;
use crate::history::export::Row;
use crate::history::group;
use crate::history::machine::verify;

/// Reading all of history.
const ALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(3600);

const STATUS: &[(&str, &str)] = &[("WHAT", "what"), ("IS", "is")];

pub(super) fn command() -> Command {
    let file = |help| required("file", help);
    let data_dir = Arg::new("data-dir").long("data-dir").required(true).help("The data directory of a stopped node");
    Command::new("history")
        .about("Responses and conversations: how they are kept, backup and restore")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(asking(Command::new("status")).about("Where they are kept, who leads, how far the other nodes are"))
        .subcommand(
            asking(Command::new("verify"))
                .about("Read every row and say what does not fit: of a running node, or of an export")
                .arg(Arg::new("file").value_name("FILE").help("An export; without one the node is asked")),
        )
        .subcommand(asking(Command::new("snapshot")).about("Let the node go of the log that is not needed any more"))
        .subcommand(
            asking(Command::new("export")).about("All of it, as of one moment, to a file").arg(file("Where to; must not be there")),
        )
        .subcommand(
            asking(Command::new("import"))
                .about("Put an export in, where nothing is kept yet, whatever backend it is from")
                .arg(file("The export")),
        )
        .subcommand(
            Command::new("recover")
                .about("Let a stopped node go on alone with what its disk has of history: most voters are lost for good. `smg mesh bootstrap --force-new-group` does it, too")
                .arg(data_dir),
        )
}

/// Does what was asked.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    match matches.subcommand() {
        Some(("status", matches)) => status(matches),
        Some(("verify", matches)) => verify(matches),
        Some(("snapshot", matches)) => {
            let answer = Node::of(matches)?.ask(Method::POST, "/cluster/history/snapshot", None)?;
            show(matches, &answer, None);
            Ok(())
        }
        Some(("export", matches)) => export_to(matches),
        Some(("import", matches)) => import(matches),
        Some(("recover", matches)) => recover(Path::new(matches.get_one::<String>("data-dir").expect("required"))),
        Some((name, _)) => unreachable!("every subcommand is here: {name}"),
        None => unreachable!("one is required"),
    }
}

fn status(matches: &ArgMatches) -> anyhow::Result<()> {
    let answer = Node::of(matches)?.ask(Method::GET, "/cluster/history", None)?;
    let mut rows = vec![
        json!({"what": "backend", "is": answer["backend"]}),
        json!({"what": "commands", "is": answer["commands"]}),
    ];
    let words = |it: &Value| match it {
        Value::Array(all) => Value::from(all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        Value::Object(all) => {
            Value::from(all.iter().map(|it| format!("{} {}", it.0, it.1)).collect::<Vec<_>>().join(", "))
        }
        other => other.clone(),
    };
    for (name, value) in answer["group"].as_object().into_iter().flatten() {
        rows.push(json!({"what": name, "is": words(value)}));
    }
    show(matches, &answer, Some(table(STATUS, &rows)));
    Ok(())
}

fn verify(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some(file) = matches.get_one::<String>("file") else {
        let answer = Node::of(matches)?.ask_within(ALL_LIMIT, Method::GET, "/cluster/history/verify", None)?;
        show(matches, &answer, None);
        anyhow::ensure!(answer["sound"] == true, "{} rows do not fit", answer["faults"]);
        return Ok(());
    };
    let mut rows = std::collections::BTreeMap::new();
    let head = each_frame(file, |frame, _| {
        rows.extend(frame.into_iter().map(|it| (it.0.into_vec(), it.1.into_vec())));
        Ok(())
    })?;
    let report = verify::verify(&rows);
    say(&format!(
        "made from `{}`: {} rows, {} responses, {} conversations, {} bytes, {} faults\n",
        head.backend,
        report.rows,
        report.total.responses,
        report.total.conversations,
        report.total.bytes,
        report.faults
    ));
    report.told.iter().for_each(|it| say(&format!("{it}\n")));
    anyhow::ensure!(report.faults == 0, "{} rows do not fit", report.faults);
    Ok(())
}

fn export_to(matches: &ArgMatches) -> anyhow::Result<()> {
    let path = matches.get_one::<String>("file").expect("required");
    let part = format!("{path}.part");
    anyhow::ensure!(!Path::new(path).exists(), "`{path}` is there already");
    let mut file = File::create(&part).with_context(|| format!("cannot write `{part}`"))?;
    Node::of(matches)?.download(ALL_LIMIT, "/cluster/history/export", &mut file)?;
    file.sync_all()?;
    // Read once before it has its name: what is there under it is whole.
    let mut rows = 0;
    let head = each_frame(&part, |frame, _| {
        rows += frame.len();
        Ok(())
    })?;
    std::fs::rename(&part, path)?;
    say(&format!("{rows} rows of `{}`, {} commands, in {path}\n", head.backend, head.commands));
    Ok(())
}

fn import(matches: &ArgMatches) -> anyhow::Result<()> {
    let (path, node) = (matches.get_one::<String>("file").expect("required"), Node::of(matches)?);
    // Read to the end before the first row goes: half an import takes nothing else.
    each_frame(path, |_, _| Ok(()))?;
    let mut at = 0;
    each_frame(path, |rows, is_last| {
        let query = format!("/cluster/history/import?at={at}&last={is_last}");
        at += rows.len();
        node.upload(ALL_LIMIT, &query, export::encode_rows(&rows)?)?;
        Ok(())
    })?;
    say(&format!("{at} rows are in\n"));
    Ok(())
}

/// Reads an export; `take` hears of each frame's rows and whether they are the last.
fn each_frame(path: &str, mut take: impl FnMut(Vec<Row>, bool) -> anyhow::Result<()>) -> anyhow::Result<export::Head> {
    let file = File::open(path).with_context(|| format!("cannot read `{path}`"))?;
    let mut from = BufReader::new(file);
    let head = export::read_head(&mut from)?;
    let mut rows = export::read_rows(&mut from)?.unwrap_or_default();
    while !rows.is_empty() {
        let next = export::read_rows(&mut from)?.unwrap_or_default();
        take(std::mem::take(&mut rows), next.is_empty())?;
        rows = next;
    }
    Ok(head)
}

fn recover(path: &Path) -> anyhow::Result<()> {
    let store = store_of(path)?;
    let me = control::whose(&store)?.context("it has had to do with no cluster: start the node")?;
    anyhow::ensure!(group::recover(&store, me)?, "it has no history: start the node");
    say("its history goes on with this node alone, with what its disk has; what only the lost nodes had is gone\n");
    Ok(())
}
