"""The form of an answer: which keys with which kinds of value, which events in which order. Texts and numbers are left out.

Neighbouring events of one form are one, since a worker may put several tokens into one event; choices are told apart, since which of
them speaks first is a matter of time.
"""

from compare import apart
from versus.wire import Answer

# Values that mean something to a client: these are compared, not their kind only.
KEPT = {"object", "finish_reason", "role", "type", "index", "code", "param"}
# What depends on the text that was said: its tokens, by their names.
OPEN = {"top_logprobs", "prompt_logprobs"}


def of(answer: Answer) -> dict | list:
    """The form of the whole answer: of its body, or of its events for each choice."""
    if not answer.content_type.startswith("text/event-stream"):
        return kind(answer.body)
    lanes: dict[str, list] = {}
    for event in answer.events:
        choices = event.get("choices") if isinstance(event, dict) else None
        lane = f"choice {choices[0]['index']}" if choices else "end"
        for form in map(kind, apart(event)):
            if form not in lanes.setdefault(lane, [])[-1:]:
                lanes[lane].append(form)
    return lanes


def kind(value, key: str = ""):
    """A value without what differs from one model to the next."""
    if isinstance(value, dict):
        return "<object>" if key in OPEN else {name: kind(it, name) for name, it in value.items()}
    if isinstance(value, list):
        forms = [] if key in OPEN else [kind(it) for it in value]
        return "<list>" if key in OPEN else [form for index, form in enumerate(forms) if form not in forms[:index]] or "<empty>"
    if value is None or isinstance(value, bool) or key in KEPT or value == "[DONE]":
        return value
    return "<text>" if isinstance(value, str) else "<number>"


def differences(sim, real, path: str = "") -> list[str]:
    """Where two forms differ, in words."""
    if isinstance(sim, dict) and isinstance(real, dict):
        found = [f"{path}.{key}: only {'sim' if key in sim else 'vllm'}" for key in sorted(sim.keys() ^ real.keys())]
        return found + [it for key in sim if key in real for it in differences(sim[key], real[key], f"{path}.{key}")]
    if isinstance(sim, list) and isinstance(real, list):
        if len(sim) == len(real):
            return [it for index, pair in enumerate(zip(sim, real)) for it in differences(*pair, f"{path}[{index}]")]
        return [f"{path}: {len(sim)} forms sim, {len(real)} vllm: {_short(sim)} / {_short(real)}"]
    return [] if sim == real and type(sim) is type(real) else [f"{path}: {_short(sim)} sim, {_short(real)} vllm"]


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 240 else text[:240] + "…"
