//! The picture of a round: what clients saw and who led, above each other on one time, with the fault behind all of it.

use super::round::Outcome;
use super::round::Round;
use super::svg::Axis;
use super::svg::Svg;
use super::svg::decades;
use super::svg::fitting;
use super::svg::number;
use super::svg::round_up;
use super::svg::time;
use super::svg::width;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 988.0;
/// Upper and lower ends of the panels.
const REQUESTS: (f64, f64) = (58.0, 148.0);
const LATENCY: (f64, f64) = (182.0, 272.0);
const WRITES: (f64, f64) = (306.0, 362.0);
const LEADER: (f64, f64) = (396.0, 416.0);
const LANE: f64 = 18.0;
/// Steps that are drawn; more are put together, so that a picture has a size.
const STEPS_MAX: usize = 240;
/// Changes of leaders that are drawn.
const REIGNS_MAX: usize = 60;
/// Marks that are drawn.
const MARKS_MAX: usize = 16;
const LANES_MAX: usize = 4;
/// Letters of a title.
const TITLE_MAX: usize = 300;
/// Colours of nodes in `page.css`.
const NODE_COLOURS: usize = 8;

/// A number for a stretch of time, which is in milliseconds.
type Step = (f64, f64, f64);

/// The picture; nothing where no timeline was kept.
#[must_use]
pub fn picture(round: &Round) -> Option<String> {
    let line = &round.timeline;
    let steps = [line.requests.len(), line.errors.len(), line.p99_ms.len(), line.acknowledged.len(), line.leader.len()];
    let steps = steps.into_iter().max().filter(|it| *it > 0 && line.step_ms > 0)?;
    let end = (steps as f64 * f64::from(line.step_ms)).max(round.fault_to_ms as f64);
    let end = end.max(round.whole_at_ms.unwrap_or_default() as f64);
    let x = Axis { values: (0.0, end), pixels: (LEFT, RIGHT), is_log: false };
    let mut svg = Svg::default();
    let lanes = lanes(round, x);
    let bottom = LEADER.1 + 8.0 + LANE * lanes.iter().map(|it| it.lane + 1).max().unwrap_or_default() as f64;
    fault(&mut svg, round, x, bottom);
    seconds(&mut svg, x, bottom);
    requests(&mut svg, round, x);
    latency(&mut svg, round, x);
    writes(&mut svg, round, x);
    leaders(&mut svg, round, x);
    for mark in &lanes {
        mark.draw(&mut svg);
    }
    whole(&mut svg, round, x, bottom);
    let title = format!(
        "Round {} of {}, {}: {}. Fault from {} to {}; {}.",
        round.number,
        round.scenario,
        match round.verdict() {
            Outcome::Held => "held",
            Outcome::Violated => "violated",
            Outcome::Void => "void",
        },
        round.fault,
        time(round.fault_from_ms as f64),
        time(round.fault_to_ms as f64),
        round.whole_at_ms.map_or("never whole again".to_owned(), |it| format!("whole at {}", time(it as f64))),
    );
    Some(svg.finish("timeline", (WIDTH, bottom + 34.0), &super::svg::cut(&title, TITLE_MAX)))
}

/// The band behind everything, and what was done.
fn fault(svg: &mut Svg, round: &Round, x: Axis, bottom: f64) {
    let (from, to) = (x.at(round.fault_from_ms as f64), x.at(round.fault_to_ms as f64));
    svg.rect("fault", (from, to.max(from + 2.0)), (24.0, bottom));
    svg.line("edge", (from, 24.0), (from, bottom));
    svg.line("edge", (to, 24.0), (to, bottom));
    let words = format!("fault: {}", round.fault);
    let is_left = RIGHT - from > from - LEFT || width(&words) < RIGHT - from;
    if is_left {
        svg.words("what", (from, 17.0), "start", &fitting(&words, RIGHT - from));
    } else {
        svg.words("what", (to, 17.0), "end", &fitting(&words, to - LEFT));
    }
}

/// When it was whole again.
fn whole(svg: &mut Svg, round: &Round, x: Axis, bottom: f64) {
    let Some(at_ms) = round.whole_at_ms else { return };
    let at = x.at(at_ms as f64);
    svg.line("whole", (at, 30.0), (at, bottom));
    let after = at_ms.saturating_sub(round.fault_to_ms) as f64;
    let words = format!("whole {} after it", time(after));
    let anchor = if at + width(&words) + 6.0 < RIGHT { "start" } else { "end" };
    let aside = if anchor == "start" { 5.0 } else { -5.0 };
    svg.label("tick", (at + aside, 40.0), anchor, &words);
}

/// Time, once below all panels and as thin lines through them.
fn seconds(svg: &mut Svg, x: Axis, bottom: f64) {
    const STEPS: [f64; 13] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0];
    let all = x.values.1 / 1_000.0;
    let step = STEPS.into_iter().find(|it| all / it <= 14.0).unwrap_or(round_up(all / 14.0));
    for n in 0..=(all / step) as usize {
        let value = n as f64 * step;
        let at = x.at(value * 1_000.0);
        for panel in [REQUESTS, LATENCY, WRITES] {
            svg.line("grid", (at, panel.0), (at, panel.1));
        }
        svg.line("axis", (at, bottom), (at, bottom + 4.0));
        svg.words("tick", (at, bottom + 17.0), "middle", &number((value * 10.0).round() / 10.0));
    }
    svg.line("axis", (LEFT, bottom), (RIGHT, bottom));
    svg.words("tick", (RIGHT, bottom + 31.0), "end", "seconds since the round's cluster began");
}

fn requests(svg: &mut Svg, round: &Round, x: Axis) {
    let line = &round.timeline;
    let (requests, errors) = (rates(&line.requests, line.step_ms), rates(&line.errors, line.step_ms));
    let most = requests.iter().chain(&errors).map(|it| it.2).fold(0.0, f64::max);
    let y = upright(svg, REQUESTS, most);
    svg.area("requests", x, y, &requests);
    svg.area("errors", x, y, &errors);
    let failed = line.errors.iter().map(|it| u64::from(*it)).sum::<u64>() as f64;
    legend(
        svg,
        REQUESTS,
        &[("requests", "requests a second"), ("errors", &format!("failed ({} in all)", number(failed)))],
    );
}

fn latency(svg: &mut Svg, round: &Round, x: Axis) {
    let line = &round.timeline;
    let (p50, p99) = (largest(&line.p50_ms, line.step_ms), largest(&line.p99_ms, line.step_ms));
    let values = || p50.iter().chain(&p99).map(|it| it.2).filter(|it| *it > 0.0);
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let marks = if most > 0.0 { decades(least, most) } else { vec![1.0, 10.0] };
    let ends = (marks[0], marks[marks.len() - 1]);
    let y = Axis { values: ends, pixels: (LATENCY.1, LATENCY.0), is_log: true };
    for mark in &marks {
        svg.line("grid", (LEFT, y.at(*mark)), (RIGHT, y.at(*mark)));
        svg.words("tick", (LEFT - 6.0, y.at(*mark) + 4.0), "end", &time(*mark));
    }
    svg.curve("p99", x, y, &p99);
    svg.curve("p50", x, y, &p50);
    legend(svg, LATENCY, &[("p50", "answered after: median"), ("p99", "one of a hundred")]);
}

fn writes(svg: &mut Svg, round: &Round, x: Axis) {
    let line = &round.timeline;
    let writes = rates(&line.acknowledged, line.step_ms);
    let y = upright(svg, WRITES, writes.iter().map(|it| it.2).fold(0.0, f64::max));
    svg.area("writes", x, y, &writes);
    let gap = round.times_ms.get("write_gap").map(|it| format!("; longest gap {}", time(*it))).unwrap_or_default();
    legend(svg, WRITES, &[("writes", &format!("writes acknowledged a second{gap}"))]);
}

/// Who led, as a band of colours with names where there is room for them.
fn leaders(svg: &mut Svg, round: &Round, x: Axis) {
    let line = &round.timeline;
    legend(svg, LEADER, &[("", "leader, and the term")]);
    svg.rect("nobody", (LEFT, RIGHT), LEADER);
    let mut begin = 0;
    let mut drawn = 0;
    let same = |a: usize, b: usize| line.leader.get(a) == line.leader.get(b) && line.terms.get(a) == line.terms.get(b);
    for at in 1..=line.leader.len() {
        if same(at, begin) {
            continue;
        }
        let (from, to) = (x.at(ms(begin, line.step_ms)), x.at(ms(at, line.step_ms)));
        if let Some(node) = line.leader[begin] {
            svg.rect(&format!("node n{}", usize::from(node) % NODE_COLOURS), (from, to), LEADER);
            let name = format!("node {node}");
            let long = line.terms.get(begin).map_or(name.clone(), |term| format!("{name}, term {term}"));
            let fits = [long, name, node.to_string()].into_iter().find(|it| width(it) + 6.0 < to - from);
            if let Some(name) = fits {
                svg.words("name", (from + 4.0, LEADER.1 - 6.0), "start", &name);
            }
        }
        drawn += 1;
        begin = at;
        if drawn == REIGNS_MAX {
            svg.words("tick", (RIGHT, LEADER.0 - 7.0), "end", "further changes are not drawn");
            break;
        }
    }
}

/// A mark where it is drawn.
struct Placed {
    from: f64,
    to: f64,
    lane: usize,
    text: String,
    is_text_left: bool,
}

impl Placed {
    fn draw(&self, svg: &mut Svg) {
        let top = LEADER.1 + 8.0 + self.lane as f64 * LANE;
        svg.rect("mark", (self.from, self.to), (top + 2.0, top + LANE - 4.0));
        let (at, anchor) = if self.is_text_left { (self.from - 5.0, "end") } else { (self.to + 5.0, "start") };
        svg.words("tick", (at, top + LANE - 6.0), anchor, &self.text);
    }
}

/// Marks below each other where they would stand on each other. What finds no room is told in the last one's words.
fn lanes(round: &Round, x: Axis) -> Vec<Placed> {
    let mut ends = [LEFT; LANES_MAX];
    let mut placed: Vec<Placed> = Vec::new();
    let mut marks: Vec<_> = round.timeline.marks.iter().collect();
    marks.sort_by_key(|it| it.from_ms);
    for mark in marks.iter().take(MARKS_MAX) {
        let from = x.at(mark.from_ms as f64);
        let to = x.at(mark.to_ms as f64).max(from + 2.0);
        let room = RIGHT - to - 5.0;
        let is_text_left = room < width(&mark.text) && from - LEFT > room;
        let text = fitting(&mark.text, if is_text_left { from - LEFT - 5.0 } else { room });
        let (begin, end) = if is_text_left { (from - 5.0 - width(&text), to) } else { (from, to + 5.0 + width(&text)) };
        let free = (0..LANES_MAX).find(|it| ends[*it] <= begin + 0.5);
        if let Some(lane) = free {
            ends[lane] = end + 8.0;
            placed.push(Placed { from, to, lane, text, is_text_left });
        }
    }
    let left = marks.len() - placed.len();
    if let Some(last) = placed.last_mut().filter(|_| left > 0) {
        last.text = format!("{} (and {left} more)", last.text);
    }
    placed
}

/// An axis from 0 up, with its lines.
fn upright(svg: &mut Svg, panel: (f64, f64), most: f64) -> Axis {
    let most = round_up(most);
    let y = Axis { values: (0.0, most), pixels: (panel.1, panel.0), is_log: false };
    for value in [0.0, most / 2.0, most] {
        svg.line(if value == 0.0 { "axis" } else { "grid" }, (LEFT, y.at(value)), (RIGHT, y.at(value)));
        svg.words("tick", (LEFT - 6.0, y.at(value) + 4.0), "end", &number(value));
    }
    y
}

/// What the colours above a panel mean.
fn legend(svg: &mut Svg, panel: (f64, f64), names: &[(&str, &str)]) {
    let mut at = LEFT;
    for (class, name) in names {
        if !class.is_empty() {
            svg.rect(&format!("key {class}"), (at, at + 14.0), (panel.0 - 16.0, panel.0 - 7.0));
            at += 20.0;
        }
        svg.label("what", (at, panel.0 - 7.0), "start", name);
        at += width(name) + 20.0;
    }
}

fn ms(steps: usize, step_ms: u32) -> f64 {
    steps as f64 * f64::from(step_ms)
}

/// Counts of steps as counts of seconds, of some steps together if there are too many.
fn rates(counts: &[u32], step_ms: u32) -> Vec<Step> {
    let together = counts.len().div_ceil(STEPS_MAX).max(1);
    let rate = |(n, chunk): (usize, &[u32])| {
        let (from, to) = (ms(n * together, step_ms), ms(n * together + chunk.len(), step_ms));
        let sum = chunk.iter().map(|it| f64::from(*it)).sum::<f64>();
        (from, to, sum * 1_000.0 / (to - from))
    };
    counts.chunks(together).enumerate().map(rate).collect()
}

/// Times of steps, the largest of some together if there are too many.
fn largest(times: &[f32], step_ms: u32) -> Vec<Step> {
    let together = times.len().div_ceil(STEPS_MAX).max(1);
    let most = |(n, chunk): (usize, &[f32])| {
        let (from, to) = (ms(n * together, step_ms), ms(n * together + chunk.len(), step_ms));
        (from, to, f64::from(chunk.iter().copied().fold(0.0, f32::max)))
    };
    times.chunks(together).enumerate().map(most).collect()
}
