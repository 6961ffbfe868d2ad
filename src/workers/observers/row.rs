//! A sight as a row of the table `health`: named by the worker, `[version][bincode]`.
//!
//! What cannot be read is as if nobody had looked. *Invariant:* the bytes of a version never change (pinned below); another version gets another variant.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::super::detect::Engine;
use super::super::detect::ServedModel;
use super::super::health::Probe;
use super::super::registry::Facts;
use super::core::Sight;
use crate::base::ids::ModelId;
use crate::base::ids::WorkerId;
use crate::transport::wire;

/// Longest value. Most of a longer one would be names of models, which whoever needs them can ask the worker for.
const BYTES_MAX: usize = 4 << 10;

#[derive(Serialize, Deserialize)]
enum Row {
    V1 {
        is_down: bool,
        last: Last,
        failures: u32,
        succeeded_ago_ms: Option<u64>,
        restarted_ago_ms: Option<u64>,
        interval_ms: u64,
        engine: String,
        models: Vec<(String, Option<u64>)>,
    },
}

#[derive(Serialize, Deserialize)]
enum Last {
    Ok,
    Failed,
    TimedOut,
}

/// The name of a worker's row.
pub(super) fn name(worker: WorkerId) -> Vec<u8> {
    worker.0.to_be_bytes().to_vec()
}

/// The worker that a row is of.
pub(super) fn worker(name: &[u8]) -> Option<WorkerId> {
    name.try_into().ok().map(|it| WorkerId(u64::from_be_bytes(it)))
}

/// Bytes that the models of a sight take, about.
pub(super) fn models_bytes(sight: &Sight) -> usize {
    sight.facts.models.iter().map(|it| it.id.as_str().len() + 12).sum()
}

/// The value; without models where they are too long together.
pub(super) fn encode(sight: &Sight) -> Option<Vec<u8>> {
    let whole = wire::encode(&row(sight, &sight.facts.models)).ok()?;
    if whole.len() <= BYTES_MAX { Some(whole) } else { wire::encode(&row(sight, &[])).ok() }
}

fn row(sight: &Sight, models: &[ServedModel]) -> Row {
    Row::V1 {
        is_down: sight.is_down,
        last: match sight.last {
            Probe::Ok => Last::Ok,
            Probe::Failed => Last::Failed,
            Probe::TimedOut => Last::TimedOut,
        },
        failures: sight.failures,
        succeeded_ago_ms: sight.succeeded_ago.map(millis),
        restarted_ago_ms: sight.restarted_ago.map(millis),
        interval_ms: millis(sight.interval),
        engine: sight.facts.engine.name().to_owned(),
        models: models.iter().map(|it| (it.id.as_str().to_owned(), it.context_len)).collect(),
    }
}

/// Reads a value; None: damaged, of a later release, or with names that are none.
pub(super) fn decode(bytes: &[u8]) -> Option<Sight> {
    let row = if bytes.len() <= BYTES_MAX { wire::decode::<Row, { 2 * BYTES_MAX }>(bytes).ok()? } else { return None };
    let Row::V1 { is_down, last, failures, succeeded_ago_ms, restarted_ago_ms, interval_ms, engine, models } = row;
    let served = |(id, context_len): (String, _)| Some(ServedModel { id: ModelId::parse(&id).ok()?, context_len });
    Some(Sight {
        is_down,
        last: match last {
            Last::Ok => Probe::Ok,
            Last::Failed => Probe::Failed,
            Last::TimedOut => Probe::TimedOut,
        },
        failures,
        succeeded_ago: succeeded_ago_ms.map(Duration::from_millis),
        restarted_ago: restarted_ago_ms.map(Duration::from_millis),
        interval: Duration::from_millis(interval_ms),
        facts: Facts { engine: Engine::named(&engine), models: models.into_iter().map(served).collect::<Option<_>>()? },
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use proptest::prelude::*;

    fn sight(models: usize) -> Sight {
        let model = |n: usize| ServedModel { id: ModelId::parse(&format!("m{n}")).unwrap(), context_len: Some(8192) };
        Sight {
            is_down: false,
            last: Probe::TimedOut,
            failures: 2,
            succeeded_ago: Some(Duration::from_millis(1500)),
            restarted_ago: None,
            interval: Duration::from_secs(5),
            facts: Facts { engine: Engine::Vllm, models: (0..models).map(model).collect() },
        }
    }

    #[test]
    fn a_row_is_read_back_as_it_was_written_and_its_bytes_do_not_change() {
        let bytes = encode(&sight(1)).unwrap();
        let expected =
            [1, 0, 0, 2, 2, 1, 251, 220, 5, 0, 251, 136, 19, 4, 118, 108, 108, 109, 1, 2, 109, 48, 1, 251, 0, 32];
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes), Some(sight(1)));
        assert_eq!(worker(&name(WorkerId(7))), Some(WorkerId(7)));
    }

    #[test]
    fn too_many_models_are_left_out_whole_and_what_is_no_row_is_nothing() {
        assert_eq!(decode(&encode(&sight(5000)).unwrap()), Some(sight(0)));
        let bytes = encode(&sight(1)).unwrap();
        for bad in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[1, 1], &[2, 0], &[], &[0; 9000]] {
            assert_eq!(decode(bad), None);
        }
        assert_eq!((worker(b"short"), worker(b"more than eight")), (None, None));
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_row_is_read_or_refused(bytes in fuzz::damaged({
            let Row::V1 { is_down, last, failures, succeeded_ago_ms, restarted_ago_ms, interval_ms, engine, .. } = row(&sight(0), &[]);
            let models = vec![("m".to_owned(), None), (String::new(), Some(1))];
            let odd = Row::V1 { is_down, last, failures, succeeded_ago_ms, restarted_ago_ms, interval_ms, engine, models };
            vec![encode(&sight(0)).unwrap(), encode(&sight(3)).unwrap(), wire::encode(&odd).unwrap()]
        })) {
            if let Some(read) = fuzz::whole(2 * BYTES_MAX, 1, &bytes, decode, |it| encode(it).unwrap()) {
                // Its models are those that were sent, or nothing is taken.
                let Row::V1 { models, .. } = wire::decode::<Row, { 2 * BYTES_MAX }>(&bytes).unwrap();
                prop_assert!(read.facts.models.iter().map(|it| it.id.as_str()).eq(models.iter().map(|it| it.0.as_str())));
            }
        }
    }
}
