//! Workers, checked directly. They are what everybody has sooner or later: so it is judged what all have in the end, and what the node of an edit says after it.
//!
//! Each addition has a label of its own. A removal at a node takes away what that node had: a label that it had shown before is gone for good, there at once, everywhere in the end. An addition elsewhere that
//! the node had not heard of is none of that, and may stay. In the same way a change at a node is above all that this node had shown before, whatever its wall clock says.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use super::Facts;
use super::Findings;
use super::Operation;
use super::at_node;
use super::s;

/// Edits of one field further apart than this are in order, whatever node made them.
const APART: u64 = 2_000_000_000;
/// What a worker has before it is changed.
const PRIORITY: u64 = 50;

/// See the file's header.
pub(super) fn direct(ops: &[Operation], facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    let mut last: BTreeMap<usize, &Operation> = BTreeMap::new();
    for op in ops.iter().filter(|it| it.f == "final" && it.is_ok()) {
        last.insert(op.node.unwrap_or_default(), op);
    }
    for node in 0..facts.nodes {
        if !last.contains_key(&node) {
            findings.doubt(format!("node {node} answered no last read"));
        }
    }
    let urls: BTreeSet<&str> = ops.iter().filter(|it| it.f == "add").map(|it| it.key.as_str()).collect();
    if urls.is_empty() {
        findings.doubt("no worker was added: are there spare ones?".to_owned());
    }
    alike(&mut findings, &last);
    labels(&mut findings, ops, facts);
    removed(&mut findings, ops, &last, facts);
    for url in urls {
        let edits: Vec<_> = ops.iter().filter(|it| it.key == url).collect();
        kept(&mut findings, url, ops, &edits, &last);
        changed(&mut findings, url, ops, &edits, &last, facts);
        if !facts.has_forgotten {
            forgotten(&mut findings, url, ops, &edits);
        }
    }
    findings
}

fn is_read(op: &Operation) -> bool {
    op.is_ok() && (op.f == "read" || op.f == "final")
}

/// All nodes say the same in the end.
fn alike(findings: &mut Findings, last: &BTreeMap<usize, &Operation>) {
    let mut all = last.values();
    let Some(first) = all.next() else { return };
    for op in all.filter(|it| it.told != first.told) {
        let what =
            format!("not alike: in the end {} has {} and {} has {}", at_node(first), first.told, at_node(op), op.told);
        findings.add(what, &[first.began, op.began]);
    }
}

/// Labels that nobody gave. Those of other histories are none of ours.
fn labels(findings: &mut Findings, ops: &[Operation], facts: &Facts) {
    let given: BTreeMap<&str, &Operation> =
        ops.iter().filter(|it| it.f == "add").filter_map(|it| Some((it.asked["label"].as_str()?, it))).collect();
    let mut told = BTreeSet::new();
    for op in ops.iter().filter(|it| is_read(it)) {
        for (url, shown) in op.told.as_object().into_iter().flatten() {
            let Some(label) = shown["label"].as_str() else { continue };
            if !facts.tags.iter().any(|tag| label.starts_with(tag.as_str())) {
                continue;
            }
            let is_given = given.get(label).is_some_and(|it| it.key == *url && it.may_be_by(op.over()));
            if !is_given && told.insert(label.to_owned()) {
                findings.add(
                    format!("from nowhere: {url} has label {label} at {} at {}", at_node(op), s(op.began)),
                    &[op.began],
                );
            }
        }
    }
}

/// Labels that are seen after a removal by a node that had them: there at any time, elsewhere in the end. A node whose data were taken away does not have what it once showed, and hears all anew.
fn removed(findings: &mut Findings, ops: &[Operation], last: &BTreeMap<usize, &Operation>, facts: &Facts) {
    for removal in ops.iter().filter(|it| it.f == "remove" && it.is_ok()) {
        let here = |it: &&Operation| it.node == removal.node && it.is_before(removal);
        let mut shown = ops.iter().filter(here).filter_map(|it| match it.f.as_str() {
            "add" if it.key == removal.key => it.told["label"].as_str(),
            "read" | "final" => it.told[&removal.key]["label"].as_str(),
            _ => None,
        });
        let dead: BTreeSet<&str> =
            if facts.has_forgotten { shown.next_back().into_iter().collect() } else { shown.collect() };
        let there = ops.iter().filter(|it| is_read(it) && it.node == removal.node && !facts.has_forgotten);
        let back = there.chain(last.values().copied()).filter(|it| removal.is_before(it)).find_map(|it| {
            let label = it.told[&removal.key]["label"].as_str()?;
            dead.contains(label).then_some((it, label))
        });
        if let Some((op, label)) = back {
            let what = format!(
                "resurrected: {} with label {label} was removed at {} at {} and is at {} at {}",
                removal.key,
                at_node(removal),
                s(removal.over()),
                at_node(op),
                s(op.began)
            );
            findings.add(what, &[removal.over(), op.began]);
        }
    }
}

/// One that was added after all that may have removed it is there in the end.
///
/// Adding what is there changes that one, and a removal elsewhere that the node has not heard of takes it away, with the change. So the node must have heard of all removals: they were its own, or it had shown since, a
/// while after them, that there was none.
fn kept(
    findings: &mut Findings,
    url: &str,
    ops: &[Operation],
    edits: &[&Operation],
    last: &BTreeMap<usize, &Operation>,
) {
    let removals: Vec<_> = edits.iter().filter(|it| it.f == "remove" && it.may_be()).collect();
    let has_heard = |add: &Operation, removal: &Operation| {
        let is_over = |it: &&Operation| removal.over().saturating_add(APART) < it.began && it.over() < add.began;
        let reads = ops.iter().filter(|it| is_read(it) && it.node == add.node);
        removal.over() < add.began
            && (removal.node == add.node || reads.filter(is_over).any(|it| it.told.get(url).is_none()))
    };
    let is_kept = |it: &&&Operation| {
        it.f == "add"
            && it.is_ok()
            && it.told["durable"] != false
            && removals.iter().all(|removal| has_heard(it, removal))
    };
    let Some(add) = edits.iter().find(is_kept) else { return };
    for op in last.values().filter(|it| add.is_before(it) && it.told.get(url).is_none()) {
        let what = format!(
            "lost: {url} was added at {} at {}, not removed since, and is not at {} in the end",
            at_node(add),
            s(add.over()),
            at_node(op)
        );
        findings.add(what, &[add.over(), op.began]);
    }
}

/// What was changed last, and long after all other changes, is what all have, if it is still the same addition: the one that the node of the change had shown before.
fn changed(
    findings: &mut Findings,
    url: &str,
    ops: &[Operation],
    edits: &[&Operation],
    last: &BTreeMap<usize, &Operation>,
    facts: &Facts,
) {
    let changes: Vec<_> = edits.iter().filter(|it| it.f == "change" && it.may_be()).collect();
    let given: BTreeSet<String> = changes.iter().map(|it| it.asked["priority"].to_string()).collect();
    let late = changes.iter().filter(|it| it.is_ok()).max_by_key(|it| it.began);
    let late = late.filter(|late| {
        let mut others = changes.iter().filter(|it| it.began != late.began);
        !facts.clocks_differ && others.all(|it| it.over().saturating_add(APART) < late.began)
    });
    let shown_before = late.and_then(|late| {
        let reads = ops.iter().filter(|it| is_read(it) && it.node == late.node && it.is_before(late));
        reads.max_by_key(|it| it.began).and_then(|it| it.told[url]["label"].as_str())
    });
    for op in last.values() {
        let Some(shown) = op.told.get(url) else { continue };
        let (label, priority) = (shown["label"].as_str(), &shown["priority"]);
        // One of another history, as its label.
        let is_ours = label.is_some_and(|label| facts.tags.iter().any(|tag| label.starts_with(tag.as_str())));
        if is_ours && *priority != PRIORITY && !given.contains(&priority.to_string()) {
            let what = format!("from nowhere: {url} has priority {priority} at {} in the end", at_node(op));
            findings.add(what, &[op.began]);
        }
        let Some(late) = late.filter(|it| it.is_before(op) && it.asked["priority"] != *priority) else { continue };
        if label.is_some() && label == shown_before {
            let what = format!(
                "lost change: priority {} of {url} was acknowledged at {} at {}, and it is {priority} at {}",
                late.asked["priority"],
                at_node(late),
                s(late.over()),
                at_node(op)
            );
            findings.add(what, &[late.over(), op.began]);
        }
    }
}

/// A change that its node does not show: after it, what the node had shown or made before it is there again, of the same addition.
fn forgotten(findings: &mut Findings, url: &str, ops: &[Operation], edits: &[&Operation]) {
    let is_kept = |it: &&&Operation| it.f == "change" && it.is_ok() && it.told["durable"] != false;
    for change in edits.iter().filter(is_kept) {
        let before = |it: &&Operation| it.node == change.node && it.is_before(change);
        let reads: Vec<_> = ops.iter().filter(|it| is_read(it)).filter(before).collect();
        // It was made to what its client had looked for there.
        let looked = reads.iter().filter(|it| it.process == change.process).max_by_key(|it| it.began);
        let Some(label) = looked.and_then(|it| it.told[url]["label"].as_str()) else { continue };
        let of_label = reads.iter().filter(|it| it.told[url]["label"] == label).map(|it| &it.told[url]["priority"]);
        let made = edits.iter().copied().filter(before).filter(|it| it.f == "change").map(|it| &it.asked["priority"]);
        let known: Vec<&Value> = of_label.chain(made).collect();
        let back = ops.iter().filter(|it| is_read(it) && it.node == change.node && change.is_before(it)).find(|it| {
            let shown = &it.told[url];
            shown["label"] == label && known.contains(&&shown["priority"])
        });
        if let Some(op) = back {
            let what = format!(
                "forgotten: priority {} of {url} was acknowledged at {} at {}, and {}, which it had before, is there at {}",
                change.asked["priority"],
                at_node(change),
                s(change.over()),
                op.told[url]["priority"],
                s(op.began)
            );
            findings.add(what, &[change.over(), op.began]);
        }
    }
}
