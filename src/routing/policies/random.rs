//! `random`: any worker, evenly.

use super::Ask;
use super::Choice;
use super::Policy;
use crate::routing::draw::Draw;
use crate::routing::route::Reason;

pub(super) struct Random;

impl Policy for Random {
    fn choose(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        ask.draw_usable(draw).map(|(index, _)| Choice { index, reason: Reason::Drawn })
    }
}
