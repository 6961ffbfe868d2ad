//! Lists once more, by somebody else's reading of Elle: operations as transactions of one step, which must be strictly serializable.

use std::fmt::Write as _;

use adya::History;
use adya::Opts;
use adya::Valid;

use serde_json::json;

use super::Findings;
use super::Operation;
use crate::history::Kind;

/// Of all lists at once.
pub(super) fn lists(ops: &[Operation]) -> Findings {
    let mut findings = Findings::default();
    let history = match History::from_json(&lines(ops)) {
        Ok(history) => history,
        Err(error) => {
            findings.doubt(format!("adya cannot read it: {error}"));
            return findings;
        }
    };
    let report = adya::check(&history, adya::Workload::ListAppend, &Opts::default());
    let times: Vec<u64> = in_order(ops).into_iter().map(|it| it.0).collect();
    for (kind, anomalies) in &report.anomalies {
        if report.valid == Valid::Unknown {
            findings.doubt(format!("adya: {kind}"));
            continue;
        }
        for it in anomalies {
            let at: Vec<u64> = it.ops.iter().filter_map(|it| times.get(*it as usize).copied()).collect();
            findings.add(format!("{kind}: {}", it.explanation.trim()), &at);
        }
    }
    findings
}

/// Beginnings and ends of what is no creation, with their times. What has no end is ended as unknown after all else.
fn in_order(ops: &[Operation]) -> Vec<(u64, bool, &Operation)> {
    let mut all = Vec::new();
    for op in ops.iter().filter(|it| it.f != "create") {
        all.push((op.began, false, op));
        all.push((op.ended.unwrap_or(u64::MAX), true, op));
    }
    all.sort_by_key(|it| (it.0, it.1));
    all
}

fn lines(ops: &[Operation]) -> String {
    let mut text = String::new();
    for (index, (_, is_end, op)) in in_order(ops).into_iter().enumerate() {
        let kind = match op.kind {
            _ if !is_end => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info | Kind::Invoke => "info",
        };
        let step = match op.f.as_str() {
            "append" => json!(["append", op.key, op.asked]),
            _ if is_end && op.is_ok() => json!(["r", op.key, op.told]),
            _ => json!(["r", op.key, null]),
        };
        let line = json!({"type": kind, "f": "txn", "process": op.process, "value": [step], "index": index});
        // A String takes everything.
        let _ = writeln!(text, "{line}");
    }
    text
}
