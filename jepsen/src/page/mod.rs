//! The report of rounds: from a file of them to Markdown, JSON, and one page with what happened when. It is made from the file alone, never by hand, and asks nothing of the machine it is made on.
//!
//! ```text
//!  rounds.jsonl ── read ──▶ rounds ── by revision ──▶ tally ──┬─▶ markdown
//!       ▲                                                     ├─▶ json
//!  append, a line per round, on disk when it returns          └─▶ html ◀── pictures of the worst rounds
//! ```
//! *Invariants:* 1. rounds of different revisions are never added up; 2. a void round counts as nothing but void; 3. the page has a bound, however many rounds there are; 4. words of a round are words on the page,
//! never markup.

mod date;
mod file;
mod html;
mod markdown;
mod round;
mod spread;
mod svg;
mod tally;
mod timeline;

pub use date::rfc3339;
pub use file::ReadError;
pub use file::append;
pub use file::read;
pub use round::Mark;
pub use round::Outcome;
pub use round::Proof;
pub use round::Round;
pub use round::Timeline;
pub use tally::Report;

use serde_json::Value;

/// The report as one page.
#[must_use]
pub fn html(rounds: &[Round]) -> String {
    html::html(&Report::of(rounds))
}

/// The report as Markdown, without pictures.
#[must_use]
pub fn markdown(rounds: &[Round]) -> String {
    markdown::markdown(&Report::of(rounds))
}

/// The report as JSON, for who adds it up further.
#[must_use]
pub fn json(rounds: &[Round]) -> Value {
    serde_json::json!(Report::of(rounds))
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
