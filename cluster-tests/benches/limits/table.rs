//! The table of a file of windows.

use std::collections::BTreeMap;
use std::path::Path;

/// Windows of which tokens keep their promise.
const TOGETHER: usize = 10;

/// A row's windows, by number.
type Windows = BTreeMap<u64, Window>;

struct Window {
    offered: f64,
    admitted: f64,
    late_ms: u64,
}

/// Prints it.
pub(crate) fn print(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut rows: BTreeMap<(String, String, u64, u64, String), Windows> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [way, kind, window, units, skew, number, offered, admitted, _refused, late] = fields[..] else { continue };
        let number_of = |it: &str| it.parse().unwrap_or(f64::NAN);
        let (window, units) = (number_of(window) as u64, number_of(units) as u64);
        let row = (way.to_owned(), kind.to_owned(), window, units, skew.to_owned());
        let window =
            Window { offered: number_of(offered), admitted: number_of(admitted), late_ms: number_of(late) as u64 };
        rows.entry(row).or_default().insert(number_of(number) as u64, window);
    }
    println!(
        "| way | kind | window | L | demand | windows | max | mean | min | of ten: max | min | at least L wanted in | of those below 0.95 | load late by at most |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for ((way, kind, window, units, skew), windows) in rows {
        let units = units as f64;
        let part = |it: &Window| it.admitted / units;
        let wanted: Vec<&Window> = windows.values().filter(|it| it.offered >= units).collect();
        let most = windows.values().map(part).fold(f64::NAN, f64::max);
        let mean = wanted.iter().map(|it| part(it)).sum::<f64>() / wanted.len() as f64;
        let least = wanted.iter().map(|it| part(it)).fold(f64::NAN, f64::min);
        // Of whole units: nineteen of twenty are enough.
        let below = wanted.iter().filter(|it| it.admitted < (units * 0.95).floor()).count();
        let (ten_most, ten_least) = together(&windows, units);
        let late = windows.values().map(|it| it.late_ms).max().unwrap_or(0);
        println!(
            "| {way} | {kind} | {window} s | {units} | {skew} | {} | {most:.3} | {mean:.3} | {least:.3} | {ten_most:.3} | {ten_least:.3} | {} | {below} | {late} ms |",
            windows.len(),
            wanted.len()
        );
    }
}

/// Max and min of what was admitted in ten windows that follow each other, over ten times the limit; min where enough was wanted in each.
fn together(windows: &Windows, units: f64) -> (f64, f64) {
    let (mut most, mut least) = (f64::NAN, f64::NAN);
    for first in windows.keys() {
        let ten: Vec<&Window> = (*first..).map_while(|it| windows.get(&it)).take(TOGETHER).collect();
        if ten.len() < TOGETHER {
            continue;
        }
        let part = ten.iter().map(|it| it.admitted).sum::<f64>() / units / TOGETHER as f64;
        most = most.max(part);
        if ten.iter().all(|it| it.offered >= units) {
            least = least.min(part);
        }
    }
    (most, least)
}
