//! Events of a response: numbered without a gap, one terminal event, and that is the last.

use serde_json::Value;

use super::Findings;
use super::Operation;
use super::at_node;
use super::s;

/// As a history keeps an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) number: Option<u64>,
    pub(super) kind: String,
    pub(super) digest: String,
}

impl Seen {
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.kind.as_str(), "response.completed" | "response.incomplete" | "response.failed")
    }
}

/// The events that an operation was told. An `error` at the end tells the follower why it is told no more, and is none of the response.
pub(super) fn read(events: &Value) -> Vec<Seen> {
    let one = |it: &Value| Seen {
        number: it[0].as_u64(),
        kind: it[1].as_str().unwrap_or_default().to_owned(),
        digest: it[2].as_str().unwrap_or_default().to_owned(),
    };
    let mut events: Vec<_> = events.as_array().map(|it| it.iter().map(one).collect()).unwrap_or_default();
    if events.last().is_some_and(|it| it.kind == "error") {
        events.pop();
    }
    events
}

/// Whether what came from `first` on has no gap, and nothing after the end.
pub(super) fn sound(findings: &mut Findings, key: &str, op: &Operation, events: &[Seen], first: u64) {
    for (event, expected) in events.iter().zip(first..) {
        let kind = match event.number {
            Some(number) if number == expected => continue,
            Some(number) if number > expected => "gap",
            Some(_) | None => "doubled event",
        };
        let what = format!(
            "{kind}: {key} at {} at {}: event {:?} `{}` where {expected} was due",
            at_node(op),
            s(op.began),
            event.number,
            event.kind
        );
        findings.add(what, &[op.began]);
        break; // all that follow would say the same
    }
    let ends = events.iter().filter(|it| it.is_terminal()).count();
    if ends > 1 || (ends == 1 && !events.last().is_some_and(Seen::is_terminal)) {
        let what = format!("doubled end: {key} at {} at {}: events after a terminal one", at_node(op), s(op.began));
        findings.add(what, &[op.began]);
    }
}

/// The same of a stream that came to its end.
pub(super) fn whole(findings: &mut Findings, key: &str, op: &Operation, events: &[Seen], first: u64) {
    sound(findings, key, op, events, first);
    if !events.iter().any(Seen::is_terminal) {
        let what =
            format!("no end: the stream of {key} at {} at {} ended without a terminal event", at_node(op), s(op.began));
        findings.add(what, &[op.began]);
    }
}
