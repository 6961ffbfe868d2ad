"""What "the same answer" means: everything but ids, times, fingerprints and timings.

An exchange is status, content type and body (for a stream: its events in order). Comments of a stream (keep-alives) are no events.
"""

import json
import math

# Values that differ between two calls to the same engine. The key stays, and so does the type of its value.
MASKED = {"id", "created", "system_fingerprint", "timings", "request_id", "tool_call_id"}


def events(body: bytes) -> list:
    """The data of each event of an SSE stream, parsed when it is JSON."""
    found = []
    for block in body.decode("utf-8").replace("\r\n", "\n").split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        names = [line[6:].strip() for line in lines if line.startswith("event:")]
        data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
        parsed = _json(data)
        found.append({"event": names[0], "data": parsed} if names else parsed)
    return found


def _json(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


def body(content_type: str, raw: bytes):
    """A body to compare."""
    if content_type.startswith("text/event-stream"):
        return events(raw)
    return _json(raw.decode("utf-8"))


def mask(value, keys=frozenset(MASKED)):
    """The value without what may differ."""
    if isinstance(value, dict):
        return {key: f"<{type(it).__name__}>" if key in keys else mask(it, keys) for key, it in value.items()}
    return [mask(it, keys) for it in value] if isinstance(value, list) else value


def merged(found: list) -> list:
    """Events in which neighbours that only add text to the same choice are one, choice by choice.

    vLLM and SGLang put into one event what was ready when they wrote it, so where the cuts lie, whether the last text comes with the
    end, and which choice speaks first are matters of time.
    """
    result = []
    for event in sorted((it for event in found for it in apart(event)), key=_lane):
        if result and (joined := _join(result[-1], event)) is not None:
            result[-1] = joined
        else:
            result.append(event)
    return result


def by_choice(found: list) -> list:
    """Events choice by choice: which of several speaks first is a matter of time, also between two answers of one engine."""
    return sorted(found, key=_lane)


def _lane(event) -> int:
    """The choice an event is about; what is about none comes after all that are."""
    choices = event.get("choices") if isinstance(event, dict) else None
    return choices[0].get("index", 0) if choices else 1000


def apart(event) -> list:
    """An end and what was said with it as two events."""
    choice = event["choices"][0] if isinstance(event, dict) and event.get("choices") else {}
    delta = choice.get("delta")
    says = choice.get("text") if delta is None else delta.get("content") or delta.get("tool_calls")
    if not choice.get("finish_reason") or not says:
        return [event]
    said = {key: None if key in ("finish_reason", "stop_reason", "matched_stop") else it for key, it in choice.items()}
    if delta is not None:
        said.pop("stop_reason", None)  # which only an end has
    before = {key: it for key, it in event.items() if key != "system_fingerprint"} | {"choices": [said]}
    silent = {"text": ""} if delta is None else {"delta": {key: it for key, it in delta.items() if key not in ("content", "tool_calls")}}
    return [before, event | {"choices": [choice | silent | ({"logprobs": None} if "logprobs" in choice else {})]}]


def _join(one, two):
    try:
        [left], [right] = one["choices"], two["choices"]
    except (KeyError, TypeError, ValueError):
        return None
    if left.get("index") != right.get("index") or left.get("finish_reason") or right.get("finish_reason"):
        return None
    if "text" in left and "text" in right:
        return {**one, "choices": [{**left, "text": left["text"] + right["text"], "logprobs": _lists(left, right)}]}
    delta = _texts(left.get("delta") or {}, right.get("delta") or {}) or _calls(left.get("delta") or {}, right.get("delta") or {})
    return delta and {**one, "choices": [{**left, "delta": delta, "logprobs": _lists(left, right)}]}


def _texts(left: dict, right: dict) -> dict | None:
    """Two deltas with texts and nothing beside them as one."""
    for delta in (left, right):
        if not isinstance(delta.get("content"), str) or any(it is not None for key, it in delta.items() if key != "content"):
            return None
    return {**left, "content": left["content"] + right["content"]}


def _calls(left: dict, right: dict) -> dict | None:
    """A delta with a tool call, and one with more of its arguments, as one."""
    try:
        [begun], [more] = left["tool_calls"], right["tool_calls"]
        if begun["index"] != more["index"] or more["function"].get("name"):
            return None
        arguments = (begun["function"].get("arguments") or "") + more["function"]["arguments"]
    except (KeyError, TypeError, ValueError):
        return None
    return {**left, "tool_calls": [{**begun, "function": {**begun["function"], "arguments": arguments}}]}


def _lists(left: dict, right: dict):
    one, two = left.get("logprobs"), right.get("logprobs")
    if not one or not two:
        return one or two
    return {key: one[key] + two[key] if isinstance(one[key], list) else one[key] for key in one}


def differences(one, two, tolerance: float = 0.0, path: str = "") -> list[str]:
    """Where the two differ, in words; empty when they are the same."""
    if isinstance(one, dict) and isinstance(two, dict):
        found = [f"{path}.{key}: only {side}" for key in one.keys() ^ two.keys() for side in (["direct"] if key in one else ["smg"])]
        for key in one.keys() & two.keys():
            found += differences(one[key], two[key], tolerance, f"{path}.{key}")
        return found
    if isinstance(one, list) and isinstance(two, list):
        if len(one) != len(two):
            return [f"{path}: {len(one)} items direct, {len(two)} through smg: {_short(one)} / {_short(two)}"]
        return [it for i, (a, b) in enumerate(zip(one, two)) for it in differences(a, b, tolerance, f"{path}[{i}]")]
    both = isinstance(one, float) or isinstance(two, float)
    if both and not isinstance(one, (str, bool)) and not isinstance(two, (str, bool)) and one is not None and two is not None:
        return [] if math.isclose(one, two, rel_tol=tolerance, abs_tol=tolerance) else [f"{path}: {one} direct, {two} through smg"]
    return [] if type(one) is type(two) and one == two else [f"{path}: {_short(one)} direct, {_short(two)} through smg"]


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "…"
