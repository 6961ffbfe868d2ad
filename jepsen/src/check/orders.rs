//! What the search for an order is asked: of each list, and of each response.

use std::collections::BTreeMap;

use super::Findings;
use super::Operation;
use super::at_node;
use super::by_key;
use super::linear::Call;
use super::linear::Found;
use super::linear::Model;
use super::linear::search;
use super::lists;
use super::responses;
use super::s;

/// Steps of a search. A list of some hundred operations takes some thousand; what takes more is a history with too much of which nobody knows.
const BUDGET: u64 = 300_000;

/// A list that only grows. All reads are beginnings of the longest one (what is not can be in no order), so what is there is how far along that one is.
pub(super) struct Growing {
    order: Vec<String>,
}

/// What is done to a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ListOp {
    /// The item that comes at this place of the order. `None`: it is in no read, so it comes after all of them.
    Append(Option<usize>),
    /// So many were read. `None`: they are no beginning of the order.
    Read(Option<usize>),
}

impl Model for Growing {
    type Op = ListOp;
    /// So many are there; whether one is that no read has.
    type State = (usize, bool);

    fn initial(&self) -> Self::State {
        (0, false)
    }

    fn step(&self, (length, is_past): &Self::State, op: &ListOp) -> Option<Self::State> {
        match op {
            ListOp::Append(Some(place)) => (!is_past && place == length).then_some((length + 1, false)),
            ListOp::Append(None) => (*length == self.order.len()).then_some((*length, true)),
            ListOp::Read(read) => (!is_past && *read == Some(*length)).then_some((*length, false)),
        }
    }
}

impl Growing {
    /// Its operations, and the model for them.
    pub(super) fn of<'a>(ops: &[&'a Operation]) -> (Self, Vec<Call<ListOp>>, Vec<&'a Operation>) {
        let order = lists::order(ops.iter().filter(lists::is_read).copied());
        let place: BTreeMap<&String, usize> = order.iter().zip(0..).collect();
        let (mut calls, mut whose) = (Vec::new(), Vec::new());
        for op in ops {
            let what = match op.f.as_str() {
                "append" if op.may_be() => ListOp::Append(place.get(&op.asked.to_string()).copied()),
                "read" | "final" if op.is_ok() => {
                    let items = lists::items(op);
                    ListOp::Read(order.starts_with(&items).then_some(items.len()))
                }
                _ => continue,
            };
            calls.push(Call { began: op.began, ended: op.ended.filter(|_| op.is_ok()), op: what });
            whose.push(*op);
        }
        (Self { order }, calls, whose)
    }
}

/// A response: nothing, then there, then gone.
pub(super) struct Record;

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RecordOp {
    /// It is made.
    Create,
    /// It is deleted, and was there.
    Delete,
    /// It is there, or not.
    Read(bool),
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Not made yet.
    Nothing,
    /// Made.
    There,
    /// Deleted.
    Gone,
}

impl Model for Record {
    type Op = RecordOp;
    type State = Stage;

    fn initial(&self) -> Stage {
        Stage::Nothing
    }

    fn step(&self, stage: &Stage, op: &RecordOp) -> Option<Stage> {
        match (stage, op) {
            (Stage::Nothing, RecordOp::Create) => Some(Stage::There),
            (Stage::There, RecordOp::Delete) => Some(Stage::Gone),
            (Stage::There, RecordOp::Read(true)) | (Stage::Nothing | Stage::Gone, RecordOp::Read(false)) => {
                Some(*stage)
            }
            _ => None,
        }
    }
}

/// Of each list.
pub(super) fn lists(ops: &[Operation]) -> Findings {
    let mut findings = Findings::default();
    for (key, ops) in by_key(ops) {
        let (model, calls, whose) = Growing::of(&ops);
        judge(&mut findings, key, search(&model, &calls, BUDGET), &whose);
    }
    findings
}

/// Of each response.
pub(super) fn responses(ops: &[Operation]) -> Findings {
    let mut findings = Findings::default();
    for (key, ops) in by_key(ops) {
        let (mut calls, mut whose) = (Vec::new(), Vec::new());
        for op in ops {
            let what = match op.f.as_str() {
                "create" if op.may_be() => RecordOp::Create,
                "delete" if op.is_ok() && op.told.is_null() => RecordOp::Read(false),
                "delete" if op.may_be() => RecordOp::Delete,
                _ if responses::is_read(op) => RecordOp::Read(!op.told.is_null()),
                _ => continue,
            };
            calls.push(Call { began: op.began, ended: op.ended.filter(|_| op.is_ok()), op: what });
            whose.push(op);
        }
        judge(&mut findings, key, search(&Record, &calls, BUDGET), &whose);
    }
    findings
}

fn judge(findings: &mut Findings, key: &str, found: Found, whose: &[&Operation]) {
    match found {
        Found::Order => {}
        Found::TooMuch => findings.doubt(format!("no order of {key} was found, and none excluded, in {BUDGET} steps")),
        Found::None(at) => {
            let op = whose[at];
            let what = format!("no order: {key} has none in which {} by {} at {} fits", op.f, at_node(op), s(op.began));
            findings.add(what, &[op.began]);
        }
    }
}
