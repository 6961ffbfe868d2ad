//! What the commands have made. Ground state is the log; this is derived from it and can be made again.

use std::collections::BTreeMap;

use super::command::Command;
use super::command::Outcome;
use super::command::Refusal;
use super::command::SPEC_BYTES_MAX;
use crate::base::limits::WORKERS_MAX;

/// One row of the state as a store must change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The row is now this.
    Put {
        /// The worker.
        id: u64,
        /// Its description.
        spec: Vec<u8>,
    },
    /// The row is gone.
    Delete {
        /// The worker.
        id: u64,
    },
}

/// The workers that were added and not removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    workers: BTreeMap<u64, Vec<u8>>,
}

impl State {
    /// Takes one command; says in `effects` which rows changed.
    pub fn step(&mut self, command: Command, effects: &mut Vec<Effect>) -> Outcome {
        match command {
            Command::PutWorker { id, spec } => self.put(id, spec, effects),
            Command::RemoveWorker { id } => match self.workers.remove(&id) {
                Some(_) => {
                    effects.push(Effect::Delete { id });
                    Outcome::Changed
                }
                None => Outcome::Unchanged,
            },
        }
    }

    /// The workers in ascending id order.
    pub fn workers(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.workers.iter().map(|(id, spec)| (*id, spec.as_slice()))
    }

    /// Takes a row back from disk. Rows were checked when they were written.
    pub fn restore(&mut self, id: u64, spec: Vec<u8>) {
        self.workers.insert(id, spec);
    }

    fn put(&mut self, id: u64, spec: Vec<u8>, effects: &mut Vec<Effect>) -> Outcome {
        if spec.len() > SPEC_BYTES_MAX {
            return Outcome::Refused(Refusal::SpecTooLong);
        }
        let known = self.workers.get(&id);
        if known.is_none() && self.workers.len() >= WORKERS_MAX {
            return Outcome::Refused(Refusal::TooManyWorkers);
        }
        if known == Some(&spec) {
            return Outcome::Unchanged;
        }
        effects.push(Effect::Put { id, spec: spec.clone() });
        self.workers.insert(id, spec);
        Outcome::Changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(commands: &[Command], expect: &[Outcome]) -> (State, Vec<Effect>) {
        let (mut state, mut effects) = (State::default(), Vec::new());
        let outcomes: Vec<_> = commands.iter().map(|it| state.step(it.clone(), &mut effects)).collect();
        assert_eq!(outcomes, expect);
        (state, effects)
    }

    #[test]
    fn effects_replayed_make_the_same_state() {
        let put = |id, text: &str| Command::PutWorker { id, spec: text.into() };
        let (state, effects) = check(
            &[put(1, "a"), put(1, "a"), put(2, "b"), put(1, "c"), Command::RemoveWorker { id: 2 }],
            &[Outcome::Changed, Outcome::Unchanged, Outcome::Changed, Outcome::Changed, Outcome::Changed],
        );
        let mut replayed = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Put { id, spec } => replayed.insert(id, spec),
                Effect::Delete { id } => replayed.remove(&id),
            };
        }
        assert_eq!(replayed, state.workers);
        assert_eq!(state.workers().collect::<Vec<_>>(), [(1, b"c".as_slice())]);
    }

    #[test]
    fn removing_twice_changes_nothing() {
        let remove = Command::RemoveWorker { id: 9 };
        check(&[remove.clone(), remove], &[Outcome::Unchanged, Outcome::Unchanged]);
    }

    #[test]
    fn what_is_too_long_or_too_many_is_refused_and_changes_nothing() {
        let long = Command::PutWorker { id: 1, spec: vec![0; SPEC_BYTES_MAX + 1] };
        let (state, effects) = check(&[long], &[Outcome::Refused(Refusal::SpecTooLong)]);
        assert_eq!((state, effects), (State::default(), Vec::new()));

        let mut full = State::default();
        (0..WORKERS_MAX as u64).for_each(|id| full.restore(id, Vec::new()));
        let new = Command::PutWorker { id: WORKERS_MAX as u64, spec: Vec::new() };
        assert_eq!(full.step(new, &mut Vec::new()), Outcome::Refused(Refusal::TooManyWorkers));
        let known = Command::PutWorker { id: 0, spec: vec![1] };
        assert_eq!(full.step(known, &mut Vec::new()), Outcome::Changed, "what is kept can be replaced when full");
    }
}
