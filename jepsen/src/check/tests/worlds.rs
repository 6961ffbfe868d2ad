//! Small stores that keep every promise, and what clients see of them.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Draft;
use super::MS;
use super::NODES;
use super::Sim;
use crate::history::Kind;

pub(super) fn lists(seed: u64) -> Vec<Draft> {
    let (mut sim, keys) = (Sim::new(seed, 5), ["a".to_owned(), "b".to_owned()]);
    for key in &keys {
        let at = sim.act(0, "create", key, Value::Null, true);
        sim.drafts[at].kind = Kind::Ok;
        sim.drafts[at].effect = None;
        sim.drafts[at].told = json!("conv");
    }
    for (free, _) in &mut sim.clients {
        *free += 100 * MS;
    }
    for number in 0..100 {
        let (client, _) = sim.next();
        let key = keys[sim.random.below(2)].clone();
        match sim.random.percent(60) {
            true => sim.act(client, "append", &key, json!(number), false),
            false => sim.act(client, "read", &key, Value::Null, true),
        };
    }
    sim.finals("final", &keys);
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for at in sim.effects() {
        let it = &mut sim.drafts[at];
        let list = lists.entry(it.key.clone()).or_default();
        match it.f {
            "append" => list.push(it.asked.clone()),
            _ => it.told = Value::Array(list.clone()),
        }
    }
    sim.drafts
}

/// What is told of a response.
fn response(key: &str, previous: &Value) -> Value {
    json!({"id": format!("resp_{key}"), "status": "completed", "previous": previous, "digest": format!("{key}!")})
}

fn events_of(key: &str) -> Vec<Value> {
    let kinds = ["response.created", "response.in_progress", "delta", "delta", "delta", "response.completed"];
    kinds.iter().enumerate().map(|(number, kind)| json!([number, kind, format!("{key}{number}")])).collect()
}

pub(super) fn responses(seed: u64) -> Vec<Draft> {
    let mut sim = Sim::new(seed, 4);
    let mut known: Vec<(String, u64)> = Vec::new();
    let mut deleted: Vec<String> = Vec::new();
    for number in 0..150 {
        let (client, now) = sim.next();
        let there: Vec<_> = known.iter().filter(|it| it.1 < now).map(|it| it.0.clone()).collect();
        let one = sim.random.one(&there).cloned();
        match (sim.random.below(100), one) {
            (0..40, one) | (_, one @ None) => {
                let key = format!("r{number}");
                let previous_id = one.as_ref().map(|it| format!("resp_{it}"));
                let at = sim.act(client, "create", &key, json!({"previous": one, "previous_id": previous_id}), false);
                if sim.drafts[at].kind == Kind::Info && sim.drafts[at].effect.is_some() {
                    sim.drafts[at].told = json!({"id": format!("resp_{key}")});
                }
                if sim.drafts[at].effect.is_some() {
                    known.push((key, sim.drafts[at].ended));
                }
            }
            (40..50, Some(one)) if !deleted.contains(&one) => {
                sim.act(client, "delete", &one, Value::Null, false);
                deleted.push(one);
            }
            (_, Some(one)) => drop(sim.act(client, "read", &one, Value::Null, true)),
        }
    }
    let keys: Vec<_> = known.into_iter().map(|it| it.0).collect();
    sim.finals("final", &keys);
    let mut store: BTreeMap<String, Value> = BTreeMap::new();
    for at in sim.effects() {
        let it = &mut sim.drafts[at];
        match it.f {
            "create" => {
                let made = response(&it.key, &it.asked["previous_id"]);
                store.insert(it.key.clone(), made.clone());
                if it.kind == Kind::Ok {
                    it.told = made;
                    it.told["events"] = json!(events_of(&it.key));
                }
            }
            "delete" => {
                let was = store.remove(&it.key).is_some();
                if it.kind == Kind::Ok {
                    it.told = if was { json!(true) } else { Value::Null };
                }
            }
            _ => it.told = store.get(&it.key).cloned().unwrap_or_default(),
        }
    }
    sim.drafts
}

pub(super) fn background(seed: u64) -> Vec<Draft> {
    let mut sim = Sim::new(seed, 4);
    // When each event of each is kept.
    let mut jobs: BTreeMap<String, (u64, Vec<u64>)> = BTreeMap::new();
    for number in 0..150 {
        let (client, now) = sim.next();
        let there: Vec<_> = jobs.iter().filter(|it| it.1.0 < now).map(|it| it.0.clone()).collect();
        let one = sim.random.one(&there).cloned();
        match (sim.random.below(100), one) {
            (0..15, _) | (_, None) => {
                let key = format!("b{number}");
                let at = sim.act(client, "create", &key, Value::Null, false);
                if sim.drafts[at].kind == Kind::Ok {
                    let (mut time, mut kept) = (sim.drafts[at].ended, Vec::new());
                    for _ in events_of(&key) {
                        time += sim.ms(60);
                        kept.push(time);
                    }
                    jobs.insert(key, (sim.drafts[at].ended, kept));
                }
            }
            (15..60, Some(one)) => {
                let after = sim.random.percent(50).then(|| sim.random.below(7));
                let at = sim.act(client, "follow", &one, json!({"after": after}), true);
                let longer = sim.ms(200);
                sim.drafts[at].ended += longer;
                sim.clients[client].0 += longer;
            }
            (_, Some(one)) => drop(sim.act(client, "read", &one, Value::Null, true)),
        }
    }
    let keys: Vec<_> = jobs.keys().cloned().collect();
    sim.finals("final", &keys);
    sim.finals("final_events", &keys);
    for at in sim.effects() {
        let it = &mut sim.drafts[at];
        let Some((_, kept)) = jobs.get(&it.key) else { continue };
        match it.f {
            "create" => it.told = json!("resp"),
            "read" | "final" => {
                let is_over = it.effect >= kept.last().copied();
                it.told = response(&it.key, &Value::Null);
                if !is_over {
                    it.told["status"] = json!("in_progress");
                    it.told["digest"] = json!("other");
                }
            }
            _ => {
                let after = it.asked["after"].as_u64();
                let seen = kept.iter().filter(|time| **time < it.ended).count();
                let events: Vec<_> = events_of(&it.key).into_iter().take(seen).collect();
                let wanted = events.into_iter().skip(after.map_or(0, |it| it as usize + 1)).collect::<Vec<_>>();
                it.told = json!({"after": after, "events": wanted, "whole": seen == kept.len()});
            }
        }
    }
    sim.drafts
}

pub(super) fn idempotency(seed: u64) -> Vec<Draft> {
    let mut sim = Sim::new(seed, 4);
    let at = sim.act(0, "ask", "i", json!({"what": "conversation", "in": ""}), true);
    sim.drafts[at].kind = Kind::Ok;
    sim.drafts[at].effect = Some(sim.drafts[at].began + MS);
    for (free, _) in &mut sim.clients {
        *free += 100 * MS;
    }
    for number in 0..90 {
        let (client, _) = sim.next();
        let key = number / 3;
        let what = if key % 3 == 0 { "response" } else { "items" };
        sim.act(client, "ask", &format!("k{key}"), json!({"what": what, "in": "i"}), false);
    }
    sim.finals("final", &["i".to_owned()]);
    let (mut done, mut texts): (BTreeMap<String, usize>, Vec<String>) = Default::default();
    for at in sim.effects() {
        let it = &mut sim.drafts[at];
        if it.f == "final" {
            it.told = json!(texts);
            continue;
        }
        let (next, is_inside) = (done.len(), it.asked["in"] == "i");
        let id = *done.entry(it.key.clone()).or_insert_with(|| {
            texts.extend(is_inside.then(|| it.key.clone()));
            next
        });
        if it.kind == Kind::Ok {
            let status = if it.asked["what"] == "response" { json!("completed") } else { Value::Null };
            it.told =
                json!({"what": it.asked["what"], "in": it.asked["in"], "id": format!("id{id}"), "status": status});
        }
    }
    sim.drafts
}

/// An addition as nodes tell it to each other: fields are those of the later stamp, what is removed stays removed.
#[derive(Clone, Default)]
struct Instance {
    label: (u64, String),
    priority: (u64, u64),
    is_gone: bool,
}

impl Instance {
    /// Whether the node has heard that it was added, and not that it was removed.
    fn is_there(&self) -> bool {
        !self.is_gone && !self.label.1.is_empty()
    }
}

/// What a node knows: by URL, by the number of the addition.
type Known = BTreeMap<(String, u64), Instance>;

fn merge(known: &mut Known, key: (String, u64), news: &Instance) {
    let it = known.entry(key).or_default();
    it.label = it.label.clone().max(news.label.clone());
    it.priority = it.priority.max(news.priority);
    it.is_gone |= news.is_gone;
}

/// Nodes that hear of each other's edits up to a second and a half later, in any order.
pub(super) fn workers(seed: u64) -> Vec<Draft> {
    let mut sim = Sim::new(seed, 4);
    let urls = ["http://w1".to_owned(), "http://w2".to_owned()];
    for number in 0..160 {
        let (client, _) = sim.next();
        let url = urls[sim.random.below(2)].clone();
        match sim.random.below(100) {
            0..30 => sim.act(client, "add", &url, json!({"label": format!("t.{number}")}), false),
            30..45 => sim.act(client, "remove", &url, Value::Null, false),
            45..60 => {
                sim.act(client, "read", "*", Value::Null, true);
                sim.act(client, "change", &url, json!({"priority": 1000 + number}), false)
            }
            _ => sim.act(client, "read", "*", Value::Null, true),
        };
    }
    sim.finals("final", &["*".to_owned()]);
    let mut nodes: Vec<Known> = vec![Known::new(); NODES];
    // What each client found last at a node.
    let mut found: BTreeMap<(u32, usize, String), (String, u64)> = BTreeMap::new();
    // When, to whom, what.
    let mut way: Vec<(u64, usize, (String, u64), Instance)> = Vec::new();
    for at in sim.effects() {
        let (now, node) = (sim.drafts[at].effect.unwrap_or_default(), sim.drafts[at].node);
        way.retain(|(time, to, key, news)| {
            let is_there = *time <= now;
            if is_there {
                merge(&mut nodes[*to], key.clone(), news);
            }
            !is_there
        });
        let process = sim.drafts[at].process;
        if sim.drafts[at].f == "read" {
            found.retain(|of, _| (of.0, of.1) != (process, node));
            let there = nodes[node].iter().rev().filter(|it| it.1.is_there());
            found.extend(there.map(|it| ((process, node, it.0.0.clone()), it.0.clone())));
        }
        let target = found.get(&(process, node, sim.drafts[at].key.clone()));
        let changed = edit(&mut nodes[node], &mut sim.drafts[at], now, target);
        for (key, news) in changed {
            for to in (0..NODES).filter(|it| *it != node) {
                way.push((now + sim.ms(1500), to, key.clone(), news.clone()));
            }
        }
    }
    sim.drafts
}

/// Carries one out at a node, a change to `target`; what changed.
fn edit(known: &mut Known, it: &mut Draft, now: u64, target: Option<&(String, u64)>) -> Vec<((String, u64), Instance)> {
    let alive: Vec<_> =
        known.iter().filter(|one| one.0.0 == it.key && one.1.is_there()).map(|one| one.0.clone()).collect();
    let changed = match it.f {
        "add" => {
            let key = alive.first().cloned().unwrap_or((it.key.clone(), now));
            let label = (now, it.asked["label"].as_str().unwrap_or_default().to_owned());
            it.told = if it.kind == Kind::Ok { json!({"label": label.1, "durable": true}) } else { Value::Null };
            vec![(key, Instance { label, priority: (now, 50), is_gone: false })]
        }
        "remove" => alive.into_iter().map(|key| (key, Instance { is_gone: true, ..Instance::default() })).collect(),
        "change" => {
            let priority = (now, it.asked["priority"].as_u64().unwrap_or_default());
            let found = alive.into_iter().filter(|it| Some(it) == target);
            found.map(|key| (key, Instance { priority, ..Instance::default() })).collect()
        }
        _ => {
            let mut shown = Map::new();
            for ((url, _), one) in known.iter().rev().filter(|one| one.1.is_there()) {
                shown.insert(url.clone(), json!({"label": one.label.1, "priority": one.priority.1}));
            }
            it.told = Value::Object(shown);
            return Vec::new();
        }
    };
    if changed.is_empty() {
        // As 404: there was none here.
        it.kind = if it.kind == Kind::Ok { Kind::Fail } else { it.kind };
        it.told = Value::Null;
    }
    for (key, news) in &changed {
        merge(known, key.clone(), news);
    }
    changed
}

pub(super) fn limits(seed: u64) -> Vec<Draft> {
    const LIMIT: u64 = 30;
    let mut sim = Sim::new(seed, 4);
    let at = sim.act(0, "limit", "team", json!({"limit": LIMIT, "window_ms": 1000}), true);
    sim.drafts[at].kind = Kind::Ok;
    sim.drafts[at].told = sim.drafts[at].asked.clone();
    sim.drafts[at].effect = None;
    for (free, _) in &mut sim.clients {
        *free += 100 * MS;
    }
    for _ in 0..800 {
        let (client, _) = sim.next();
        sim.act(client, "ask", "team", Value::Null, false);
    }
    let mut spent: BTreeMap<u64, u64> = BTreeMap::new();
    for at in sim.effects() {
        let it = &mut sim.drafts[at];
        let window = (1_000_123 * MS + it.effect.unwrap_or_default()) / (1000 * MS);
        let count = spent.entry(window).or_default();
        if *count < LIMIT {
            *count += 1;
        } else if it.kind == Kind::Ok {
            (it.kind, it.error) = (Kind::Fail, "429 rate_limit_exceeded".to_owned());
        }
    }
    sim.drafts
}
