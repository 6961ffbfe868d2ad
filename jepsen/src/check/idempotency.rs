//! Requests with a key, checked directly: all answers name the same thing, and it is there once.

use std::collections::BTreeMap;

use super::Facts;
use super::Findings;
use super::Operation;
use super::at_node;
use super::by_key;
use super::finals;
use super::s;

/// See the file's header.
pub(super) fn direct(ops: &[Operation], facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    let keys = by_key(ops);
    let mut conversations = Vec::new();
    for (key, ops) in &keys {
        let asks: Vec<_> = ops.iter().filter(|it| it.f == "ask").copied().collect();
        answers(&mut findings, key, &asks);
        if asks.iter().any(|it| it.is_ok() && it.asked["what"] == "conversation") {
            conversations.push(*key);
        }
    }
    for op in ops.iter().filter(|it| it.f == "final" && it.is_ok()) {
        counts(&mut findings, op, &keys);
    }
    // One that was asked for and never answered to us is read by nobody.
    conversations.retain(|key| keys.values().flatten().any(|it| it.asked["in"] == **key));
    finals(&mut findings, facts, &conversations, ops, "final");
    findings
}

fn answers(findings: &mut Findings, key: &str, asks: &[&Operation]) {
    // What was told with an unknown end has its name, too.
    let mut named = asks.iter().filter(|it| it.may_be() && it.told["id"].is_string());
    if let Some(first) = named.next() {
        for op in named.filter(|it| it.told["id"] != first.told["id"]) {
            let what = format!(
                "two answers: {key} is {} at {} and {} at {} at {}",
                first.told["id"],
                at_node(first),
                op.told["id"],
                at_node(op),
                s(op.began)
            );
            findings.add(what, &[first.over(), op.over()]);
        }
    }
    for op in asks.iter().filter(|it| it.is_ok() && !it.told["id"].is_string()) {
        let what = format!("lost: {key} was done at {}, and nothing of it is there at {}", at_node(op), s(op.over()));
        findings.add(what, &[op.over()]);
    }
    for op in asks.iter().filter(|it| it.error.contains("idempotency_key_reused")) {
        let what =
            format!("two requests: {key} is the same each time, and another to {} at {}", at_node(op), s(op.began));
        findings.add(what, &[op.began]);
    }
}

/// How often each is in a conversation.
fn counts(findings: &mut Findings, read: &Operation, keys: &BTreeMap<&str, Vec<&Operation>>) {
    let mut texts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in read.told.as_array().into_iter().flatten().filter_map(|it| it.as_str()) {
        *texts.entry(text).or_default() += 1;
    }
    for (text, times) in &texts {
        let asks = keys.get(text).filter(|asks| asks.iter().any(|it| it.asked["in"] == read.key.as_str()));
        let what = match asks {
            None => "from nowhere",
            Some(asks) if asks.iter().all(|it| !it.may_be() && it.asked["what"] == "items") => "from nowhere",
            Some(_) if *times > 1 => "twice",
            Some(_) => continue,
        };
        findings.add(
            format!("{what}: {text} is {times} times in {} at {} at {}", read.key, at_node(read), s(read.began)),
            &[read.began],
        );
    }
    for (key, asks) in keys.iter().filter(|it| it.1.iter().any(|ask| ask.asked["in"] == read.key.as_str())) {
        // What was asked joins the conversation with a response that is complete.
        let done = asks
            .iter()
            .find(|it| it.is_before(read) && (it.asked["what"] == "items" || it.told["status"] == "completed"));
        if let Some(done) = done.filter(|_| !texts.contains_key(key)) {
            let what = format!(
                "lost: {key} was done at {} and is not in {} at {} at {}",
                at_node(done),
                read.key,
                at_node(read),
                s(read.began)
            );
            findings.add(what, &[done.over(), read.began]);
        }
    }
}
