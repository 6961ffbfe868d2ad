"""Where two workers differ over a request, and whether each difference is in the table of justified ones."""

import re

from versus import shape
from versus.corpus import Ask
from versus.justified import JUSTIFIED
from versus.observed import Observed

# The family in the words of a difference between meters.
SERIES = re.compile(r"meter ([a-z0-9_:]+?)(?:_count)?(?:\{.*\})?: ")


def differences(ask: Ask, sim: Observed, real: Observed, shared: set[str]) -> list[str]:
    """In words; each names what differs before its first colon. `shared`: families of meters that both have."""
    found = [f"sim alone: {it}" for it in sim.broken(ask)] + [f"vllm alone: {it}" for it in real.broken(ask)]
    if sim.answer.status != real.answer.status:
        return [*found, f"status: {sim.answer.status} sim, {real.answer.status} vllm ({real.answer.raw[:200]!r} / {sim.answer.raw[:200]!r})"]
    if sim.answer.content_type != real.answer.content_type:
        found.append(f"content-type: {sim.answer.content_type} sim, {real.answer.content_type} vllm")
    if ask.leave_after is None:
        found += shape.differences(shape.of(sim.answer), shape.of(real.answer), "body")
    if ask.has_ids:
        found += _numbers("usage", sim.usage, real.usage)
    is_literal = ask.has_ids and ask.leave_after is None
    ours, theirs = (sim.moved, real.moved) if is_literal else (sim.untold(ask), real.untold(ask))
    return found + [it for it in _numbers("meter", ours, theirs) if SERIES.match(it)[1] in shared]


def _numbers(what: str, sim: dict, real: dict) -> list[str]:
    return [f"{what} {key}: {sim.get(key, 0):g} sim, {real.get(key, 0):g} vllm" for key in sorted(sim.keys() | real.keys())
            if sim.get(key, 0) != real.get(key, 0)]


class Ledger:
    """Which justifications were needed, by which differences; and what had none."""

    def __init__(self):
        self.used: dict[str, list[str]] = {}
        self.unjustified: list[str] = []

    def enter(self, name: str, found: list[str]) -> None:
        for difference in found:
            line = f"{name} | {difference}"
            reason = next((it for it in JUSTIFIED if re.search(it, line)), None)
            if reason is None:
                self.unjustified.append(line)
            else:
                self.used.setdefault(reason, []).append(line)

    def unused(self) -> list[str]:
        """Justifications of differences that are no more."""
        return [it for it in JUSTIFIED if it not in self.used]


def families(sim: dict[str, str], real: dict[str, str]) -> list[str]:
    """Where the two tell other meters, or the same with another type or other labels."""
    return shape.differences(sim, real, "families")
