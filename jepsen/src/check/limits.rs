//! Limits, checked directly as bounded counters. Only what was answered 200 counts, so the number is a lower bound of what was admitted.
//!
//! A request was admitted somewhere between its beginning and its end. One that lies in a window as a whole counts for that window (windows are aligned to wall time), which then has at most the limit and 2 %.
//! And whatever the clocks of the nodes say: a stretch of so many windows touches two more, so no stretch has more than those may.

use std::collections::BTreeMap;

use super::Facts;
use super::Findings;
use super::Operation;
use super::by_key;
use super::s;

/// What is promised, in hundredths of the limit.
const MOST: u64 = 102;
/// By how much clocks of one machine, and ours, may be read apart.
const SLACK: u64 = 10_000_000;
/// Stretches that are looked at, in windows.
const STRETCH_MAX: u64 = 60;

/// See the file's header.
pub(super) fn direct(ops: &[Operation], facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    let (mut judged, mut unreached) = (0, Vec::new());
    for (key, ops) in by_key(ops) {
        let Some(limit) = ops.iter().find(|it| it.f == "limit" && it.is_ok()) else { continue };
        let most = limit.told["limit"].as_u64().unwrap_or_default() * MOST / 100;
        let window = limit.told["window_ms"].as_u64().unwrap_or_default() * 1_000_000;
        let admitted: Vec<_> =
            ops.iter().filter(|it| it.f == "ask" && it.is_ok() && limit.is_before(it)).copied().collect();
        if window == 0 || admitted.is_empty() {
            continue;
        }
        judged += 1;
        if !facts.clocks_differ {
            windows(&mut findings, key, &admitted, (most, window), facts);
        }
        stretches(&mut findings, key, &admitted, (most, window), facts);
        if !ops.iter().any(|it| it.f == "ask" && it.error.starts_with("429")) {
            unreached.push(key);
        }
    }
    if judged > 0 && unreached.len() == judged {
        findings.doubt(format!("{unreached:?} were never reached"));
    }
    if judged == 0 {
        findings.doubt("no limit came into force".to_owned());
    }
    findings
}

fn windows(findings: &mut Findings, key: &str, admitted: &[&Operation], (most, window): (u64, u64), facts: &Facts) {
    let Some(origin) = facts.wall_ms.map(|it| it * 1_000_000 % window) else { return };
    let mut counts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for op in admitted {
        let (first, last) = ((origin + op.began).saturating_sub(SLACK) / window, (origin + op.over() + SLACK) / window);
        if first == last {
            counts.entry(first).or_default().push(op.began);
        }
    }
    for (number, times) in counts.iter().filter(|it| it.1.len() as u64 > most) {
        let begins = (number * window).saturating_sub(origin);
        let what = format!(
            "over the limit: {} admitted of {key} within the window at {}, which may have {most}",
            times.len(),
            s(begins)
        );
        findings.add(what, &[begins, begins + window]);
    }
}

fn stretches(findings: &mut Findings, key: &str, admitted: &[&Operation], (most, window): (u64, u64), facts: &Facts) {
    let mut by_end = admitted.to_vec();
    by_end.sort_by_key(|it| it.over());
    let mut worst: Option<(u64, u64, u64, u64)> = None;
    for first in admitted {
        let (begin, mut count) = (first.began, 0);
        let at = by_end.partition_point(|it| it.over() < begin);
        for op in by_end[at..].iter().take_while(|it| it.over() - begin <= STRETCH_MAX * window) {
            if op.began < begin {
                continue;
            }
            count += 1;
            let touched = (op.over() - begin + SLACK) / window + 2 + u64::from(facts.clocks_differ);
            let may = most * touched;
            if count > may && worst.is_none_or(|it| count - may > it.2 - it.3) {
                worst = Some((begin, op.over(), count, may));
            }
        }
    }
    if let Some((begin, end, count, may)) = worst {
        let what =
            format!("over the limit: {count} admitted of {key} from {} to {}, which may have {may}", s(begin), s(end));
        findings.add(what, &[begin, end]);
    }
}
