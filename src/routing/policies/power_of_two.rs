//! `power_of_two`: two workers drawn at random, the less loaded of them.

use super::Ask;
use super::Choice;
use super::Policy;
use crate::routing::draw::Draw;
use crate::routing::route::Reason;

pub(super) struct PowerOfTwo;

impl Policy for PowerOfTwo {
    fn choose(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        let index = ask.better_of_two_in(0, ask.candidates.len(), draw)?;
        Some(Choice { index, reason: Reason::Load })
    }
}
