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
    /// The document of policies is now this; None: there is none.
    Policies(Option<Vec<u8>>),
}

/// What was decided and not taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    workers: BTreeMap<u64, Vec<u8>>,
    policies: Option<Vec<u8>>,
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
            Command::PutPolicies { spec } if spec.len() > SPEC_BYTES_MAX => Outcome::Refused(Refusal::SpecTooLong),
            Command::PutPolicies { spec } => self.set_policies(Some(spec), effects),
            Command::RemovePolicies => self.set_policies(None, effects),
        }
    }

    /// The workers in ascending id order.
    pub fn workers(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.workers.iter().map(|(id, spec)| (*id, spec.as_slice()))
    }

    /// The document of policies.
    #[must_use]
    pub fn policies(&self) -> Option<&[u8]> {
        self.policies.as_deref()
    }

    /// Takes a row back from disk. Rows were checked when they were written.
    pub fn restore(&mut self, id: u64, spec: Vec<u8>) {
        self.workers.insert(id, spec);
    }

    /// Takes the document of policies back from disk.
    pub fn restore_policies(&mut self, spec: Option<Vec<u8>>) {
        self.policies = spec;
    }

    fn set_policies(&mut self, spec: Option<Vec<u8>>, effects: &mut Vec<Effect>) -> Outcome {
        if self.policies == spec {
            return Outcome::Unchanged;
        }
        effects.push(Effect::Policies(spec.clone()));
        self.policies = spec;
        Outcome::Changed
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
            &[
                put(1, "a"),
                put(1, "a"),
                put(2, "b"),
                put(1, "c"),
                Command::RemoveWorker { id: 2 },
                Command::PutPolicies { spec: b"o".to_vec() },
                Command::RemovePolicies,
                Command::PutPolicies { spec: b"p".to_vec() },
                Command::PutPolicies { spec: b"p".to_vec() },
            ],
            &[
                Outcome::Changed,
                Outcome::Unchanged,
                Outcome::Changed,
                Outcome::Changed,
                Outcome::Changed,
                Outcome::Changed,
                Outcome::Changed,
                Outcome::Changed,
                Outcome::Unchanged,
            ],
        );
        let mut replayed = State::default();
        for effect in effects {
            match effect {
                Effect::Put { id, spec } => replayed.restore(id, spec),
                Effect::Delete { id } => drop(replayed.workers.remove(&id)),
                Effect::Policies(spec) => replayed.restore_policies(spec),
            }
        }
        assert_eq!(replayed, state);
        assert_eq!(state.workers().collect::<Vec<_>>(), [(1, b"c".as_slice())]);
        assert_eq!(state.policies(), Some(b"p".as_slice()));
    }

    #[test]
    fn removing_twice_changes_nothing() {
        let remove = Command::RemoveWorker { id: 9 };
        check(&[remove.clone(), remove, Command::RemovePolicies], &[const { Outcome::Unchanged }; 3]);
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
