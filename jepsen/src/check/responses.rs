//! Responses, checked directly: what was acknowledged is found until it is deleted, is the same for ever, is not found any more once it is deleted; what is continued is there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Facts;
use super::Findings;
use super::Operation;
use super::at_node;
use super::by_key;
use super::finals;
use super::s;
use super::stream;

/// See the file's header.
pub(super) fn direct(ops: &[Operation], facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    let keys = by_key(ops);
    let mut must_be_read = Vec::new();
    for (key, ops) in &keys {
        found(&mut findings, key, ops);
        gone(&mut findings, key, ops);
        same(&mut findings, key, ops);
        given_up(&mut findings, facts, key, ops);
        for op in ops.iter().filter(|it| it.f == "create") {
            told(&mut findings, key, op);
            if op.is_ok() {
                must_be_read.push(*key);
            }
        }
    }
    chains(&mut findings, ops);
    finals(&mut findings, facts, &must_be_read, ops, "final");
    findings
}

/// Whether it is an answer that says what is there, or that nothing is.
pub(super) fn is_read(op: &Operation) -> bool {
    op.is_ok() && (op.f == "read" || op.f == "final")
}

pub(super) fn is_end(status: &Value) -> bool {
    matches!(status.as_str(), Some("completed" | "incomplete" | "failed" | "cancelled"))
}

/// Nothing was found where something was acknowledged, and nobody had asked to delete it.
fn found(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    let Some(create) = ops.iter().find(|it| it.f == "create" && it.is_ok()) else { return };
    for op in ops.iter().filter(|it| it.is_ok() && it.f != "create" && it.told.is_null() && create.is_before(it)) {
        let by = op.over();
        if !ops.iter().any(|it| it.f == "delete" && it.began != op.began && it.may_be_by(by)) {
            findings.add(
                format!(
                    "lost: {key} was acknowledged at {} and is not found at {} at {}",
                    s(create.over()),
                    at_node(op),
                    s(op.began)
                ),
                &[create.over(), op.began],
            );
        }
    }
}

/// Something was found where something was deleted.
fn gone(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    // One that found nothing deleted nothing, and what nobody knows may be made later.
    let Some(delete) = ops.iter().find(|it| it.f == "delete" && it.is_ok() && !it.told.is_null()) else { return };
    for op in ops.iter().filter(|it| is_read(it) && !it.told.is_null() && delete.is_before(it)) {
        findings.add(
            format!(
                "deleted back: {key} was deleted at {} and is found at {} at {}",
                s(delete.over()),
                at_node(op),
                s(op.began)
            ),
            &[delete.over(), op.began],
        );
    }
}

/// What has ended does not change.
fn same(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    let told = ops.iter().filter(|it| it.is_ok() && (it.f == "create" || is_read(it)) && !it.told.is_null());
    let mut ended: Option<&Operation> = None;
    for op in told {
        match ended {
            _ if !is_end(&op.told["status"]) => {
                if let Some(first) = ended.filter(|it| it.is_before(op)) {
                    let what = format!(
                        "went back: {key} had ended at {} and is {} at {}",
                        s(first.over()),
                        op.told["status"],
                        at_node(op)
                    );
                    findings.add(what, &[first.over(), op.began]);
                }
            }
            None => ended = Some(op),
            Some(first) => {
                let is_same = ["id", "status", "previous", "digest"].iter().all(|it| first.told[it] == op.told[it]);
                if !is_same {
                    findings.add(
                        format!(
                            "content changed: {key} was {} and is {} at {} at {}",
                            brief(&first.told),
                            brief(&op.told),
                            at_node(op),
                            s(op.began)
                        ),
                        &[first.over(), op.began],
                    );
                }
            }
        }
    }
}

/// A node is held for gone when it was not heard for seconds, or was started again. Whoever hurts nodes lets clients work for longer before.
const GONE_AFTER_NS: u64 = 1_000_000_000;

/// Given up for a node that cannot be gone.
pub(super) fn given_up(findings: &mut Findings, facts: &Facts, key: &str, ops: &[&Operation]) {
    let Some(begun) = facts.begun else { return };
    let is_given_up = |it: &Operation| it.told["code"] == "node_lost" || it.told["end"]["code"] == "node_lost";
    for op in ops.iter().filter(|it| it.is_ok() && is_given_up(it) && it.over() < begun + GONE_AFTER_NS) {
        let what = format!("given up: {key} is `node_lost` at {} at {}, and no node was", at_node(op), s(op.over()));
        findings.add(what, &[op.over()]);
    }
}

fn brief(told: &Value) -> String {
    let mut brief = told.clone();
    if let Some(fields) = brief.as_object_mut() {
        fields.remove("events");
    }
    brief.to_string()
}

/// What the creation itself said.
fn told(findings: &mut Findings, key: &str, op: &Operation) {
    if !op.is_ok() {
        return;
    }
    if op.asked.get("previous_id").is_some_and(|it| *it != op.told["previous"]) {
        let what =
            format!("chain: {key} was to continue {} and continues {}", op.asked["previous_id"], op.told["previous"]);
        findings.add(what, &[op.over()]);
    }
    if let Some(events) = op.told.get("events") {
        stream::whole(findings, key, op, &stream::read(events), 0);
    }
}

/// A response that was acknowledged, with all before it, can be continued until somebody asks to delete one of them.
fn chains(findings: &mut Findings, ops: &[Operation]) {
    let creates: BTreeMap<&str, &Operation> =
        ops.iter().filter(|it| it.f == "create").map(|it| (it.key.as_str(), it)).collect();
    for op in creates.values().filter(|it| it.error.contains("previous_response_")) {
        let (mut at, mut is_excused) = (op.asked["previous"].as_str(), false);
        while let Some(key) = at.filter(|_| !is_excused) {
            let create = creates.get(key);
            is_excused = !create.is_some_and(|it| it.is_before(op))
                || ops.iter().any(|it| it.f == "delete" && it.key == key && it.may_be_by(op.over()));
            at = create.and_then(|it| it.asked["previous"].as_str());
        }
        if !is_excused {
            let what = format!(
                "chain: {} continues {}, and is told {} at {}",
                op.key,
                op.asked["previous"],
                op.error,
                at_node(op)
            );
            findings.add(what, &[op.began]);
        }
    }
}
