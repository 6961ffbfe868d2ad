//! The report as Markdown, for documents: the tables of the page, without pictures.

use super::html::plain;
use super::html::sentence;
use super::svg::cut;
use super::svg::number;
use super::svg::time;
use super::tally::Report;
use super::tally::Revision;
use super::tally::Spread;
use super::tally::in_order;

/// Letters of a cell.
const WORDS_MAX: usize = 400;
/// Violations that are told.
const VIOLATIONS_MAX: usize = 100;

/// The report.
#[must_use]
pub fn markdown(report: &Report<'_>) -> String {
    let mut text = "# Promises under faults\n".to_owned();
    let all: Vec<_> = report.revisions.iter().flat_map(|it| &it.violations).collect();
    if !all.is_empty() {
        text.push_str(&format!("\n**{} VIOLATED**\n\n", all.len()));
        for it in all.iter().take(VIOLATIONS_MAX) {
            let (round, what) = (it.round, cell(it.text));
            text.push_str(&format!(
                "- **{what}** ({} round {}, seed {}, {}: {})\n",
                cell(&round.scenario),
                round.number,
                round.seed,
                cell(&round.revision),
                cell(&round.fault)
            ));
        }
        if all.len() > VIOLATIONS_MAX {
            text.push_str(&format!("- and {} more\n", all.len() - VIOLATIONS_MAX));
        }
    }
    if report.revisions.is_empty() {
        text.push_str("\nThere are no rounds yet.\n");
    }
    for revision in &report.revisions {
        section(&mut text, revision);
    }
    text
}

fn section(text: &mut String, revision: &Revision<'_>) {
    let rounds = revision.rounds;
    text.push_str(&format!("\n## Revision {}\n\n", cell(revision.revision)));
    text.push_str(&format!(
        "{} to {}. {} rounds: {} held, {} violated, {} void.\n",
        cell(revision.first),
        cell(revision.last),
        rounds.shown() + rounds.void,
        rounds.held,
        rounds.violated,
        rounds.void
    ));
    for machine in &revision.machines {
        text.push_str(&format!("{}\n", cell(machine)));
    }
    if rounds.violated == 0 {
        text.push_str(&format!("\n{}\n", sentence(revision)));
    }
    text.push_str("\n| | promise | held | violated | void | broken in |\n|---|---|---|---|---|---|\n");
    for it in &revision.promises {
        let rounds = it.rounds;
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            it.number,
            it.text,
            rounds.held,
            rounds.violated,
            rounds.void,
            rounds.figure()
        ));
    }
    scenarios(text, revision);
    planted(text, revision);
    lives(text, revision);
}

fn scenarios(text: &mut String, revision: &Revision<'_>) {
    if revision.scenarios.is_empty() {
        return;
    }
    text.push_str("\n| scenario | tries | held | violated | void | acknowledged writes lost | requests failed at other nodes | write gap p50 / p99 / max | healed after p50 / max | showed, of bugs on purpose |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for it in &revision.scenarios {
        let part = |some, all| match (it.sum(some), it.sum(all)) {
            (None, _) => "–".to_owned(),
            (Some(some), None) => number(some),
            (Some(some), Some(all)) => format!("{} of {}", number(some), number(all)),
        };
        let times = |what: &str, say: fn(&Spread) -> String| it.times_ms.get(what).map_or("–".to_owned(), say);
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            cell(&plain(it.name)),
            cell(&in_order(&it.promises)),
            it.rounds.held,
            it.rounds.violated,
            it.rounds.void,
            part("lost", "acknowledged"),
            part("failed_elsewhere", "requests"),
            times("write_gap", |all| format!("{} / {} / {}", time(all.p50), time(all.p99), time(all.max))),
            times("heal", |all| format!("{} / {}", time(all.p50), time(all.max))),
            if it.showed.is_empty() { "–".to_owned() } else { cell(&in_order(&it.showed)) }
        ));
    }
}

fn planted(text: &mut String, revision: &Revision<'_>) {
    if revision.planted.is_empty() {
        return;
    }
    text.push_str(&format!("\nPlanted bugs: {} of {} noticed.\n\n", revision.caught(), revision.planted.len()));
    text.push_str("| planted | noticed | rounds needed | rounds | void | by |\n|---|---|---|---|---|---|\n");
    for it in &revision.planted {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            cell(it.bug),
            if it.needed.is_some() { "yes" } else { "**NO**" },
            it.needed.map_or("–".to_owned(), |it| it.to_string()),
            it.rounds.shown(),
            it.rounds.void,
            cell(it.noticed.unwrap_or("–"))
        ));
    }
}

fn lives(text: &mut String, revision: &Revision<'_>) {
    if revision.lives.is_empty() {
        return;
    }
    text.push_str("\nOne cluster each. `make chaos LIFE=seed ONLY=\"its rounds\"` is that life once more; where a bug was planted, `make jepsen LIFE=seed PLANTED=bug ONLY=\"its rounds\"`.\n\n");
    text.push_str("| seed | planted | rounds |\n|---|---|---|\n");
    for it in &revision.lives {
        let (bug, rounds) = (cell(it.planted.unwrap_or("–")), cell(&it.scenarios.join(" ")));
        text.push_str(&format!("| {} | {bug} | {rounds} |\n", it.seed));
    }
}

/// What comes from a round, in one line and without what would end a cell or begin a tag.
fn cell(text: &str) -> String {
    let mut safe = String::new();
    for letter in cut(text, WORDS_MAX).chars() {
        match letter {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '#' => safe.extend(['\\', letter]),
            _ if letter.is_control() => safe.push(' '),
            _ => safe.push(letter),
        }
    }
    safe
}
