//! What nodes of an older release ask about the control group is read.

use super::core::bootstrap::Said;
use super::core::bootstrap::Stage;
use super::core::lives::Life;
use super::machine::Outcome;
use super::machine::Refusal;
use super::messages::Answer;
use super::messages::Message;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::older::Older;

const CLUSTER: ClusterId = ClusterId(1 << 100);

fn said(stage: Stage) -> Said {
    Said { stage, expect: 3, sees: [StorageId(1), StorageId(u128::MAX)].into() }
}

fn messages() -> Vec<(&'static str, Message)> {
    vec![
        ("fresh", Message::Hello(said(Stage::Fresh))),
        ("granted_to", Message::Hello(said(Stage::Granted { to: StorageId(1) }))),
        ("founding", Message::Hello(said(Stage::Founding { cluster: CLUSTER }))),
        ("member", Message::Hello(said(Stage::Member { cluster: CLUSTER }))),
        ("grant", Message::Grant { expect: 3 }),
        ("life", Message::Life { cluster: CLUSTER, life: Life { boot: 300, nonce: u64::MAX } }),
        ("propose", Message::Propose { cluster: CLUSTER, command: b"\x01\x05\x02".to_vec() }),
        ("stand", Message::Stand { cluster: CLUSTER }),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    vec![
        ("said", Answer::Said(said(Stage::Fresh))),
        ("granted", Answer::Granted(true)),
        ("lives", Answer::Life(Ok(()))),
        ("lives_no_more", Answer::Life(Err(Refusal::Forgotten))),
        ("changed", Answer::Proposed(Outcome::Changed)),
        ("unchanged", Answer::Proposed(Outcome::Unchanged)),
        ("too_old", Answer::Proposed(Outcome::Refused(Refusal::TooOld(2)))),
        ("level_too_low", Answer::Proposed(Outcome::Refused(Refusal::LevelTooLow(3)))),
        ("not_leader", Answer::NotLeader(Some(StorageId(u128::MAX)))),
        ("other_cluster", Answer::OtherCluster),
        ("no_room", Answer::NoRoom),
        ("stands", Answer::Stands(false)),
    ]
}

#[test]
fn what_an_older_release_asks_of_the_control_group_is_read() {
    let mut now: Vec<_> = messages().iter().map(|(name, it)| (*name, it.encode().unwrap())).collect();
    now.extend(answers().iter().map(|(name, it)| (*name, it.encode().unwrap())));
    let older = Older::of("src/control/older.hex", &now);
    for (name, message) in messages() {
        assert_eq!(Message::decode(older.bytes(name)), Some(message), "{name}");
    }
    for (name, answer) in answers() {
        assert_eq!(Answer::decode(older.bytes(name)).unwrap(), answer, "{name}");
    }
}
