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
    """Events in which neighbours that only add text to the same choice are one.

    vLLM and SGLang put into one event what was ready when they wrote it, so where the cuts lie is a matter of time.
    """
    result = []
    for event in found:
        if result and (joined := _join(result[-1], event)) is not None:
            result[-1] = joined
        else:
            result.append(event)
    return result


def _join(one, two):
    try:
        [left], [right] = one["choices"], two["choices"]
    except (KeyError, TypeError, ValueError):
        return None
    if left.get("index") != right.get("index") or left.get("finish_reason") or right.get("finish_reason"):
        return None
    if "text" in left and "text" in right:
        return {**one, "choices": [{**left, "text": left["text"] + right["text"], "logprobs": _lists(left, right)}]}
    left_delta, right_delta = left.get("delta") or {}, right.get("delta") or {}
    if not isinstance(left_delta.get("content"), str) or set(left_delta) != {"content"} != set(right_delta):
        return None
    if not isinstance(right_delta.get("content"), str) or set(right_delta) != {"content"}:
        return None
    delta = {"content": left_delta["content"] + right_delta["content"]}
    return {**one, "choices": [{**left, "delta": delta, "logprobs": _lists(left, right)}]}


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
