//! The page: one file that needs nothing else, no script either. What went wrong stands first.
//!
//! It has a size, however many rounds there are: pictures of the worst rounds alone, and what is not shown is counted.

use std::collections::BTreeSet;

use super::round::Outcome;
use super::round::Round;
use super::spread;
use super::svg::cut;
use super::svg::escape;
use super::svg::number;
use super::svg::time;
use super::tally::Report;
use super::tally::Revision;
use super::tally::Scenario;
use super::tally::Spread;
use super::tally::Sum;
use super::tally::Tally;
use super::tally::Violation;
use super::tally::in_order;
use super::timeline;

const STYLE: &str = include_str!("page.css");
/// Rounds of a scenario that have a picture.
const PICTURES_EACH: usize = 3;
/// Pictures of a page; one has some fifteen kilobytes. The newest revision's worst rounds have theirs first.
const PICTURES_MAX: usize = 60;
/// Revisions that are shown; older ones are counted.
const REVISIONS_MAX: usize = 8;
/// Scenarios of a revision that are shown.
const SCENARIOS_MAX: usize = 60;
/// Violations that are told.
const VIOLATIONS_MAX: usize = 100;
/// Planted bugs of a revision that are shown.
const PLANTED_MAX: usize = 100;
/// Letters of what comes from a round and is told in one place.
const WORDS_MAX: usize = 400;

/// The page.
#[must_use]
pub fn html(report: &Report<'_>) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Promises under faults</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    head(&mut page, report);
    violations(&mut page, report);
    let mut pictures = PICTURES_MAX;
    for (at, revision) in report.revisions.iter().take(REVISIONS_MAX).enumerate() {
        let drawn = drawn(revision, &mut pictures);
        section(&mut page, at, revision, &drawn);
    }
    let older: Vec<_> = report.revisions.iter().skip(REVISIONS_MAX).collect();
    if !older.is_empty() {
        let rounds: usize = older.iter().map(|it| it.rounds.shown() + it.rounds.void).sum();
        page.push_str(&format!(
            "<h2>Older</h2>\n<p>{} older revisions with {} rounds are in the file and not shown.</p>\n",
            older.len(),
            number(rounds as f64)
        ));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Which rounds have a picture: scenario and place in its list. First the worst of each scenario, then the second worst.
fn drawn(revision: &Revision<'_>, left: &mut usize) -> BTreeSet<(usize, usize)> {
    let mut drawn = BTreeSet::new();
    for rank in 0..PICTURES_EACH {
        for (at, scenario) in revision.scenarios.iter().take(SCENARIOS_MAX).enumerate() {
            let has_one = scenario.worst.get(rank).is_some_and(|it| it.timeline.step_ms > 0);
            if has_one && *left > 0 {
                *left -= 1;
                drawn.insert((at, rank));
            }
        }
    }
    drawn
}

fn head(page: &mut String, report: &Report<'_>) {
    page.push_str("<header>\n<h1>Promises under faults</h1>\n");
    let Some(newest) = report.revisions.first() else {
        page.push_str("<p>There are no rounds yet.</p>\n</header>\n");
        return;
    };
    let rounds = report.revisions.iter().map(|it| it.rounds.shown() + it.rounds.void).sum::<usize>();
    let planted = report.revisions.iter().flat_map(|it| &it.planted).map(|it| it.rounds.shown() + it.rounds.void);
    page.push_str(&format!(
        "<p>Last round {}. {} rounds, and {} of programs that were wrong on purpose.</p>\n",
        escape(newest.last),
        number(rounds as f64),
        number(planted.sum::<usize>() as f64)
    ));
    if report.revisions.len() > 1 {
        page.push_str("<p>Revisions, newest first; their rounds are not added up: ");
        let links = report.revisions.iter().take(REVISIONS_MAX).enumerate();
        let links: Vec<_> =
            links.map(|(at, it)| format!("<a href=\"#r{at}\"><code>{}</code></a>", words(it.revision))).collect();
        page.push_str(&format!("{}.</p>\n", links.join(", ")));
    }
    page.push_str(
        "<p class=\"soft\">A round is one fault, from injection to healed and whole, under load, with evidence that it bit. Without that evidence it is void and counts as nothing else. \
         What happened in 0 of N rounds happens, with 95 %, in fewer than 3/N of them.</p>\n</header>\n",
    );
}

fn violations(page: &mut String, report: &Report<'_>) {
    let all: Vec<_> = report.revisions.iter().flat_map(|it| it.violations.iter()).collect();
    if all.is_empty() {
        if let Some(newest) = report.revisions.first() {
            page.push_str(&format!("<div class=\"verdict good\"><b>{}</b></div>\n", sentence(newest)));
        }
        return;
    }
    let count =
        if all.len() == 1 { "1 violation".to_owned() } else { format!("{} violations", number(all.len() as f64)) };
    page.push_str(&format!("<section class=\"verdict bad\" role=\"alert\">\n<h2>{count}</h2>\n<ol>\n"));
    for Violation { text, round } in all.iter().take(VIOLATIONS_MAX) {
        page.push_str(&format!(
            "<li><b>{}</b><br><span>{} round {} of <code>{}</code>, seed <code>{}</code>, {}: {}</span></li>\n",
            words(text),
            words(&round.scenario),
            round.number,
            words(&round.revision),
            round.seed,
            escape(&cut(&round.date, 40)),
            words(&round.fault)
        ));
    }
    page.push_str("</ol>\n");
    if all.len() > VIOLATIONS_MAX {
        page.push_str(&format!("<p>and {} more.</p>\n", number((all.len() - VIOLATIONS_MAX) as f64)));
    }
    page.push_str("</section>\n");
}

/// What the rounds of a revision show, when nothing was violated.
pub fn sentence(revision: &Revision<'_>) -> String {
    let shown = revision.rounds.shown();
    let uncaught = revision.planted.len() - revision.caught();
    let planted = match (revision.planted.len(), uncaught) {
        (0, _) => "No bug was planted, so nothing shows that one would have been noticed.".to_owned(),
        (all, 0) => format!("All {all} planted bugs were noticed."),
        (all, _) => format!("{uncaught} of {all} planted bugs were not noticed."),
    };
    match shown {
        0 => format!("Nothing was shown. {planted}"),
        _ => format!("No promise was broken in {} rounds. {planted}", number(shown as f64)),
    }
}

fn section(page: &mut String, at: usize, revision: &Revision<'_>, drawn: &BTreeSet<(usize, usize)>) {
    let rounds = revision.rounds;
    page.push_str(&format!("<section id=\"r{at}\">\n<h2>Revision <code>{}</code></h2>\n", words(revision.revision)));
    let dates = if revision.first == revision.last {
        escape(revision.last)
    } else {
        format!("{} to {}", escape(revision.first), escape(revision.last))
    };
    page.push_str(&format!(
        "<p>{dates}. {} rounds: {} held, {} violated, {} void.</p>\n",
        number((rounds.shown() + rounds.void) as f64),
        number(rounds.held as f64),
        number(rounds.violated as f64),
        number(rounds.void as f64)
    ));
    for machine in revision.machines.iter().take(REVISIONS_MAX) {
        page.push_str(&format!("<p class=\"soft\">{}</p>\n", words(machine)));
    }
    promises(page, revision);
    scenarios(page, revision);
    planted(page, revision);
    timelines(page, at, revision, drawn);
    page.push_str("</section>\n");
}

/// A table that scrolls by itself where it is too wide.
fn table(page: &mut String, name: &str, caption: &str, heads: &[(&str, &str)], rows: &str) {
    page.push_str(&format!(
        "<h3>{name}</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\"><table>\n<caption>{caption}</caption>\n<thead><tr>"
    ));
    for (class, head) in heads {
        page.push_str(&format!("<th scope=\"col\" class=\"{class}\">{head}</th>"));
    }
    page.push_str(&format!("</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"));
}

/// Held, violated, void.
fn tally(rounds: Tally) -> String {
    let is = |class: &'static str, count: usize| if count > 0 { class } else { "" };
    format!(
        "<td class=\"n\">{}</td><td class=\"n {}\">{}</td><td class=\"n {}\">{}</td>",
        number(rounds.held as f64),
        is("bad", rounds.violated),
        number(rounds.violated as f64),
        is("warn", rounds.void),
        number(rounds.void as f64)
    )
}

fn promises(page: &mut String, revision: &Revision<'_>) {
    let mut rows = String::new();
    for it in &revision.promises {
        let class = match (it.rounds.shown(), it.rounds.violated) {
            (0, _) => "soft",
            (_, 0) => "good",
            _ => "bad",
        };
        let scenarios: Vec<_> = it.scenarios.iter().take(SCENARIOS_MAX).copied().collect();
        rows.push_str(&format!(
            "<tr><th scope=\"row\">{}</th><td>{}<small>{}</small></td>{}<td class=\"figure {class}\">{}</td></tr>\n",
            it.number,
            escape(it.text),
            if scenarios.is_empty() { "no scenario tries it here".to_owned() } else { words(&scenarios.join(", ")) },
            tally(it.rounds),
            it.rounds.figure()
        ));
    }
    let heads = [
        ("", ""),
        ("", "promise, and what tried it"),
        ("n", "held"),
        ("n", "violated"),
        ("n", "void"),
        ("", "broken in"),
    ];
    table(page, "What was promised", "A round counts for each promise that it puts to the test.", &heads, &rows);
}

/// `0 of 1,234`, with what is not 0 in red.
fn part(some: Option<f64>, all: Option<f64>) -> String {
    let Some(some) = some else { return "<td class=\"n soft\">–</td>".to_owned() };
    let class = if some > 0.0 { "n bad" } else { "n" };
    let of = all.map(|it| format!(" of {}", number(it))).unwrap_or_default();
    format!("<td class=\"{class}\">{}{of}</td>", number(some))
}

fn scenarios(page: &mut String, revision: &Revision<'_>) {
    if revision.scenarios.is_empty() {
        return;
    }
    let shown = || revision.scenarios.iter().take(SCENARIOS_MAX);
    // One scale for all, so that pictures can be compared.
    let values =
        || shown().filter_map(Scenario::main_time).flat_map(|it| it.1.values.iter().copied()).filter(|it| *it > 0.0);
    let scale = (values().fold(f64::MAX, f64::min).min(1e6), values().fold(1.0, f64::max));
    let mut rows = String::new();
    for it in shown() {
        let times = |what: &str, say: fn(&Spread) -> String| it.times_ms.get(what).map_or("–".to_owned(), say);
        let picture = it
            .main_time()
            .map(|(what, all)| format!("{}<small>{}</small>", spread::picture(&plain(what), all, scale), plain(what)));
        rows.push_str(&format!(
            "<tr><td class=\"name\"><b>{}</b><small>{}</small></td>{}{}{}<td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
            words(&plain(it.name)),
            words(&tried(it)),
            tally(it.rounds),
            part(it.sum("lost"), it.sum("acknowledged")),
            part(it.sum("failed_elsewhere"), it.sum("requests")),
            times("write_gap", |all| format!("{} / {} / {}", time(all.p50), time(all.p99), time(all.max))),
            times("heal", |all| format!("{} / {}", time(all.p50), time(all.max))),
            picture.unwrap_or_default()
        ));
    }
    let heads = [
        ("", "scenario"),
        ("n", "held"),
        ("n", "violated"),
        ("n", "void"),
        ("n", "acknowledged<br>writes lost"),
        ("n", "requests failed<br>at other nodes"),
        ("n", "write gap<br>p50 / p99 / max"),
        ("n", "healed after<br>p50 / max"),
        ("", "rounds by time"),
    ];
    table(page, "Scenarios", "Void rounds are in no column but their own. Pictures share one scale.", &heads, &rows);
    if revision.scenarios.len() > SCENARIOS_MAX {
        let more = revision.scenarios.len() - SCENARIOS_MAX;
        page.push_str(&format!("<p>{} more scenarios are in the file.</p>\n", number(more as f64)));
    }
}

fn planted(page: &mut String, revision: &Revision<'_>) {
    if revision.planted.is_empty() {
        return;
    }
    let mut rows = String::new();
    for it in revision.planted.iter().take(PLANTED_MAX) {
        let scenarios: Vec<_> = it.scenarios.iter().copied().collect();
        let (class, is_noticed) = match (it.needed, it.rounds.shown()) {
            (Some(_), _) => ("good", "yes"),
            (None, 0) => ("bad", "no: void rounds only"),
            (None, _) => ("bad", "NO"),
        };
        let name = format!("<code>{}</code>", words(it.bug));
        let name = if it.needed.is_none() { format!("<b class=\"bad\">{name}</b>") } else { name };
        rows.push_str(&format!(
            "<tr><td class=\"name\">{name}<small>{}</small></td><td class=\"{class}\">{is_noticed}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
            words(&scenarios.join(", ")),
            it.needed.map_or("–".to_owned(), |it| number(it as f64)),
            number(it.rounds.shown() as f64),
            number(it.rounds.void as f64),
            words(it.noticed.unwrap_or("–"))
        ));
    }
    let heads = [
        ("", "broken on purpose, and what was to notice"),
        ("", "noticed"),
        ("n", "rounds<br>needed"),
        ("n", "rounds"),
        ("n", "void"),
        ("", "by"),
    ];
    let caption = format!("{} of {} noticed.", revision.caught(), revision.planted.len());
    table(page, "Planted bugs", &caption, &heads, &rows);
}

fn timelines(page: &mut String, at: usize, revision: &Revision<'_>, drawn: &BTreeSet<(usize, usize)>) {
    if revision.scenarios.is_empty() {
        return;
    }
    page.push_str("<h3>What happened when</h3>\n<p class=\"soft\">The worst rounds of each scenario: those with violations, then those in which it took longest.</p>\n");
    for (n, scenario) in revision.scenarios.iter().take(SCENARIOS_MAX).enumerate() {
        let is_open = if scenario.rounds.violated > 0 { " open" } else { "" };
        page.push_str(&format!(
            "<details{is_open}><summary>{} <span class=\"soft\">{}</span></summary>\n",
            words(&plain(scenario.name)),
            scenario.rounds.figure()
        ));
        for (rank, round) in scenario.worst.iter().enumerate() {
            let picture = drawn.contains(&(n, rank)).then(|| timeline::picture(round)).flatten();
            let Some(picture) = picture else { continue };
            let id = format!("r{at}s{n}w{rank}");
            let figure = format!(
                "<figure id=\"{id}\"><figcaption>{}</figcaption>\n<div class=\"scroll\">{picture}</div></figure>\n",
                caption(round)
            );
            if rank == 0 {
                page.push_str(&figure);
            } else {
                page.push_str(&format!(
                    "<details><summary>Round {} <span class=\"soft\">{}</span></summary>\n{figure}</details>\n",
                    round.number,
                    escape(&longest(round))
                ));
            }
        }
        worst(page, &format!("r{at}s{n}w"), n, scenario, drawn);
        counts(page, scenario);
        page.push_str("</details>\n");
    }
}

/// What stands above a picture: how the round ended, and the evidence.
fn caption(round: &Round) -> String {
    let mut text =
        format!("Round {}, seed <code>{}</code>, {} nodes: {}.", round.number, round.seed, round.nodes, verdict(round));
    for violation in round.violations.iter().take(PICTURES_EACH) {
        text.push_str(&format!(" <b class=\"bad\">{}</b>.", words(violation)));
    }
    text.push_str(&format!(" Done: {}.", words(&round.fault)));
    let proofs: Vec<_> = round
        .bit
        .iter()
        .take(8)
        .map(|it| format!("{}{}: {}", if it.is_so { "" } else { "NOT " }, it.what, number(it.number)))
        .collect();
    if !proofs.is_empty() {
        text.push_str(&format!(" It bit: {}.", words(&proofs.join("; "))));
    }
    text
}

fn verdict(round: &Round) -> &'static str {
    match round.verdict() {
        Outcome::Held => "held",
        Outcome::Violated => "<b class=\"bad\">violated</b>",
        Outcome::Void => "void",
    }
}

fn longest(round: &Round) -> String {
    let said = |(what, ms): (&String, &f64)| format!("{} {}", plain(what), time(*ms));
    round.times_ms.iter().take(3).map(said).collect::<Vec<_>>().join(", ")
}

/// The worst rounds by name, with links to those that have a picture.
fn worst(page: &mut String, id: &str, scenario_at: usize, scenario: &Scenario<'_>, drawn: &BTreeSet<(usize, usize)>) {
    let mut rows = String::new();
    for (rank, round) in scenario.worst.iter().enumerate() {
        let name = if drawn.contains(&(scenario_at, rank)) {
            format!("<a href=\"#{id}{rank}\">{}</a>", round.number)
        } else {
            round.number.to_string()
        };
        rows.push_str(&format!(
            "<tr><td class=\"n\">{name}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>\n",
            verdict(round),
            round.seed,
            escape(&longest(round)),
            escape(&cut(&round.fault, 160))
        ));
    }
    let heads = [("n", "round"), ("", "ended"), ("n", "seed"), ("", "took"), ("", "done")];
    let all = scenario.rounds.shown() + scenario.rounds.void;
    let caption = format!("{} of {} rounds, worst first.", scenario.worst.len(), number(all as f64));
    table(page, "Worst rounds", &caption, &heads, &rows);
}

/// What a scenario tries, and which bugs on purpose it showed.
fn tried(scenario: &Scenario<'_>) -> String {
    let tries = in_order(&scenario.promises);
    if scenario.showed.is_empty() { tries } else { format!("{tries}; showed {}", in_order(&scenario.showed)) }
}

/// Whatever else was counted and timed.
fn counts(page: &mut String, scenario: &Scenario<'_>) {
    let mut rows = String::new();
    for (what, Sum { sum, max }) in scenario.counts.iter().take(SCENARIOS_MAX) {
        rows.push_str(&format!(
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td></td><td></td></tr>\n",
            words(&plain(what)),
            number(*sum),
            number(*max)
        ));
    }
    for (what, all) in scenario.times_ms.iter().take(SCENARIOS_MAX) {
        rows.push_str(&format!(
            "<tr><td>{}</td><td></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
            words(&plain(what)),
            time(all.max),
            time(all.p50),
            time(all.p99)
        ));
    }
    if let Some(bytes) = scenario.rss_bytes_max {
        rows.push_str(&format!(
            "<tr><td>resident memory of a node</td><td></td><td class=\"n\">{} MB</td><td></td><td></td></tr>\n",
            number((bytes as f64 / 1e5).round() / 10.0)
        ));
    }
    let heads = [("", "counted or timed"), ("n", "in all"), ("n", "largest of a round"), ("n", "median"), ("n", "p99")];
    table(page, "Figures", "Of all rounds that are not void.", &heads, &rows);
}

/// Names as words.
pub fn plain(name: &str) -> String {
    name.replace('_', " ")
}

/// What comes from a round, in one place of the page.
fn words(text: &str) -> String {
    escape(&cut(text, WORDS_MAX))
}
