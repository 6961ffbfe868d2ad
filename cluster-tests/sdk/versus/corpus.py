"""The two hundred requests: prompts of token ids (where every number must be equal), texts, refusals, and clients that leave.

Ids and texts share prefixes with what came before, so that the caches of both workers have something to find; order matters.
"""

import random
from dataclasses import dataclass

COUNT = 200
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
BLOCK = 32
TOOL = {"type": "function", "function": {
    "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": {
    "type": "object", "properties": {"verdict": {"enum": ["yes", "no"]}}, "required": ["verdict"], "additionalProperties": False}}}
WEATHER = [{"role": "user", "content": "What is the weather in Rome?"}]


@dataclass(frozen=True)
class Ask:
    """One request. `leave_after`: events its client reads before it is gone (0: it goes before the first byte)."""

    name: str
    path: str
    body: object = None
    method: str = "POST"
    leave_after: int | None = None

    @property
    def has_ids(self) -> bool:
        """Whether both workers see the same tokens, so that what they count must be the same number."""
        prompt = self.body.get("prompt") if isinstance(self.body, dict) else None
        return isinstance(prompt, list) and bool(prompt) and not any(isinstance(it, str) for it in prompt)

    @property
    def is_streamed(self) -> bool:
        return isinstance(self.body, dict) and bool(self.body.get("stream"))


def requests() -> list[Ask]:
    """All of them, the same on every call."""
    found = [*ids(), *prefixes(), *growing(), *texts(), *chats(), *tools(), *bad_values(), *bad_bodies(), *other_paths(), *leaving()]
    assert len(found) == COUNT == len({it.name for it in found}), len(found)
    return found


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def both_ways(name: str, path: str, body: dict) -> list[Ask]:
    """Whole, and streamed with usage."""
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    return [Ask(name, path, body), Ask(f"{name} streamed", path, streamed)]


def of_ids(prompt: list, max_tokens: int = 8, **more) -> dict:
    return {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, **more}


def drawn(seed: int, count: int) -> list[int]:
    """Ids that both vocabularies have."""
    return random.Random(seed).choices(range(260, 2000), k=count)


def ids() -> list[Ask]:
    """Lengths around the edges of blocks; each is asked twice, so the second finds the first."""
    found = []
    for index, length in enumerate([1, 2, 31, 32, 33, 63, 64, 65, 96, 97, 200, 511, 1000, 2048, 4000, 7000]):
        found += both_ways(f"ids {length}", COMPLETIONS, of_ids(drawn(index, length), [1, 2, 8, 33][index % 4]))
    return found


def prefixes() -> list[Ask]:
    """Tails of many lengths behind one beginning, cut in the middle of a block and at its edge."""
    found, base = [], drawn(100, 320)
    for index, shared in enumerate([320, 319, 160, 96, 95, 33, 32, 31, 16, 300]):
        prompt = base[:shared] + drawn(200 + index, 40)
        found += both_ways(f"prefix {shared}", COMPLETIONS, of_ids(prompt, 4))
    found.append(Ask("prefix in a batch", COMPLETIONS, of_ids([base[:100], drawn(300, 70)], 3)))
    found.append(Ask("prefix salted", COMPLETIONS, of_ids(base[:128], 4, cache_salt="tenant")))
    return found


def growing() -> list[Ask]:
    """A prompt that grows by a few tokens at a time."""
    base = drawn(400, 400)
    return [Ask(f"growing {length}", COMPLETIONS, of_ids(base[:length], 2, stream=True, stream_options={"include_usage": True}))
            for length in range(40, 400, 45)]


def texts() -> list[Ask]:
    """Completions of texts, and what they can be asked to show."""
    def ask(**more):
        return {"model": "tiny", "prompt": "def main(", "max_tokens": 4, "ignore_eos": True, "temperature": 0, **more}
    found = [*both_ways("text", COMPLETIONS, ask()), *both_ways("text echoed", COMPLETIONS, ask(echo=True)),
             *both_ways("text with logprobs", COMPLETIONS, ask(logprobs=2)), *both_ways("text long", COMPLETIONS, ask(prompt="gateway " * 300)),
             *both_ways("text token ids", COMPLETIONS, ask(return_token_ids=True)), *both_ways("text unicode", COMPLETIONS, ask(prompt="Grüße, 世界! 🚀"))]
    found.append(Ask("text list", COMPLETIONS, ask(prompt=["import", "export"])))
    found.append(Ask("text without usage", COMPLETIONS, ask(stream=True)))
    found.append(Ask("text with usage on the way", COMPLETIONS, ask(
        stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})))
    found.append(Ask("text without model", COMPLETIONS, {key: it for key, it in ask().items() if key != "model"}))
    return found


def chats() -> list[Ask]:
    def ask(messages=None, **more):
        return {"model": "tiny", "messages": messages or user("Say hello."), "max_tokens": 80, "temperature": 0, **more}
    system = {"role": "system", "content": "You are a helpful assistant. " * 12}
    turns = [system, *user("Say hello."), {"role": "assistant", "content": "Hello! How can I help you today?"}, *user("Count to ten.")]
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]
    found = []
    for name, body in {
        "chat": ask(), "chat again": ask(), "chat cut": ask(max_tokens=3), "chat to one token": ask(max_tokens=1),
        "chat endless": ask(max_tokens=40, ignore_eos=True), "chat by the newer name": ask(max_tokens=None, max_completion_tokens=3),
        "chat with a system text": ask([system, *user("Say hello.")]), "chat of turns": ask(turns), "chat of turns again": ask(turns),
        "chat of parts": ask([{"role": "user", "content": parts}]), "chat with logprobs": ask(max_tokens=3, logprobs=True, top_logprobs=2),
        "chat stopped": ask(stop=[" "]), "chat long": ask(user("gateway " * 200), max_tokens=4),
        "chat unicode": ask(user("Say it in unicode.")), "chat twice": ask(max_tokens=3, n=2, temperature=0.5),
        "chat with penalties": ask(max_tokens=4, presence_penalty=0.5, frequency_penalty=0.5, top_p=0.9, seed=7, logit_bias={"5": 1}),
        "chat with unknown fields": ask(max_tokens=4, x_unknown={"deep": [1, None]}), "chat with token ids": ask(max_tokens=4, return_token_ids=True),
    }.items():
        found += both_ways(name, CHAT, body)
    found.append(Ask("chat without usage", CHAT, ask(stream=True)))
    found.append(Ask("chat with usage on the way", CHAT, ask(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})))
    found.append(Ask("chat without a bound", CHAT, {"model": "tiny", "messages": user("Say hello."), "temperature": 0}))
    found.append(Ask("chat without model", CHAT, {"messages": user("Say hello."), "temperature": 0, "max_tokens": 3}))
    return found


def tools() -> list[Ask]:
    def ask(**more):
        return {"model": "tiny", "messages": WEATHER, "max_tokens": 80, "temperature": 0, "tools": [TOOL], **more}
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    after = [*WEATHER, {"role": "assistant", "content": "", "tool_calls": [call]},
             {"role": "tool", "tool_call_id": "call_1", "content": '{"weather": "sunny"}'}]
    return [*both_ways("tool", CHAT, ask()), *both_ways("tool not called", CHAT, ask(messages=user("Say hello."))),
            *both_ways("tool required", CHAT, ask(tool_choice="required")), *both_ways("tool forbidden", CHAT, ask(tool_choice="none")),
            *both_ways("tool named", CHAT, ask(tool_choice={"type": "function", "function": {"name": "get_weather"}})),
            *both_ways("tool answered", CHAT, ask(messages=after)),
            *both_ways("structured", CHAT, ask(tools=None, messages=user("Say hello."), response_format=SCHEMA))]


def bad_values() -> list[Ask]:
    """What reads well and cannot be done."""
    found = []
    for path, base in ((CHAT, {"model": "tiny", "messages": user("hi")}), (COMPLETIONS, {"model": "tiny", "prompt": [300, 301]})):
        kind = path.rsplit("/", 2)[-2] if path == CHAT else "completions"
        for name, more in {
            "temperature below": {"temperature": -1}, "temperature above": {"temperature": 3}, "top_p of none": {"top_p": 0},
            "top_p above": {"top_p": 2}, "no tokens": {"max_tokens": 0}, "tokens below": {"max_tokens": -5}, "too many tokens": {"max_tokens": 9000},
            "unknown model": {"model": "nope"}, "stream options alone": {"stream_options": {"include_usage": True}},
            "no choices": {"n": 0}, "penalty above": {"presence_penalty": 5}, "more than at most": {"min_tokens": 5},
        }.items():
            found.append(Ask(f"{kind} {name}", path, {**base, "max_tokens": 2, **more}))
    found.append(Ask("chat too long", CHAT, {"model": "tiny", "messages": user("gateway " * 9000), "max_tokens": 2}))
    found.append(Ask("ids too long", COMPLETIONS, of_ids(drawn(500, 8192), 1)))
    found.append(Ask("ids with the answer too long", COMPLETIONS, of_ids(drawn(501, 8190), 8)))
    found.append(Ask("chat bad in a stream", CHAT, {"model": "tiny", "messages": user("hi"), "temperature": -1, "stream": True}))
    return found


def bad_bodies() -> list[Ask]:
    """What does not read."""
    hi = {"model": "tiny", "messages": user("hi"), "max_tokens": 2}
    found = [Ask(f"body {name}", CHAT, body) for name, body in {
        "cut": b'{"model": "tiny", "messages": [', "no object": b"[]", "empty": b"", "no messages": {"model": "tiny"},
        "empty messages": {**hi, "messages": []}, "messages a text": {**hi, "messages": "x"}, "temperature a text": {**hi, "temperature": "hot"},
        "stop a number": {**hi, "stop": 5}, "tool without name": {**hi, "tools": [{"type": "function", "function": {"no": 1}}]},
        "unknown format": {**hi, "response_format": {"type": "nope"}}, "choice without tools": {**hi, "tool_choice": "required"},
        "top_logprobs alone": {**hi, "top_logprobs": 2}, "too many logprobs": {**hi, "logprobs": True, "top_logprobs": 100},
        "turn without role": {**hi, "messages": [{"content": "hi"}]}, "content a number": {**hi, "messages": [{"role": "user", "content": 5}]},
    }.items()]
    return found + [Ask(f"prompt {name}", COMPLETIONS, {"model": "tiny", "max_tokens": 2, **body}) for name, body in {
        "missing": {}, "an empty text": {"prompt": ""}, "an empty list": {"prompt": []}, "an object": {"prompt": {"a": 1}},
        "with too many logprobs": {"prompt": "x", "logprobs": 100}}.items()]


def other_paths() -> list[Ask]:
    return [Ask("health", "/health", method="GET"), Ask("models", "/v1/models", method="GET"), Ask("version", "/version", method="GET"),
            Ask("ping", "/ping", method="GET"), Ask("load", "/load", method="GET"), Ask("nowhere", "/nowhere", {"model": "tiny"}),
            Ask("chat by GET", CHAT, method="GET"), Ask("embeddings", "/v1/embeddings", {"model": "tiny", "input": "x"}),
            Ask("tokenize", "/tokenize", {"model": "tiny", "prompt": "Say hello."}),
            Ask("tokenize a chat", "/tokenize", {"model": "tiny", "messages": user("Say hello.")})]


def leaving() -> list[Ask]:
    """Clients that leave: before the first byte, after the first event, later; of streams and of whole answers."""
    endless = of_ids(drawn(600, 50), 8000)
    talk = {"model": "tiny", "messages": user("Tell me a story."), "max_tokens": 8000, "ignore_eos": True, "temperature": 0}
    found = []
    for name, path, body in (("ids", COMPLETIONS, endless), ("chat", CHAT, talk)):
        found += [Ask(f"{name} left after {events}", path, {**body, "stream": True}, leave_after=events) for events in (0, 1, 5, 20)]
        found.append(Ask(f"{name} left whole", path, body, leave_after=0))
    return found
