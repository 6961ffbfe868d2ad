//! The picture of a distribution: how many rounds took how long, small enough for a cell of a table.

use super::svg::Axis;
use super::svg::Svg;
use super::svg::decades;
use super::svg::time;
use super::tally::Spread;

const SIZE: (f64, f64) = (196.0, 46.0);
/// Where bars stand.
const FLOOR: f64 = 30.0;
const BARS: usize = 32;

/// The picture; on the same scale for all that are compared.
#[must_use]
pub fn picture(what: &str, spread: &Spread, scale: (f64, f64)) -> String {
    let marks = decades(scale.0, scale.1);
    let ends = (marks[0], marks[marks.len() - 1]);
    let x = Axis { values: ends, pixels: (18.0, SIZE.0 - 18.0), is_log: true };
    let bar = (x.pixels.1 - x.pixels.0) / BARS as f64;
    let mut counts = [0_usize; BARS];
    for value in &spread.values {
        let at = ((x.at(*value) - x.pixels.0) / bar) as usize;
        counts[at.min(BARS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or_default().max(1) as f64;
    let mut svg = Svg::default();
    for mark in &marks {
        let at = x.at(*mark);
        svg.line("grid", (at, 2.0), (at, FLOOR));
        svg.words("tick", (at, SIZE.1 - 3.0), "middle", &time(*mark).replace(' ', ""));
    }
    svg.line("axis", (x.pixels.0, FLOOR), (x.pixels.1, FLOOR));
    for (n, count) in counts.iter().enumerate().filter(|it| *it.1 > 0) {
        let left = x.pixels.0 + n as f64 * bar;
        // One round among thousands is still there to be seen.
        let height = (*count as f64 / most * (FLOOR - 3.0)).max(2.0);
        svg.rect("bar", (left, left + bar - 0.8), (FLOOR - height, FLOOR));
    }
    let title = format!(
        "{what} of {} rounds: median {}, 99 of 100 up to {}, largest {}",
        spread.n,
        time(spread.p50),
        time(spread.p99),
        time(spread.max)
    );
    svg.finish("spread", SIZE, &title)
}
