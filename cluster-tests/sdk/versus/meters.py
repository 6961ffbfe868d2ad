"""`/metrics` of a worker: what moved, and whether it is idle."""

import re
import time
from dataclasses import dataclass

import processes

SERIES = re.compile(r"^(vllm:[a-z0-9_]+)(?:\{(.*)\})? ([0-9.eE+-]+)$", re.M)
LABEL = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
# Figures of time and of the machine: that they are there is looked at, not what they say.
LEFT_OUT = re.compile(r"_created$|_sum$|_bucket$|estimated_|cache_config_info")


class Meters:
    """One worker's."""

    def __init__(self, url: str):
        self.url = url

    def series(self) -> dict[str, float]:
        """Each series of vLLM's names, without the labels that all have."""
        found: dict[str, float] = {}
        for name, labels, value in SERIES.findall(self.text()):
            kept = [f'{key}="{it}"' for key, it in sorted(LABEL.findall(labels)) if key not in ("engine", "model_name")]
            if not LEFT_OUT.search(name):
                found[name + ("{" + ",".join(kept) + "}" if kept else "")] = float(value)
        return found

    def text(self) -> str:
        status, text = processes.get(f"{self.url}/metrics")
        if status != 200:
            raise RuntimeError(f"{self.url}/metrics answers {status}")
        return text

    def families(self) -> dict[str, str]:
        """Type and names of labels of each family."""
        text = self.text()
        kinds = dict(re.findall(r"^# TYPE (vllm:\S+) (\S+)$", text, re.M))
        labels = {}
        for name, found, _ in SERIES.findall(text):
            family = next((it for it in (name, re.sub(r"_(bucket|sum|count)$", "", name)) if it in kinds), name)
            labels.setdefault(family, set()).update(key for key, _ in LABEL.findall(found))
        return {family: f"{kind} of {', '.join(sorted(labels.get(family, ())))}" for family, kind in kinds.items() if not family.endswith("_created")}

    def is_busy(self) -> bool:
        series = self.series()
        return series["vllm:num_requests_running"] + series["vllm:num_requests_waiting"] > 0

    def settled(self, seconds: float = 30) -> "Settled":
        """Waits until the worker is idle and nothing moves any more."""
        began, first, last, moved_at = time.monotonic(), self.series(), {}, 0.0
        series = first
        while time.monotonic() - began < seconds:
            if series == last and series["vllm:num_requests_running"] + series["vllm:num_requests_waiting"] == 0:
                return Settled(series, moved(first, series), moved_at)
            if series != last:
                moved_at = time.monotonic() - began
            last = series
            time.sleep(0.02)
            series = self.series()
        raise TimeoutError(f"{self.url} is not idle after {seconds} s")


@dataclass
class Settled:
    """An idle worker: its series, what moved while it was waited for, and when the last of that did."""

    series: dict[str, float]
    moved: dict[str, float]
    seconds: float


def moved(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What moved, and by how much."""
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
