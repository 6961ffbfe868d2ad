//! Lists that only grow, checked directly. There is one order; each read is a beginning of it; what was acknowledged before a read began is in it; nothing is there twice, or that nobody asked for.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Facts;
use super::Findings;
use super::Operation;
use super::at_node;
use super::by_key;
use super::finals;
use super::s;

/// One read of a list.
struct Read<'a> {
    op: &'a Operation,
    items: Vec<String>,
}

/// See the file's header.
pub(super) fn direct(ops: &[Operation], facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    let keys = by_key(ops);
    for (key, ops) in &keys {
        one(&mut findings, key, ops);
    }
    let made: Vec<_> =
        keys.iter().filter(|(_, ops)| ops.iter().any(|it| it.f == "create" && it.is_ok())).map(|it| *it.0).collect();
    finals(&mut findings, facts, &made, ops, "final");
    findings
}

/// The items that a read was told.
pub(super) fn items(op: &Operation) -> Vec<String> {
    op.told.as_array().map(|it| it.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// Each item once, at its first place, of the longest read.
pub(super) fn order<'a>(reads: impl Iterator<Item = &'a Operation>) -> Vec<String> {
    let firsts = |op: &Operation| {
        let mut seen = BTreeSet::new();
        items(op).into_iter().filter(|it| seen.insert(it.clone())).collect::<Vec<_>>()
    };
    reads.map(firsts).max_by_key(Vec::len).unwrap_or_default()
}

pub(super) fn is_read(op: &&&Operation) -> bool {
    op.is_ok() && (op.f == "read" || op.f == "final")
}

fn one(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    let appends: BTreeMap<String, &Operation> =
        ops.iter().filter(|it| it.f == "append").map(|it| (it.asked.to_string(), *it)).collect();
    let reads: Vec<Read<'_>> = ops.iter().filter(is_read).map(|op| Read { op, items: items(op) }).collect();
    let order = order(reads.iter().map(|it| it.op));
    strangers(findings, key, &appends, &reads);
    missing(findings, key, &appends, &reads);
    shapes(findings, key, &reads, &order);
    shrinking(findings, key, &reads);
    sequence(findings, key, &appends, &order);
    forgotten(findings, key, ops);
}

/// Items that are there twice, that nobody asked for, that failed, or that were asked for afterwards.
fn strangers(findings: &mut Findings, key: &str, appends: &BTreeMap<String, &Operation>, reads: &[Read<'_>]) {
    let mut told = BTreeSet::new();
    for Read { op, items } in reads {
        let mut seen = BTreeSet::new();
        for item in items {
            let what = match appends.get(item) {
                _ if !seen.insert(item) => "twice: it is in one read two times",
                None => "from nowhere: nobody added it",
                Some(it) if !it.may_be() => "from nowhere: its client was told that it was not added",
                Some(it) if op.ended.is_some_and(|ended| ended < it.began) => {
                    "from nowhere: it was read before it was added"
                }
                Some(_) => continue,
            };
            if told.insert((item, what)) {
                findings
                    .add(format!("{what}: {item} of {key}, read at {} at {}", at_node(op), s(op.began)), &[op.began]);
            }
        }
    }
}

/// Acknowledged items that are not in a read that began later.
fn missing(findings: &mut Findings, key: &str, appends: &BTreeMap<String, &Operation>, reads: &[Read<'_>]) {
    for (item, append) in appends {
        let after: Vec<_> = reads.iter().filter(|it| append.is_before(it.op)).collect();
        let lacking: Vec<_> = after.iter().filter(|it| !it.items.contains(item)).collect();
        let (Some(first), Some(last)) = (lacking.first(), after.last()) else { continue };
        let kind = if last.items.contains(item) { "stale read" } else { "lost" };
        findings.add(
            format!(
                "{kind}: {item} of {key} was acknowledged at {} by {} and is missing in {} of {} later reads, first at {} at {}",
                s(append.over()),
                at_node(append),
                lacking.len(),
                after.len(),
                at_node(first.op),
                s(first.op.began)
            ),
            &[append.over(), first.op.began],
        );
    }
}

/// Reads that are no beginning of the order.
fn shapes(findings: &mut Findings, key: &str, reads: &[Read<'_>], order: &[String]) {
    let place: BTreeMap<&String, usize> = order.iter().zip(0..).collect();
    for Read { op, items } in reads {
        let mut seen = BTreeSet::new();
        let firsts: Vec<_> = items.iter().filter(|it| seen.insert(*it)).collect();
        if firsts.iter().zip(order).all(|(one, other)| *one == other) {
            continue;
        }
        let places: Vec<_> = firsts.iter().map(|it| place.get(*it)).collect();
        let is_sorted = places.iter().all(Option::is_some) && places.windows(2).all(|it| it[0] < it[1]);
        let kind = if is_sorted { "hole" } else { "order changed" };
        let at = firsts.iter().zip(order).position(|(one, other)| *one != other).unwrap_or_default();
        findings.add(
            format!(
                "{kind}: {key} read at {} at {} has {} at place {at}, where the longest read has {}",
                at_node(op),
                s(op.began),
                firsts[at],
                order[at]
            ),
            &[op.began],
        );
    }
}

/// Reads that are shorter than one that ended before they began.
fn shrinking(findings: &mut Findings, key: &str, reads: &[Read<'_>]) {
    for read in reads {
        let before = reads.iter().filter(|it| it.op.is_before(read.op)).max_by_key(|it| it.items.len());
        let Some(before) = before.filter(|it| it.items.len() > read.items.len()) else { continue };
        let whose = if before.op.process == read.op.process { "the same client" } else { "another client" };
        findings.add(
            format!(
                "stale read: {key} had {} items at {} at {}, and {whose} had read {} at {} before it began",
                read.items.len(),
                at_node(read.op),
                s(read.op.began),
                before.items.len(),
                at_node(before.op)
            ),
            &[before.op.over(), read.op.began],
        );
    }
}

/// Items that stand before others that were acknowledged before they were asked for.
fn sequence(findings: &mut Findings, key: &str, appends: &BTreeMap<String, &Operation>, order: &[String]) {
    let there: Vec<_> = order.iter().filter_map(|it| Some((it, *appends.get(it)?))).collect();
    // The earliest end of all that stand further behind.
    let mut behind: Option<(&String, &Operation)> = None;
    for (item, append) in there.iter().rev() {
        if let Some((later, it)) = behind.filter(|it| it.1.is_before(append)) {
            findings.add(
                format!(
                    "order: {item} of {key} stands before {later}, which was acknowledged before {item} was asked for"
                ),
                &[it.over(), append.began],
            );
        }
        if append.is_ok() && behind.is_none_or(|it| append.over() < it.1.over()) {
            behind = Some((item, append));
        }
    }
}

/// Lists that are not there any more, and items that were there already though they were sent once.
fn forgotten(findings: &mut Findings, key: &str, ops: &[&Operation]) {
    let made = ops.iter().find(|it| it.f == "create" && it.is_ok());
    for op in ops {
        if op.error.starts_with("404 not_found") && made.is_some_and(|it| it.is_before(op)) {
            let what =
                format!("lost: {key} was made, and is not found by {} at {} at {}", op.f, at_node(op), s(op.began));
            findings.add(what, &[op.began]);
        }
        if op.f == "append" && op.error.starts_with("409 already_exists") {
            let what = format!(
                "twice: {} of {key} was sent once, and {} says that it was there already",
                op.asked,
                at_node(op)
            );
            findings.add(what, &[op.began]);
        }
    }
}
