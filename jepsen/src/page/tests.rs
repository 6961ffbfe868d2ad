//! What the report may not get wrong: what is added up to what, what is shown first, and that it has a size.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::fake;
use super::fake::Draws;
use super::round::Outcome;
use super::round::Proof;
use super::round::Round;
use super::*;

const HTML_BYTES_MAX: usize = 2_000_000;

fn round(scenario: &str, promises: &[&str], outcome: Outcome) -> Round {
    Round {
        version: Round::VERSION,
        revision: "5d0d92b".to_owned(),
        date: "2026-11-30T12:00:00Z".to_owned(),
        scenario: scenario.to_owned(),
        promises: promises.iter().map(ToString::to_string).collect(),
        outcome,
        ..Round::default()
    }
}

/// Three rounds in which there is one of everything: held, violated, void, planted and caught, planted and not.
fn small() -> Vec<Round> {
    let mut held = fake::rounds(1, 1, "5d0d92b", 30, false).remove(0);
    let steps = 40;
    held.timeline.requests.truncate(steps);
    held.timeline.errors.truncate(steps);
    held.timeline.p50_ms.truncate(steps);
    held.timeline.p99_ms.truncate(steps);
    held.timeline.acknowledged.truncate(steps);
    held.timeline.leader.truncate(steps);
    held.timeline.terms.truncate(steps);
    let mut violated = round("one_way_cut", &["P1", "P3"], Outcome::Violated);
    violated.violations = vec!["P3: <lost> & gone".to_owned()];
    violated.fault = "node 1 hears nobody".to_owned();
    let void = round("one_way_cut", &["P1"], Outcome::Void);
    let mut caught = round("one_way_cut", &["P3"], Outcome::Violated);
    caught.planted = Some("raft::VotesTwice".to_owned());
    caught.violations = vec!["P3: two leaders in term 4".to_owned()];
    let mut missed = round("one_way_cut", &["P3"], Outcome::Held);
    missed.planted = Some("ledger::NeverExpires".to_owned());
    vec![held, violated, void, missed.clone(), missed, caught]
}

/// Compares with a file beside this one; `UPDATE_EXPECT=1` rewrites it.
fn golden(name: &str, is: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page/golden").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, is).expect("golden files can be written");
    }
    let was = fs::read_to_string(&path).expect("there is a golden file");
    assert!(was == is, "{name} is another; `make bless` rewrites it, and the diff is to be read");
}

#[test]
fn a_small_report_is_what_it_was() {
    let rounds = small();
    golden("small.html", &html(&rounds));
    golden("small.md", &markdown(&rounds));
    golden("small.json", &format!("{:#}\n", json(&rounds)));
}

#[test]
fn nothing_in_n_rounds_is_below_three_in_n() {
    for held in [4, 10, 300, 3_000] {
        let rounds: Vec<_> = (0..held).map(|_| round("a", &["P1"], Outcome::Held)).collect();
        let report = Report::of(&rounds);
        let promise = &report.revisions[0].promises[0];
        assert_eq!(promise.bound, Some(3.0 / f64::from(held)));
        assert!(
            promise.rounds.figure().starts_with(&format!("0 of {}: below ", svg::number(f64::from(held)))),
            "{}",
            promise.rounds.figure()
        );
    }
    let figure = |tally: tally::Tally| tally.figure();
    assert_eq!(figure(tally::Tally { held: 412, violated: 0, void: 9 }), "0 of 412: below 0.73 % with 95 %");
    assert_eq!(figure(tally::Tally { held: 9_999, violated: 0, void: 0 }), "0 of 9,999: below 0.030 % with 95 %");
    assert_eq!(figure(tally::Tally { held: 12, violated: 0, void: 0 }), "0 of 12: below 25 % with 95 %");
    assert_eq!(figure(tally::Tally { held: 3, violated: 0, void: 0 }), "0 of 3: too few for a bound");
    assert_eq!(figure(tally::Tally { held: 410, violated: 2, void: 9 }), "2 of 412");
    assert_eq!(figure(tally::Tally { held: 0, violated: 0, void: 9 }), "nothing shown");
}

#[test]
fn every_round_counts_once_as_what_it_is() {
    for seed in 0..200 {
        let mut draws = Draws(seed);
        let rounds: Vec<_> = (0..40).map(|_| any(&mut draws)).collect();
        let report = Report::of(&rounds);
        for revision in &report.revisions {
            let these = || rounds.iter().filter(|it| it.revision == revision.revision && it.planted.is_none());
            let count = |outcome| these().filter(|it| it.verdict() == outcome).count();
            assert_eq!(revision.rounds.held, count(Outcome::Held), "seed {seed}");
            assert_eq!(revision.rounds.violated, count(Outcome::Violated), "seed {seed}");
            assert_eq!(revision.rounds.void, count(Outcome::Void), "seed {seed}");
            // Nothing that says of itself that it showed nothing is among what held, however it is counted.
            let sure = |it: &&Round| {
                it.outcome == Outcome::Held && it.violations.is_empty() && it.bit.iter().all(|it| it.is_so)
            };
            let shown = these().filter(sure).count();
            assert_eq!(revision.rounds.held, shown, "seed {seed}");
            assert_eq!(revision.scenarios.iter().map(|it| it.rounds.held).sum::<usize>(), shown, "seed {seed}");
            for promise in &revision.promises {
                let held = these().filter(|it| {
                    it.verdict() != Outcome::Void && it.tries(promise.number) && !it.violates(promise.number)
                });
                assert_eq!(promise.rounds.held, held.count(), "seed {seed} {}", promise.number);
                assert!(promise.bound.is_none_or(|it| it == 3.0 / promise.rounds.held as f64), "seed {seed}");
            }
            let bugs: usize = revision.planted.iter().map(|it| it.rounds.shown() + it.rounds.void).sum();
            let planted = rounds.iter().filter(|it| it.revision == revision.revision && it.planted.is_some());
            assert_eq!(bugs, planted.count(), "seed {seed}");
        }
    }
}

fn any(draws: &mut Draws) -> Round {
    let one = |draws: &mut Draws, of: &[&str]| of[(draws.part() * of.len() as f64) as usize].to_owned();
    let (p, q) = (one(draws, &["P1", "P2"]), one(draws, &["P3", "P4"]));
    let mut it = round(&one(draws, &["a", "b", "c"]), &[&p, &q], Outcome::Held);
    it.revision = one(draws, &["r1", "r2"]);
    it.outcome = [Outcome::Held, Outcome::Held, Outcome::Violated, Outcome::Void][(draws.part() * 4.0) as usize];
    it.bit = vec![Proof { what: "it".to_owned(), number: 1.0, is_so: draws.part() < 0.8 }];
    if draws.part() < 0.2 {
        it.violations = vec![one(draws, &["P3: gone", "gone", "P9: told"])];
    }
    if draws.part() < 0.2 {
        it.planted = Some(one(draws, &["x", "y"]));
    }
    it
}

#[test]
fn a_violation_is_of_the_promise_it_names() {
    let mut it = round("a", &["P1", "P3"], Outcome::Violated);
    it.violations = vec!["P3: lost".to_owned()];
    assert!(it.violates("P3") && !it.violates("P1") && !it.violates("P2"));
    it.violations.push("Panicked: at once".to_owned());
    assert!(it.violates("P3") && it.violates("P1") && !it.violates("P2"));
    it.violations = vec!["P9: a secret".to_owned()];
    assert!(it.violates("P9") && it.tries("P9") && !it.violates("P1"));
}

#[test]
fn the_newest_revision_stands_first_whatever_zone_it_is_of() {
    let dated = |revision: &str, date: &str| {
        let mut it = round("a", &["P1"], Outcome::Held);
        (it.revision, it.date) = (revision.to_owned(), date.to_owned());
        it
    };
    let rounds = [
        dated("unknown", "yesterday"),
        dated("new", "2026-11-30T12:00:00Z"),
        dated("old", "2026-11-30T13:30:00+02:00"),
        dated("old", "2026-02-28T13:30:00.5Z"),
    ];
    let report = Report::of(&rounds);
    let names: Vec<_> = report.revisions.iter().map(|it| it.revision).collect();
    assert_eq!(names, ["new", "old", "unknown"]);
    assert_eq!(report.revisions[1].first, "2026-02-28T13:30:00.5Z");
    assert_eq!(date::seconds("1970-01-01T00:00:00Z"), Some(0));
    assert_eq!(date::seconds("2024-02-29T23:59:59+00:00"), Some(1_709_251_199));
    assert_eq!(date::seconds("2024-13-29T23:59:59Z"), None);
    assert_eq!(date::seconds("2024-02-29T23:59:59"), None);
}

#[test]
fn a_bug_is_caught_after_the_rounds_it_took() {
    let planted = |bug: &str, outcome| {
        let mut it = round("a", &["P3"], outcome);
        it.planted = Some(bug.to_owned());
        it
    };
    let rounds = [
        planted("caught", Outcome::Void),
        planted("caught", Outcome::Held),
        planted("caught", Outcome::Violated),
        planted("missed", Outcome::Held),
        planted("never tried", Outcome::Void),
        planted("caught", Outcome::Held),
    ];
    let report = Report::of(&rounds);
    let revision = &report.revisions[0];
    let needed: Vec<_> = revision.planted.iter().map(|it| (it.bug, it.needed)).collect();
    assert_eq!(needed, [("missed", None), ("never tried", None), ("caught", Some(2))]);
    assert_eq!((revision.rounds.shown(), revision.violations.len(), revision.caught()), (0, 0, 1));
    assert!(html(&rounds).contains("<b class=\"bad\"><code>missed</code></b>"));
}

#[test]
fn a_page_has_a_size_and_needs_nothing_else() {
    let mut rounds = fake::rounds(7, 1_500, "5d0d92b", 30, true);
    rounds.extend(fake::rounds(8, 300, "1b9c445", 29, false));
    for older in 0..20 {
        rounds.extend(fake::rounds(older, 10, &format!("older{older}"), 1 + older as u32, false));
    }
    let page = html(&rounds);
    if let Some(path) = std::env::var_os("SMG_PAGE") {
        fs::write(path, &page).expect("the page can be written"); // for looking at it
    }
    assert!(page.len() < HTML_BYTES_MAX, "{} bytes", page.len());
    for foreign in ["<script", "http:", "https:", "url(", "@import", " src="] {
        assert!(!page.contains(foreign), "the page has {foreign}");
    }
    assert!(page.find("role=\"alert\"") < page.find("What was promised"), "violations stand first");
    well_formed(&page);
}

/// Whatever rounds say, the page is whole and says nothing else.
#[test]
fn words_of_a_round_are_never_markup() {
    let evil = "</title></script><script>alert('1')</script>\" onload=\"x|`*_\n# h \u{1}";
    let mut it = fake::rounds(1, 1, evil, 30, true).remove(0);
    for text in [&mut it.machine, &mut it.scenario, &mut it.fault, &mut it.date] {
        evil.clone_into(text);
    }
    it.promises = vec![evil.to_owned()];
    it.violations = vec![evil.to_owned()];
    it.counts.insert(evil.to_owned(), f64::NAN);
    it.times_ms.insert(evil.to_owned(), f64::INFINITY);
    it.timeline.marks[0].text = evil.to_owned();
    it.bit[0].what = evil.to_owned();
    let mut planted = it.clone();
    planted.planted = Some(evil.to_owned());
    let rounds = [it, planted];
    let page = html(&rounds);
    assert!(!page.contains("<script") && !page.contains("\" onload"), "{page}");
    well_formed(&page);
    assert!(!markdown(&rounds).contains("\n# h"));
}

/// Odd rounds make odd pictures, and no panic.
#[test]
fn a_round_of_nothing_has_a_page() {
    let mut it = round("", &[], Outcome::Held);
    assert!(html(&[]).contains("no rounds yet") && markdown(&[]).contains("no rounds yet"));
    well_formed(&html(&[it.clone()]));
    it.timeline.step_ms = u32::MAX;
    it.timeline.requests = vec![u32::MAX; 3];
    it.timeline.p50_ms = vec![f32::NAN, f32::INFINITY, 0.0, -1.0];
    it.timeline.leader = (0..5_000).map(|it| (it % 3 != 0).then_some((it % 251) as u8)).collect();
    it.timeline.marks = (0..100).map(|at| Mark { from_ms: at, to_ms: 0, text: "long ".repeat(100) }).collect();
    (it.fault_from_ms, it.fault_to_ms, it.whole_at_ms) = (u64::MAX, 0, Some(u64::MAX));
    it.times_ms.insert("write_gap".to_owned(), f64::NAN);
    let page = html(&[it]);
    well_formed(&page);
    assert!(page.len() < 60_000, "{} bytes", page.len());
}

/// Every tag that is opened is closed, in order.
fn well_formed(page: &str) {
    const EMPTY: [&str; 4] = ["meta", "br", "rect", "path"];
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split_once('>').expect("a tag ends").0;
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().expect("a tag has a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag} closes another");
        } else if !EMPTY.contains(&name) && !tag.starts_with('!') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

#[test]
fn a_torn_last_line_is_passed_over_and_written_over() {
    let folder = tempfile();
    let path = folder.join("rounds.jsonl");
    let rounds = small();
    append(&path, &rounds[0]).expect("it is written");
    append(&path, &rounds[1]).expect("it is written");
    let whole = fs::read(&path).expect("it is there");
    let first = whole.iter().position(|it| *it == b'\n').expect("a line ends") + 1;
    for length in first..whole.len() {
        fs::write(&path, &whole[..length]).expect("it can be torn");
        let is_all_there = length + 1 == whole.len();
        let expected = if is_all_there { &rounds[..2] } else { &rounds[..1] };
        assert_eq!(read(&path).expect("what is whole is read"), expected, "torn at {length}");
        if length % 97 == 0 || is_all_there || length == first {
            append(&path, &rounds[2]).expect("it is written");
            let expected = [expected, &rounds[2..3]].concat();
            assert_eq!(read(&path).expect("all is whole"), expected, "torn at {length}");
        }
    }
    fs::remove_dir_all(folder).expect("it can go");
}

#[test]
fn a_whole_line_that_is_no_round_is_told() {
    let folder = tempfile();
    let path = folder.join("rounds.jsonl");
    let with = |line: &str| {
        fs::write(&path, "").expect("it can be emptied");
        append(&path, &small()[0]).expect("it is written");
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("it opens");
        writeln!(file, "{line}").expect("it is written");
        read(&path).map(|it| it.len())
    };
    assert!(matches!(with("{\"seed\":"), Err(ReadError::Line { number: 2, .. })));
    assert!(matches!(with("{\"version\":9}"), Err(ReadError::Version { number: 2, version: 9 })));
    assert_eq!(
        with("{\"later\":{\"field\":1},\"counts\":{\"x\":null},\"timeline\":{\"p50_ms\":[null,1]}}")
            .expect("it is a round"),
        2
    );
    assert!(matches!(with(&"x".repeat(5 << 20)), Err(ReadError::TooLong { number: 2 })));
    assert!(matches!(read(&folder.join("none")), Err(ReadError::Io(_))));
    fs::remove_dir_all(folder).expect("it can go");
}

/// A folder of this test alone.
fn tempfile() -> std::path::PathBuf {
    let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
    let folder = std::env::temp_dir().join(format!("page-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

#[test]
fn a_bug_whose_place_was_not_reached_was_not_noticed_whatever_else_went_wrong() {
    let mut round = round("one_way_cut", &["P3"], Outcome::Violated);
    assert!(!round.shows_its_bug(), "none is planted");
    round.planted = Some("raft::VotesTwice".to_owned());
    round.bit = vec![Proof { what: Round::REACHED.to_owned(), number: 0.0, is_so: false }];
    let missed = [round.clone()];
    assert_eq!(Report::of(&missed).revisions[0].caught(), 0);
    round.bit[0].is_so = true;
    assert_eq!(Report::of(&[round]).revisions[0].caught(), 1);
}
