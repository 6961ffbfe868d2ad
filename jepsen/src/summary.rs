//! Verdicts as people read them.

use std::fmt::Write as _;
use std::time::Duration;

use super::check::Verdict;
use super::history::Event;
use super::history::NEMESIS;

/// Violations that are shown of each verdict.
const SHOWN_MAX: usize = 5;

/// A table of what was found, with the first violations of each checker and what was done to the cluster around them.
#[must_use]
pub fn summary(events: &[Event], verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    let long = events.last().map(Event::at).unwrap_or_default();
    // A String takes everything.
    let _ = writeln!(text, "{} events in {:.1} s\n", events.len(), long.as_secs_f64());
    let _ = writeln!(text, "{:<12} {:<13} {:>7} {:>6} {:>6}  found", "workload", "checker", "ok", "fail", "info");
    for it in verdicts {
        let found = match (it.violations.len(), &it.unknown) {
            (0, None) => "no violation".to_owned(),
            (0, Some(why)) => format!("unknown: {why}"),
            (1, _) => "1 VIOLATION".to_owned(),
            (many, _) => format!("{many} VIOLATIONS"),
        };
        let Verdict { workload, checker, ok, fail, info, .. } = it;
        let _ = writeln!(text, "{workload:<12} {checker:<13} {ok:>7} {fail:>6} {info:>6}  {found}");
        for violation in it.violations.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "    {}", violation.what.replace('\n', "\n    "));
            if let Some(note) = violation.at.first().and_then(|at| before(events, *at)) {
                let _ = writeln!(text, "      after {} of {} at {:.3} s", note.f, note.key, note.at().as_secs_f64());
            }
        }
        if it.violations.len() > SHOWN_MAX {
            let _ = writeln!(text, "    and {} more", it.violations.len() - SHOWN_MAX);
        }
    }
    text
}

/// What was last done to the cluster before a moment.
fn before(events: &[Event], at: u64) -> Option<&Event> {
    let at = Duration::from_nanos(at);
    events.iter().rev().find(|it| it.workload == NEMESIS && it.f != "run" && it.at() <= at)
}

/// Whether something was found that cannot be.
#[must_use]
pub fn is_violated(verdicts: &[Verdict]) -> bool {
    verdicts.iter().any(|it| !it.violations.is_empty())
}
