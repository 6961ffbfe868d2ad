//! The life of one cluster: round after round under load, then quiet, and whether what clients saw can have happened.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::lasting;
use jepsen::history::Event;
use jepsen::history::Kind;
use jepsen::page::Mark;
use jepsen::page::Outcome;
use jepsen::page::Proof;
use jepsen::page::Round;
use jepsen::page::Timeline;
use jepsen::recorder::Recorder;
use jepsen::workload::Run;
use jepsen::workload::Target;
use jepsen::workload::Workload;
use serde_json::Value;
use smg::base::clock::Clock;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::inject;
use super::inject::Hurt;
use super::load::End;
use super::load::Load;
use super::load::Sample;
use super::plan::Fault;
use super::plan::Plan;
use super::plan::Whom;
use super::world::World;
use crate::ask::ADMIN_KEY;
use crate::case::Case;
use crate::trail::Sighting;
use crate::trail::Trail;

/// Before a fault, under load; what follows is laid beside it.
const CALM: Duration = Duration::from_millis(1000);
/// After it is whole.
const TAIL: Duration = Duration::from_millis(500);
/// Ten times what healing should take, and more for a debug build: beyond it the cluster is not whole, and its life is over.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// For the last reads of everything at every node.
const SETTLED_MAX: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);
/// What was on its way when disks became full is there by then.
const REFUSED_AFTER: Duration = Duration::from_secs(1);
/// Of a list of things that went wrong, so many are told.
const TOLD_MAX: usize = 5;

/// Of what a checker says of one violation, so many characters are told; it says all of it when it is asked again.
const WORDS_MAX: usize = 400;

/// What checkers find is counted by its first word where that is one of these.
const COUNTED: &[&str] = &["lost", "twice", "stale read", "resurrected", "stuck", "over the limit", "gap"];

/// What all rounds of a run have in common.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) revision: String,
    pub(super) machine: String,
    pub(super) planted: Option<String>,
}

/// How a life ended.
pub(super) struct Lived {
    pub(super) rounds: Vec<Round>,
    /// Everything that clients saw, to be kept if something cannot have happened.
    pub(super) history: Vec<Event>,
}

/// One round that is over, before it is known what clients saw in all.
struct Done {
    round: Round,
    plan: &'static Plan,
    /// On the recorder's clock.
    began: Duration,
    /// From when to when the fault was there as a whole.
    fault: (Duration, Duration),
    until: Duration,
}

/// A cluster of this ground and size goes through these rounds.
pub(super) async fn live(case: &Case, plans: &[&'static Plan], identity: &Identity, first: u64) -> Lived {
    let whole = async {
        let mut world = World::begin(case, plans[0].ground, plans[0].nodes, identity.planted.as_deref()).await;
        live_in(&mut world, plans, identity, first).await
    };
    LocalSet::new().run_until(whole).await
}

/// Rounds of a cluster that is there; then it is quiet, and judged. In a `LocalSet`.
pub(super) async fn live_in(world: &mut World<'_>, plans: &[&'static Plan], identity: &Identity, first: u64) -> Lived {
    let recorder = Recorder::new();
    let nodes: Vec<_> = world.fleet.nodes.iter().map(|it| it.http).collect();
    let target = Rc::new(Target {
        nodes: nodes.clone(),
        admin_key: ADMIN_KEY.to_owned(),
        model: "m".to_owned(),
        // Nobody listens there: they are only ever registered and removed.
        workers: (0..4).map(|it| format!("http://{}:{}", world.fleet.lab.observer(), 9100 + it)).collect(),
    });
    world.load = Load::begin(&nodes);
    let mut run = Run::begin(target, &recorder, &Workload::ALL, world.fleet.case.seed);
    let mut done: Vec<Done> = Vec::new();
    for (plan, number) in plans.iter().zip(first..) {
        let one = round(world, plan, &recorder, identity, number).await;
        let is_whole = one.round.whole_at_ms.is_some();
        done.push(one);
        if !is_whole {
            break;
        }
    }
    run.stop().await;
    run.settle(SETTLED_MAX).await;
    std::mem::replace(&mut world.load, Load::begin(&[])).end().await;
    let terms = world.watch.leaders();
    let history = recorder.events();
    seen(&mut done, &history, identity);
    if let Some(last) = done.last_mut() {
        last.round.violations.extend(world.ended());
    }
    ends(world, &mut done, &terms).await;
    Lived { rounds: done.into_iter().map(|it| it.round).collect(), history }
}

async fn round(
    world: &mut World<'_>,
    plan: &'static Plan,
    recorder: &Recorder,
    identity: &Identity,
    number: u64,
) -> Done {
    let (begun, began) = (Clock.now(), recorder.elapsed());
    world.load.forget(begun);
    world.watch.forget(begun - Duration::from_secs(2));
    let mut trail = Trail::from_now(&world.fleet);
    let given_up = world.given_up(plan.fault).await;
    lasting(CALM).await;
    let fault_from = Clock.now();
    let mut hurt = inject::hurt(world, plan.fault).await;
    recorder.note(plan.name, "begins", Value::from(hurt.what.clone()));
    let hurt_from = recorder.elapsed();
    lasting(plan.lasts(world.fleet.case.entropy.below(100_000))).await;
    let hurt_to = recorder.elapsed();
    inject::heal(world, &mut hurt).await;
    recorder.note(plan.name, "ends", Value::Null);
    let fault_to = Clock.now();
    let (heal, waited) = world.whole_within(WHOLE_MAX).await;
    let missing = if heal.is_some() { String::new() } else { world.missing().await };
    let whole = Clock.now();
    let lingering = lingering(world, plan).await;
    lasting(TAIL).await;
    let until = recorder.elapsed();
    let ms = |it: Instant| u64::try_from((it - begun).as_millis()).unwrap_or(u64::MAX);
    let mut round = Round {
        version: Round::VERSION,
        revision: identity.revision.clone(),
        machine: identity.machine.clone(),
        date: jepsen::page::rfc3339(Clock.wall().as_secs()),
        scenario: plan.name.to_owned(),
        promises: plan.promises.iter().map(ToString::to_string).collect(),
        seed: world.fleet.case.seed,
        number,
        nodes: plan.nodes,
        fault_from_ms: ms(fault_from),
        fault_to_ms: ms(fault_to),
        whole_at_ms: heal.map(|_| ms(whole)),
        fault: hurt.what.clone(),
        planted: identity.planted.clone(),
        rss_bytes: world.memory(),
        ..Round::default()
    };
    let samples = world.load.since(begun);
    requests(&mut round, plan, &hurt, &samples, (fault_from, whole));
    left(world, &mut round, plan, &samples, given_up).await;
    round.bit = hurt
        .proofs
        .iter()
        .map(|(what, number, is_so)| Proof { what: (*what).to_owned(), number: *number, is_so: *is_so })
        .collect();
    round.bit.push(Proof {
        what: "requests served".to_owned(),
        number: round.counts["served"],
        is_so: round.counts["served"] > 20.0,
    });
    if let Some(took) = heal {
        round.times_ms.insert("heal".to_owned(), took.as_secs_f64() * 1e3);
    } else {
        round.violations.push(format!("not whole {WHOLE_MAX:?} after it was healed: {missing}"));
    }
    round.violations.extend(world.ended().into_iter().chain(lingering));
    sighted(&mut round, plan, &hurt, &trail.read(&world.fleet));
    round.timeline = timeline(begun, whole + TAIL, &samples);
    leaders(world, &mut round.timeline, begun).await;
    let mark = |(what, at)| Mark { from_ms: ms(fault_to), to_ms: ms(at), text: format!("waited for {what}") };
    round.timeline.marks.extend(waited.into_iter().map(mark));
    if let Some(at) = round.whole_at_ms {
        round.timeline.marks.push(Mark { from_ms: at, to_ms: at, text: "whole".to_owned() });
    }
    Done { round, plan, began, fault: (hurt_from, hurt_to), until }
}

/// What has no data any more is replaced before the next round.
async fn lingering(world: &World<'_>, plan: &Plan) -> Option<String> {
    let is_replaced = !plan.fault.takes_data() || world.replaced_within(WHOLE_MAX).await;
    (!is_replaced).then(|| format!("P3: what has no data any more still votes after {WHOLE_MAX:?}"))
}

/// Who led in each step.
async fn leaders(world: &World<'_>, line: &mut Timeline, begun: Instant) {
    let names = world.names().await;
    let leaders = world.watch.since(begun);
    for at in (1u32..).take(line.requests.len()) {
        let known = leaders.iter().take_while(|it| it.at <= begun + STEP * at).last();
        let leader = known.and_then(|it| names.get(it.leader.as_deref()?)).and_then(|it| u8::try_from(*it).ok());
        line.leader.push(leader);
        line.terms.push(known.map_or(0, |it| it.term));
    }
}

/// What became of requests, and whether it may have.
fn requests(round: &mut Round, plan: &Plan, hurt: &Hurt, samples: &[Sample], fault: (Instant, Instant)) {
    let mut count = |name: &str, number: usize| {
        round.counts.insert(name.to_owned(), number as f64);
    };
    let is_hit = |it: &&Sample| hurt.victims.contains(&it.node) && it.ended >= fault.0 && it.due <= fault.1;
    let elsewhere: Vec<&Sample> = samples.iter().filter(|it| !is_hit(it)).collect();
    let failed = |it: &&&Sample| matches!(it.end, End::Failed(_) | End::NotSent);
    count("requests", samples.len());
    count("served", samples.iter().filter(|it| it.end == End::Served).count());
    count("failed_elsewhere", elsewhere.iter().filter(failed).count());
    count("streams_broken", samples.iter().filter(|it| it.end == End::Broken).count());
    let silent: Vec<&Sample> = samples.iter().filter(|it| it.end == End::Silent).collect();
    count("streams_silent", silent.len());
    let tell = |these: &[&Sample]| {
        let told = these.iter().take(TOLD_MAX).map(|it| {
            let ago = it.due.saturating_duration_since(fault.0).as_secs_f64()
                - fault.0.saturating_duration_since(it.due).as_secs_f64();
            let end = if it.ended < fault.0 { " (before the fault)" } else { "" };
            format!("at node {} {ago:+.2} s after the fault{end}: {:?}", it.node, it.end)
        });
        told.collect::<Vec<_>>().join("; ")
    };
    let failed: Vec<&Sample> = elsewhere.iter().filter(|it| failed(it)).copied().collect();
    if !failed.is_empty() {
        round.violations.push(format!(
            "P1: {} requests failed where nothing was wrong: {}",
            failed.len(),
            tell(&failed)
        ));
    }
    let silent: Vec<&Sample> = silent.into_iter().filter(|it| !is_hit(it)).collect();
    if !silent.is_empty() {
        round.violations.push(format!("P6: {} streams ended without a word: {}", silent.len(), tell(&silent)));
    }
    let is_of_workers = matches!(plan.fault, Fault::Worker(_) | Fault::WorkerDies);
    let broken: Vec<&Sample> = elsewhere.iter().filter(|it| it.end == End::Broken && !is_of_workers).copied().collect();
    if !broken.is_empty() {
        round.violations.push(format!("P1: {} streams broke where nothing was wrong: {}", broken.len(), tell(&broken)));
    }
    if matches!(plan.fault, Fault::Drain(_) | Fault::Roll) {
        let is_lost = |it: &&Sample| is_hit(it) && matches!(it.end, End::Failed(_) | End::Silent | End::Broken);
        let lost: Vec<&Sample> = samples.iter().filter(is_lost).collect();
        if !lost.is_empty() {
            round.violations.push(format!(
                "P10: {} requests that a draining node had were lost: {}",
                lost.len(),
                tell(&lost)
            ));
        }
    }
}

/// What clients left must not go on at the workers. `before`: requests that were given up when the round began.
async fn left(world: &World<'_>, round: &mut Round, plan: &Plan, samples: &[Sample], before: u64) {
    // Where no node is hurt, a request is at a worker long before.
    let is_counted =
        |it: &&Sample| it.end == End::Left || it.end == End::LeftEarly && matches!(plan.fault, Fault::Worker(_));
    let left = samples.iter().filter(is_counted).count() as u64;
    round.counts.insert("clients_left".to_owned(), left as f64);
    // One that is killed takes its counts with it.
    if plan.fault == Fault::WorkerDies {
        return;
    }
    let given_up = world.given_up_to(before + left, plan.fault).await - before;
    if given_up < left {
        round.violations.push(format!("P7: {left} clients left in the middle, {given_up} requests were given up"));
    }
}

/// What nodes said of each other.
fn sighted(round: &mut Round, plan: &Plan, hurt: &Hurt, seen: &[Sighting]) {
    unheard(round, plan, hurt, seen);
    evicted(round, plan, hurt, seen);
}

/// Who drains says goodbye, and is not looked for after that.
fn unheard(round: &mut Round, plan: &Plan, hurt: &Hurt, seen: &[Sighting]) {
    if !matches!(plan.fault, Fault::Drain(_) | Fault::Roll) {
        return;
    }
    for whom in &hurt.victims {
        let said: Vec<_> = seen.iter().filter(|it| it.whom == *whom && it.by != *whom).collect();
        if !said.iter().any(|it| it.status == "left") {
            round.violations.push(format!("P10: nobody heard that node {whom} leaves: {said:?}"));
        }
    }
}

/// A node that sleeps must not hold those for dead that run.
fn evicted(round: &mut Round, plan: &Plan, hurt: &Hurt, seen: &[Sighting]) {
    let down: Vec<_> = seen.iter().filter(|it| it.status == "down" && !hurt.victims.contains(&it.whom)).collect();
    round.counts.insert("held_for_dead_though_alive".to_owned(), down.len() as f64);
    if matches!(plan.fault, Fault::Pause(_)) && !down.is_empty() {
        round.violations.push(format!("nodes that ran were declared down: {down:?}"));
    }
}

fn timeline(begun: Instant, until: Instant, samples: &[Sample]) -> Timeline {
    let steps = ((until - begun).as_millis() / STEP.as_millis()) as usize + 1;
    let mut times: Vec<Vec<f32>> = vec![Vec::new(); steps];
    let mut line = Timeline {
        step_ms: u32::try_from(STEP.as_millis()).unwrap_or(100),
        requests: vec![0; steps],
        errors: vec![0; steps],
        acknowledged: vec![0; steps],
        ..Timeline::default()
    };
    for sample in samples {
        let step = (sample.ended.saturating_duration_since(begun).as_millis() / STEP.as_millis()) as usize;
        if step < steps {
            line.requests[step] += 1;
            line.errors[step] += u32::from(!sample.end.is_well());
            times[step].push((sample.ended - sample.due).as_secs_f32() * 1e3);
        }
    }
    for times in &mut times {
        times.sort_by(f32::total_cmp);
        let at =
            |share: f32| times.get(((times.len().max(1) - 1) as f32 * share).ceil() as usize).copied().unwrap_or(0.0);
        line.p50_ms.push(at(0.5));
        line.p99_ms.push(at(0.99));
    }
    line
}

/// Lays what clients of history, workers and limits saw beside the rounds in which they saw it.
fn seen(done: &mut [Done], history: &[Event], identity: &Identity) {
    for it in done.iter_mut() {
        let acks: Vec<Duration> = history
            .iter()
            .filter(|event| {
                event.kind == Kind::Ok && event.f == "append" && (it.began..=it.until).contains(&event.at())
            })
            .map(Event::at)
            .collect();
        for at in &acks {
            let step = ((*at - it.began).as_millis() / STEP.as_millis()) as usize;
            if let Some(count) = it.round.timeline.acknowledged.get_mut(step) {
                *count += 1;
            }
        }
        let from = it.began + Duration::from_millis(it.round.fault_from_ms);
        let gaps = acks.windows(2).filter(|pair| pair[1] >= from).map(|pair| pair[1] - pair[0]);
        let gap = gaps.max().unwrap_or(it.until - it.began);
        it.round.times_ms.insert("write_gap".to_owned(), gap.as_secs_f64() * 1e3);
        it.round.counts.insert("acknowledged".to_owned(), acks.len() as f64);
        let without_room = acks.iter().filter(|at| (it.fault.0 + REFUSED_AFTER..it.fault.1).contains(*at)).count();
        if it.plan.fault == Fault::FullDisk(Whom::All) && without_room > 0 {
            let what = format!("P3: {without_room} writes were acknowledged though no disk had room");
            it.round.violations.push(what);
        }
        it.round.bit.push(Proof {
            what: "writes acknowledged".to_owned(),
            number: acks.len() as f64,
            is_so: acks.len() > 5,
        });
    }
    let verdicts = jepsen::check(history);
    for it in done.iter_mut() {
        for name in COUNTED {
            it.round.counts.insert((*name).to_owned(), 0.0);
        }
    }
    for verdict in verdicts {
        for violation in &verdict.violations {
            let at = violation.at.iter().min().map_or(Duration::ZERO, |it| Duration::from_nanos(*it));
            let within = done.iter().rposition(|it| it.began <= at).unwrap_or(0);
            let promise = match verdict.workload.as_str() {
                "limits" => "P4: ",
                "workers" => "P2: ",
                _ => "P3: ",
            };
            let what: String = violation.what.chars().take(WORDS_MAX).collect();
            let text = format!("{promise}{} by {}: {what}", verdict.workload, verdict.checker);
            let counts = &mut done[within].round.counts;
            for name in COUNTED.iter().filter(|it| violation.what.starts_with(**it)) {
                *counts.entry((*name).to_owned()).or_default() += 1.0;
            }
            done[within].round.violations.push(text);
        }
        let is_decided = verdict.unknown.is_none() || verdict.checker != "direct";
        for it in done.iter_mut() {
            let name = format!("{}_{}", verdict.workload, verdict.checker);
            it.round.counts.insert(format!("{name}_undecided"), f64::from(u8::from(verdict.unknown.is_some())));
            if !is_decided && identity.planted.is_none() {
                let what = format!("{name} could be decided: {}", verdict.unknown.as_deref().unwrap_or_default());
                it.round.bit.push(Proof { what, number: 0.0, is_so: false });
            }
        }
    }
}

/// What must be so when nobody asks any more.
async fn ends(world: &World<'_>, done: &mut [Done], terms: &BTreeMap<u64, Vec<String>>) {
    let Some(last) = done.last_mut() else { return };
    let in_flight = world.in_flight().await;
    last.round.counts.insert("in_flight_at_idle".to_owned(), in_flight);
    if in_flight > 0.0 {
        last.round.violations.push(format!("P7: {in_flight} requests are in flight though nobody asks"));
    }
    let panics = world.panics();
    last.round.counts.insert("panics".to_owned(), panics as f64);
    if panics > 0 {
        last.round.violations.push(format!("{panics} nodes panicked"));
    }
    for (term, leaders) in terms.iter().filter(|it| it.1.len() > 1) {
        last.round.violations.push(format!("P3: term {term} had leaders {leaders:?}"));
    }
    for at in 0..world.fleet.nodes.len() {
        match world.fleet.ask(at, "GET", "/cluster/history/verify", &Value::Null).await {
            Ok((200, report)) if report["sound"] == true => {}
            told => last.round.violations.push(format!("P3: node {at} does not find history sound: {told:?}")),
        }
    }
    if last.round.planted.is_some() {
        let is_reached = world.is_reached();
        for it in done.iter_mut() {
            let what = Round::REACHED.to_owned();
            it.round.bit.push(Proof { what, number: f64::from(u8::from(is_reached)), is_so: is_reached });
        }
    }
    for it in done.iter_mut() {
        it.round.outcome = match (it.round.violations.is_empty(), it.round.bit.iter().all(|it| it.is_so)) {
            (false, _) => Outcome::Violated,
            (true, false) => Outcome::Void,
            (true, true) => Outcome::Held,
        };
    }
}
