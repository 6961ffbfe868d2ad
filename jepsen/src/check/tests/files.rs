//! Histories on disk and in Jepsen's own form.

use adya::History;
use adya::Opts;
use adya::Valid;
use adya::Workload;

use super::SEEDS;
use super::events;
use super::judged;
use super::worlds;
use crate::check::check;
use crate::edn::edn;
use crate::history::read;
use crate::history::write;

#[test]
fn a_history_that_was_written_is_judged_as_before() {
    let path = std::env::temp_dir().join(format!("jepsen-{}.jsonl", std::process::id()));
    for seed in 0..5 {
        let mut drafts = worlds::lists(seed);
        let last = drafts.iter_mut().rfind(|it| it.f == "final").expect("there is one");
        last.told.as_array_mut().expect("a list").swap(0, 1);
        let all = events("lists", &drafts);
        write(&path, &all).expect("it can be written");
        let again = read(&path).expect("it can be read");
        assert_eq!(again, all);
        assert_eq!(check(&again), judged("lists", &drafts));
    }
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn others_read_it_in_jepsens_form_and_find_the_same() {
    let opts = Opts::default();
    for seed in 0..SEEDS {
        let mut drafts = worlds::lists(seed);
        let right = History::from_edn(&edn(&events("lists", &drafts))).expect("it is EDN");
        assert!(right.ops.len() > 150, "{}", right.ops.len());
        assert_eq!(adya::check(&right, Workload::ListAppend, &opts).valid, Valid::True, "seed {seed}");
        let last = drafts.iter_mut().rfind(|it| it.f == "final").expect("there is one");
        last.told.as_array_mut().expect("a list").swap(0, 1);
        let wrong = History::from_edn(&edn(&events("lists", &drafts))).expect("it is EDN");
        assert_eq!(adya::check(&wrong, Workload::ListAppend, &opts).valid, Valid::False, "seed {seed}");
    }
    let text = edn(&events("background", &worlds::background(1)));
    assert!(text.contains(":process :nemesis") && text.contains(":f :final-events"), "names are Jepsen's");
}
