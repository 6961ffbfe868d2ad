//! `round_robin`: each worker in turn, counted per model.
//!
//! The turn goes on after the worker that was chosen, not after the one whose turn it was: otherwise the neighbour of a
//! worker that is out would get twice its share.

use super::Ask;
use super::Choice;
use super::Remembering;
use crate::routing::draw::Draw;
use crate::routing::route::Reason;

#[derive(Clone, Default)]
pub(super) struct RoundRobin {
    next: usize,
}

impl Remembering for RoundRobin {
    fn choose(&mut self, ask: &Ask<'_, '_>, _: &mut Draw) -> Option<Choice> {
        let len = ask.candidates.len();
        let start = if self.next < len { self.next } else { 0 };
        let index = (start..len).chain(0..start).find(|index| ask.usable(*index).is_some())?;
        self.next = index + 1;
        Some(Choice { index, reason: Reason::Turn })
    }

    fn rehearsal(&self) -> Box<dyn Remembering> {
        Box::new(self.clone())
    }
}
