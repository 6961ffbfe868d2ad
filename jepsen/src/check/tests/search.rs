//! The search for an order against one that tries all of them, on histories small enough for that.

use super::super::linear::Call;
use super::super::linear::Found;
use super::super::linear::Model;
use super::super::linear::search;
use super::super::orders::Growing;
use super::Draft;
use super::events;
use super::worlds;
use crate::history::Kind;
use crate::history::operations;
use crate::random::Random;

/// A list as it is, without knowing how it will look in the end.
struct Plain;

#[derive(Clone, Debug)]
enum Op {
    Append(u8),
    Read(Vec<u8>),
}

impl Model for Plain {
    type Op = Op;
    type State = Vec<u8>;

    fn initial(&self) -> Vec<u8> {
        Vec::new()
    }

    fn step(&self, state: &Vec<u8>, op: &Op) -> Option<Vec<u8>> {
        match op {
            Op::Append(item) => Some([state.as_slice(), &[*item]].concat()),
            Op::Read(items) => (items == state).then(|| state.clone()),
        }
    }
}

/// Tries every operation that may be next.
fn is_possible(state: &[u8], left: &[&Call<Op>]) -> bool {
    if left.iter().all(|it| it.ended.is_none()) {
        return true;
    }
    let first_end = left.iter().filter_map(|it| it.ended).min().unwrap_or(u64::MAX);
    left.iter().enumerate().filter(|it| it.1.began <= first_end).any(|(at, it)| {
        let rest: Vec<_> = left.iter().enumerate().filter(|other| other.0 != at).map(|other| *other.1).collect();
        Plain.step(&state.to_vec(), &it.op).is_some_and(|state| is_possible(&state, &rest))
    })
}

/// A few operations on one list, of which some reads are made up.
fn small(random: &mut Random) -> Vec<Call<Op>> {
    let mut calls: Vec<(u64, Call<Op>)> = Vec::new();
    let mut free = [0_u64; 3];
    for item in 0..7 {
        let client = random.below(3);
        let began = free[client] + random.below(4) as u64;
        let effect = began + random.below(4) as u64;
        let ended = effect + random.below(4) as u64;
        free[client] = ended + 1;
        let op = if random.percent(55) { Op::Append(item) } else { Op::Read(Vec::new()) };
        let is_open = matches!(op, Op::Append(_)) && random.percent(25);
        let effect = if is_open { effect + random.below(20) as u64 } else { effect };
        calls.push((effect, Call { began, ended: (!is_open).then_some(ended), op }));
    }
    calls.sort_by_key(|it| it.0);
    let mut list = Vec::new();
    for (_, call) in &mut calls {
        match &mut call.op {
            Op::Append(_) if call.ended.is_none() && random.percent(40) => {}
            Op::Append(item) => list.push(*item),
            Op::Read(items) => {
                items.clone_from(&list);
                if random.percent(20) && !items.is_empty() {
                    let at = random.below(items.len());
                    match random.below(3) {
                        0 => drop(items.remove(at)),
                        1 => items.truncate(at),
                        _ => items.swap(0, at),
                    }
                }
            }
        }
    }
    calls.into_iter().map(|it| it.1).collect()
}

#[test]
fn the_search_finds_an_order_exactly_where_there_is_one() {
    let (mut random, mut found) = (Random::new(5, 5), [0, 0]);
    for _ in 0..3000 {
        let calls = small(&mut random);
        let expected = is_possible(&[], &calls.iter().collect::<Vec<_>>());
        found[usize::from(expected)] += 1;
        let is_found = match search(&Plain, &calls, 1_000_000) {
            Found::Order => true,
            Found::None(_) => false,
            Found::TooMuch => panic!("so few take few steps"),
        };
        assert_eq!(is_found, expected, "{calls:#?}");
    }
    assert!(found[0] > 300 && found[1] > 300, "both are tried: {found:?}");
}

/// What is told of a small history, as the checkers read it.
fn drafts(calls: &[Call<Op>]) -> Vec<Draft> {
    let one = |(at, call): (usize, &Call<Op>)| {
        let (f, asked, told) = match &call.op {
            Op::Append(item) => ("append", serde_json::json!(item), serde_json::json!(item)),
            Op::Read(items) => ("read", serde_json::Value::Null, serde_json::json!(items)),
        };
        let kind = if call.ended.is_some() { Kind::Ok } else { Kind::Info };
        // Doubled, so that what is told of one moment does not depend on the order in the file.
        let (began, ended) = (2 * call.began, 2 * call.ended.unwrap_or(call.began) + 1);
        Draft {
            process: at as u32,
            f,
            key: "a".to_owned(),
            node: 0,
            began,
            effect: None,
            ended,
            kind,
            asked,
            told,
            error: String::new(),
        }
    };
    calls.iter().enumerate().map(one).collect()
}

#[test]
fn the_model_that_knows_the_longest_read_finds_the_same() {
    let (mut random, mut found) = (Random::new(6, 6), [0, 0]);
    for _ in 0..3000 {
        let calls = small(&mut random);
        let expected = is_possible(&[], &calls.iter().collect::<Vec<_>>());
        found[usize::from(expected)] += 1;
        let operations = operations(&events("lists", &drafts(&calls)));
        let (model, calls, _) = Growing::of(&operations.iter().collect::<Vec<_>>());
        assert_eq!(search(&model, &calls, 1_000_000) == Found::Order, expected, "{operations:#?}");
    }
    assert!(found[0] > 300 && found[1] > 300, "both are tried: {found:?}");
}

#[test]
fn a_search_that_takes_too_long_says_so() {
    let draft = worlds::lists(1);
    let operations = operations(&events("lists", &draft));
    let ops: Vec<_> = operations.iter().filter(|it| it.key == "a").collect();
    let (model, calls, _) = Growing::of(&ops);
    assert_eq!(search(&model, &calls, 5), Found::TooMuch);
    assert_eq!(search(&model, &calls, 100_000), Found::Order);
}
