//! What the imitated engine promises, in virtual time.

use super::*;

const SETTINGS: Settings = Settings {
    prefill_tokens_per_s: 10_000,
    prefill_base: 10_000,
    token_base: 15_000,
    token_step: 400,
    sequences_max: 2,
    block_tokens: 16,
    blocks: 1000,
};

fn work(prompt: u32, output: usize) -> Work {
    Work { prompt: (0..prompt).collect(), output: vec![7; output] }
}

/// Runs to the end; returns every effect with its time.
fn drain(core: &mut Core) -> Vec<(Micros, Effect)> {
    let mut timed = Vec::new();
    while let Some(due) = core.due() {
        let mut effects = Vec::new();
        core.step(due, &mut effects);
        timed.extend(effects.into_iter().map(|it| (due, it)));
    }
    timed
}

fn cached(core: &mut Core, work: Work) -> usize {
    let mut effects = Vec::new();
    core.submit(core.now, work, &mut effects);
    effects.extend(drain(core).into_iter().map(|(_, effect)| effect));
    let started = effects.iter().find_map(|it| match it {
        Effect::Started { cached, .. } => Some(*cached),
        Effect::Token { .. } | Effect::Finished { .. } => None,
    });
    started.expect("it started")
}

#[test]
fn a_lone_sequence_takes_its_prefill_and_one_delay_for_each_further_token() {
    let mut core = Core::new(SETTINGS);
    let id = core.submit(0, work(100, 3), &mut Vec::new());
    let prefill = 10_000 + (10_000.0 * (1.0 + 100.0 / 65_536.0)) as Micros;
    let token = |n: u64| (prefill + (n - 1) * 15_400, Effect::Token { id, emitted: n as usize });
    let end = (prefill + 2 * 15_400, Effect::Finished { id });
    assert_eq!(drain(&mut core), [token(1), token(2), token(3), end]);
}

#[test]
fn only_full_blocks_are_cached_and_never_the_whole_prompt() {
    let mut core = Core::new(SETTINGS);
    assert_eq!(cached(&mut core, work(40, 1)), 0);
    assert_eq!(cached(&mut core, work(40, 1)), 32);
    assert_eq!(cached(&mut core, work(48, 1)), 32);
    assert_eq!(cached(&mut core, work(48, 1)), 32, "47 of 48 tokens may be reused: two blocks");
    assert_eq!(cached(&mut core, work(49, 1)), 48);
}

#[test]
fn the_next_turn_of_a_conversation_hits_the_answer_too() {
    let mut core = Core::new(SETTINGS);
    let first = work(20, 44);
    let second = Work { prompt: [first.prompt.clone(), first.output.clone(), vec![9; 10]].concat(), output: vec![1] };
    cached(&mut core, first);
    assert_eq!(cached(&mut core, second), 48, "63 computed tokens are three blocks");
}

#[test]
fn more_sequences_than_slots_wait_and_all_finish_once() {
    let mut core = Core::new(SETTINGS);
    let ids: Vec<_> = (0..5).map(|_| core.submit(0, work(10, 4), &mut Vec::new())).collect();
    assert_eq!((core.gauges().running, core.gauges().waiting), (1, 4));
    let finished: Vec<_> = drain(&mut core)
        .into_iter()
        .filter_map(|(_, it)| if let Effect::Finished { id } = it { Some(id) } else { None })
        .collect();
    assert_eq!(finished, ids);
    assert_eq!(core.gauges(), Gauges { running: 0, waiting: 0, blocks_used: 0, ..core.gauges() });
}

#[test]
fn an_aborted_sequence_frees_its_slot_at_once_in_every_phase() {
    let mut core = Core::new(Settings { sequences_max: 1, ..SETTINGS });
    let mut effects = Vec::new();
    let decoding = core.submit(0, work(16, 1000), &mut effects);
    core.step(50_000, &mut effects);
    let prefilling = core.submit(50_000, work(17, 1), &mut effects);
    let waiting = core.submit(50_000, work(18, 1), &mut effects);
    assert_eq!((core.gauges().running, core.gauges().waiting), (1, 2));
    core.abort(60_000, decoding, &mut effects);
    assert_eq!((core.gauges().running, core.gauges().waiting), (1, 1));
    core.abort(60_000, waiting, &mut effects);
    core.abort(60_000, prefilling, &mut effects);
    core.abort(60_000, prefilling, &mut effects);
    assert_eq!((core.gauges().running, core.gauges().waiting, core.due()), (0, 0, None));
}

#[test]
fn a_crowd_slows_every_token() {
    let gap = |crowd: usize| {
        let mut core = Core::new(Settings { sequences_max: 64, ..SETTINGS });
        for _ in 0..crowd {
            core.submit(0, work(16, 1000), &mut Vec::new());
        }
        core.step(5_000_000, &mut Vec::new());
        core.decoding.values().map(|it| it.due).max().expect("decoding") - core.now
    };
    assert!(gap(1) <= 15_400 && gap(20) > 18_000, "{} {}", gap(1), gap(20));
}

#[test]
fn an_engine_without_delays_answers_the_same_hits() {
    let mut core = Core::new(Settings { prefill_tokens_per_s: 0, ..SETTINGS });
    assert_eq!([40, 40, 48, 48, 49].map(|len| core.run_at_once(work(len, 1))), [0, 32, 32, 32, 48]);
    assert_eq!((core.gauges().cache_queries, core.gauges().cache_hits), (225, 144));
}
