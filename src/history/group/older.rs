//! What nodes of an older release ask of history's group is read.

use super::messages::Answer;
use super::messages::Message;
use super::messages::Question;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::older::Older;
use crate::history::Id;
use crate::history::Status;
use crate::history::machine::Outcome;
use crate::history::machine::Refusal;

fn messages() -> Vec<(&'static str, Message)> {
    let message = |question| Message { cluster: ClusterId(1 << 100), question };
    vec![
        ("propose", message(Question::Propose(vec![b"\x01\x02".to_vec(), Vec::new()]))),
        ("index", message(Question::Index)),
        ("stand", message(Question::Stand)),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let id = || Id::parse("resp_1").unwrap();
    let refusals = vec![
        Refusal::NotFound(id()),
        Refusal::Exists(id()),
        Refusal::Unfinished(id()),
        Refusal::Ended(Status::Cancelled),
        Refusal::KeyReused,
        Refusal::Full(300),
        Refusal::TooMany(7),
        Refusal::Stale,
        Refusal::Owned,
        Refusal::NoLease,
        Refusal::Gap(4),
        Refusal::TooOld,
        Refusal::Restoring(9),
        Refusal::NotEmpty,
        Refusal::Unsound,
    ];
    let outcomes = [Outcome::Done, Outcome::Unchanged, Outcome::Known(id())];
    let all = outcomes.into_iter().chain(refusals.into_iter().map(Outcome::Refused)).collect();
    vec![
        ("done", Answer::Done(all)),
        ("is_at", Answer::Index(70_000)),
        ("not_leader", Answer::NotLeader(Some(StorageId(u128::MAX)))),
        ("no_leader", Answer::NotLeader(None)),
        ("no_room", Answer::NoRoom),
        ("other_cluster", Answer::OtherCluster),
        ("stands", Answer::Stands(true)),
    ]
}

#[test]
fn what_an_older_release_asks_of_history_is_read() {
    let mut now: Vec<_> = messages().iter().map(|(name, it)| (*name, it.encode().unwrap())).collect();
    now.extend(answers().iter().map(|(name, it)| (*name, it.encode().unwrap())));
    let older = Older::of("src/history/group/older.hex", &now);
    for (name, message) in messages() {
        assert_eq!(Message::decode(older.bytes(name)), Some(message), "{name}");
    }
    for (name, answer) in answers() {
        assert_eq!(Answer::decode(older.bytes(name)).unwrap(), answer, "{name}");
    }
}
