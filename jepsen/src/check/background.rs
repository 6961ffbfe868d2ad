//! Responses in the background, checked directly: all followers see the same events; each comes to one end, and stays there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Facts;
use super::Findings;
use super::Operation;
use super::at_node;
use super::by_key;
use super::finals;
use super::responses::given_up;
use super::responses::is_end;
use super::s;
use super::stream;
use super::stream::Seen;

/// See the file's header.
pub(super) fn direct(ops: &[Operation], facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    let mut accepted = Vec::new();
    let is_free = ops.iter().any(|it| it.f == "free" && it.is_ok());
    for (key, ops) in by_key(ops) {
        follows(&mut findings, key, &ops);
        statuses(&mut findings, key, &ops);
        texts(&mut findings, key, &ops);
        given_up(&mut findings, facts, key, &ops);
        if ops.iter().any(|it| it.f == "create" && it.is_ok()) {
            accepted.push(key);
            stuck(&mut findings, key, &ops, is_free);
        }
    }
    finals(&mut findings, facts, &accepted, ops, "final");
    finals(&mut findings, facts, &accepted, ops, "final_events");
    findings
}

fn follows(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    let mut known: BTreeMap<u64, (Seen, &Operation)> = BTreeMap::new();
    for op in ops.iter().filter(|it| it.is_ok() && it.f.starts_with(['f']) && it.told.get("events").is_some()) {
        let after = op.told["after"].as_u64();
        let first = after.map_or(0, |it| it + 1);
        let is_cut = op.told["events"].as_array().and_then(|it| it.last()).is_some_and(|it| it[1] == "error");
        let events = stream::read(&op.told["events"]);
        // One that asks for what comes after the end gets nothing, and that is all there is.
        if op.told["whole"] == true && !is_cut && (after.is_none() || !events.is_empty()) {
            stream::whole(findings, key, op, &events, first);
        } else {
            stream::sound(findings, key, op, &events, first);
        }
        for event in events {
            let Some(number) = event.number else { continue };
            match known.get(&number) {
                Some((other, by)) if *other != event => {
                    let what = format!(
                        "told differently: event {number} of {key} is `{}` at {} and `{}` at {}",
                        other.kind,
                        at_node(by),
                        event.kind,
                        at_node(op)
                    );
                    findings.add(what, &[by.began, op.began]);
                }
                Some(_) => {}
                None => drop(known.insert(number, (event, op))),
            }
        }
    }
    let ends = known.iter().find(|it| it.1.0.is_terminal()).zip(known.last_key_value());
    if let Some(((end, (_, by)), (last, (event, op)))) = ends.filter(|it| it.1.0 > it.0.0) {
        let what =
            format!("after the end: {key} ended with event {end}, and {} told `{}` as {last}", at_node(op), event.kind);
        findings.add(what, &[by.began, op.began]);
    }
}

/// Whoever follows to the end has read what is kept, unless another ended it while its maker still wrote.
fn texts(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    for op in ops.iter().filter(|it| it.is_ok() && it.told["end"]["status"] != "failed") {
        let told = &op.told["texts"];
        if !told.is_null() && told[0] != told[1] {
            let what = format!(
                "another text: {key} at {} at {} ended as {} with another text than its events had",
                at_node(op),
                s(op.began),
                op.told["end"]["status"]
            );
            findings.add(what, &[op.began]);
        }
    }
}

/// What an operation says of the status, if anything: its own answer, or a terminal event.
fn status(op: &Operation) -> Option<Value> {
    if !op.is_ok() {
        return None;
    }
    match op.f.as_str() {
        "read" | "final" | "cancel" => op.told.get("status").cloned(),
        _ if op.told["end"].is_object() => Some(op.told["end"]["status"].clone()),
        _ => {
            let last = stream::read(op.told.get("events")?).pop().filter(Seen::is_terminal)?;
            // Of `response.incomplete` it is not known here which it is.
            (last.kind != "response.incomplete").then(|| Value::from(last.kind.trim_start_matches("response.")))
        }
    }
}

fn statuses(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    let created = ops.iter().find(|it| it.f == "create" && it.is_ok());
    let mut end: Option<(&Operation, Value)> = None;
    let mut digest: Option<(&Operation, &Value)> = None;
    for op in ops {
        let finds_nothing = op.is_ok() && matches!(op.f.as_str(), "read" | "final") && op.told.is_null();
        let is_lost = finds_nothing || op.error.starts_with("404 not_found");
        if is_lost && created.is_some_and(|it| it.is_before(op)) {
            findings.add(
                format!("lost: {key} was accepted, and is not found at {} at {}", at_node(op), s(op.began)),
                &[op.began],
            );
        }
        let Some(status) = status(op) else { continue };
        if is_end(&status) {
            match &end {
                Some((first, other)) if *other != status => {
                    let what = format!(
                        "went back: {key} ended as {other} at {} and as {status} at {}",
                        at_node(first),
                        at_node(op)
                    );
                    findings.add(what, &[first.over(), op.began]);
                }
                // The earliest end that was told.
                Some((first, _)) if first.over() <= op.over() => {}
                Some(_) | None => end = Some((op, status)),
            }
            let told = op.told.get("digest").or_else(|| op.told.get("end")?.get("digest"));
            match (digest, told) {
                (Some((first, other)), Some(told)) if other != told => {
                    let what = format!(
                        "content changed: {key} is another at {} at {} than at {}",
                        at_node(op),
                        s(op.began),
                        at_node(first)
                    );
                    findings.add(what, &[first.over(), op.began]);
                }
                (None, Some(told)) => digest = Some((op, told)),
                _ => {}
            }
        }
    }
    let Some((first, ended)) = end else { return };
    for op in ops.iter().filter(|it| first.is_before(it)) {
        if status(op).is_some_and(|it| !is_end(&it)) {
            let what = format!(
                "went back: {key} had ended as {ended} at {} and is {} at {} at {}",
                s(first.over()),
                op.told["status"],
                at_node(op),
                s(op.began)
            );
            findings.add(what, &[first.over(), op.began]);
        }
    }
}

/// One that had not ended when the last reads were over. One that a limit holds back may wait until nothing does.
fn stuck(findings: &mut Findings, key: &str, ops: &[&Operation], is_free: bool) {
    let waits = !is_free && ops.iter().any(|it| it.asked["waits"] == true);
    let mut last: BTreeMap<Option<usize>, &Operation> = BTreeMap::new();
    for op in ops.iter().filter(|it| it.f == "final" && it.is_ok()) {
        last.insert(op.node, op);
    }
    let is_open = |status: &Value| !(is_end(status) || waits && status == "queued");
    for op in last.values().filter(|it| it.told.get("status").is_some_and(is_open)) {
        let what = format!(
            "stuck: {key} is {} at {} at {}, after all nodes were whole",
            op.told["status"],
            at_node(op),
            s(op.began)
        );
        findings.add(what, &[op.began]);
    }
}
