"""What one worker did with one request: its answer, its usage, its meters, how soon it was idle, and what all that must have in common."""

import json
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

import httpx2

from versus import wire
from versus.corpus import BLOCK
from versus.corpus import CHAT
from versus.corpus import Ask
from versus.meters import Meters
from versus.meters import Settled
from versus.meters import moved

# Tokens and seconds that a worker may go on after its client has left, on a machine that has other work too.
TOKENS_AFTER, IDLE_AFTER = 1000, 5
JSON = {"content-type": "application/json"}
# Which meter counts what `usage` tells; the first token is between no two.
COUNTED = {
    "vllm:prompt_tokens_total": "prompt_tokens", "vllm:prefix_cache_queries_total": "prompt_tokens", "vllm:prefix_cache_hits_total": "cached_tokens",
    "vllm:prompt_tokens_cached_total": "cached_tokens", "vllm:generation_tokens_total": "completion_tokens",
    "vllm:inter_token_latency_seconds_count": "completion_tokens",
}


@dataclass
class Observed:
    """One request at one worker."""

    answer: wire.Answer
    moved: dict[str, float]
    # What was done, and for how long, after the answer was there or its client had left.
    settled: Settled
    # Tokens of the prompt by the worker's own tokenizer, and how many of them it must have in its cache; of texts only.
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    usage: dict[str, int] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether it came to its own end."""
        return any(meter.startswith("vllm:request_success_total") for meter in self.moved)

    def untold(self, ask: Ask) -> dict[str, float]:
        """What moved beyond what `usage` told: of a text, whose tokens are each worker's own."""
        left = {meter: it for meter, it in self.moved.items() if "_by_source" not in meter}
        for meter, told in COUNTED.items():
            if told in self.usage:
                left[meter] = left.get(meter, 0) - self.usage[told] * (ask.body.get("n", 1) if told == "prompt_tokens" else 1)
            elif ask.leave_after is not None or self.answer.status == 200:
                left.pop(meter, None)
        return {meter: it for meter, it in left.items() if it}

    def broken(self, ask: Ask) -> list[str]:
        """What its own words contradict."""
        found, usage = list(self.answer.problems), self.usage
        if usage and usage["total_tokens"] != usage["prompt_tokens"] + usage["completion_tokens"]:
            found.append(f"usage: the total is no sum: {usage}")
        if usage and self.prompt_tokens is not None and usage["prompt_tokens"] != self.prompt_tokens:
            found.append(f"usage.prompt_tokens: {usage['prompt_tokens']}, /tokenize says {self.prompt_tokens}")
        if usage and self.cached_tokens is not None and usage["cached_tokens"] != self.cached_tokens:
            found.append(f"usage.cached_tokens: {usage['cached_tokens']}, its cache must have {self.cached_tokens}")
        if ask.leave_after is not None:
            if (tokens := self.settled.moved.get("vllm:generation_tokens_total", 0)) > TOKENS_AFTER:
                found.append(f"abort: {tokens:.0f} tokens after the client had left")
            if self.settled.seconds > IDLE_AFTER:
                found.append(f"abort: idle after {self.settled.seconds:.1f} s only")
        return found


class Worker:
    """One of the two."""

    def __init__(self, url: str):
        self.url, self.meters = url, Meters(url)
        # Beginnings of prompts it has computed, in whole blocks.
        self.blocks: set[tuple] = set()
        self.before = self.meters.settled().series

    def observe(self, ask: Ask, tries: int = 3) -> Observed:
        prompts = [] if ask.has_ids else self.tokens(ask)
        answer = wire.send(self.url, ask, self.meters.is_busy)
        settled = self.meters.settled()
        seen = Observed(answer, moved(self.before, settled.series), settled, usage=usage(answer))
        self.before = settled.series
        if ask.leave_after is not None and seen.is_finished and tries > 1:
            return self.observe(ask, tries - 1)  # on a busy machine it was over before its client had seen the first event
        if prompts and answer.status in (0, 200):
            seen.prompt_tokens, seen.cached_tokens = sum(map(len, prompts)), sum(self.compute(it) for it in prompts)
            if ask.body.get("n", 1) > 1 or len(prompts) > 1:
                seen.cached_tokens = None  # told for one of them
            self.said(ask, prompts, seen)
        return seen

    def said(self, ask: Ask, prompts: list[list[int]], seen: Observed) -> None:
        """The answer of a chat is in the cache too, but for its last token."""
        if ask.path == CHAT and not ask.is_streamed and seen.usage:
            message = {"role": "assistant", "content": seen.answer.body["choices"][0]["message"]["content"]}
            if message["content"]:
                [whole] = self.tokens(replace(ask, body={**ask.body, "messages": [*ask.body["messages"], message]}))
                self.compute(whole[:len(prompts[0]) + seen.usage["completion_tokens"] - 1])

    def tokens(self, ask: Ask) -> list[list[int]]:
        """The prompts' tokens as the worker itself cuts them; nothing when it refuses."""
        if not isinstance(ask.body, dict) or ask.path == "/tokenize":
            return []
        prompt = ask.body.get("prompt")
        asked = ([{key: ask.body.get(key) for key in ("messages", "tools") if ask.body.get(key)}] if ask.path == CHAT
                 else [{"prompt": it} for it in (prompt if isinstance(prompt, list) else [prompt])])
        answers = [httpx2.post(f"{self.url}/tokenize", content=json.dumps(it), headers=JSON, timeout=30) for it in asked]
        return [it.json()["tokens"] for it in answers] if all(it.status_code == 200 for it in answers) else []

    def compute(self, tokens: list[int]) -> int:
        """How many tokens the cache must have had; afterwards it has all whole blocks of these."""
        known = 0
        while known + BLOCK < len(tokens) and tuple(tokens[:known + BLOCK]) in self.blocks:
            known += BLOCK
        self.blocks |= {tuple(tokens[:end]) for end in range(BLOCK, len(tokens) + 1, BLOCK)}
        return known


def usage(answer: wire.Answer) -> dict[str, int]:
    """The usage that an answer tells, flat; a stream's last."""
    if answer.status != 200:
        return {}
    bodies = answer.events if answer.content_type.startswith("text/event-stream") else [answer.body]
    told = [it["usage"] for it in bodies if isinstance(it, dict) and it.get("usage")]
    if not told:
        return {}
    flat = {key: told[-1][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return {**flat, "cached_tokens": (told[-1].get("prompt_tokens_details") or {}).get("cached_tokens", -1)}
