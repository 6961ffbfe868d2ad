"""The gateway's Responses API against vLLM's own, through the official SDK: the same talks, and each difference is in the list below or a failure.

The gateway keeps history and asks a worker for chat completions; vLLM reads items itself, and is sent the whole talk in each turn (where it keeps
responses, it goes on from them without the calls of tools). At temperature 0 one prompt gets one answer, so texts, usage and what the cache gave are
equal unless the gateway has put another prompt together.
"""

import pytest

import backends
import compare
from conftest import Both
from conftest import client
from conftest import make
from conftest import notes
from test_responses import PIXEL
from test_responses import WEATHER

BACKENDS = ["vllm"]
# A response, whole or in an event, of any talk.
RESPONSE = r"^[^.]*(\.events\[\d+\]\.response)?\."
# The differences that may be: a pattern of talk and place, and why. One that nothing matches any more fails as well.
JUSTIFIED = {
    RESPONSE + r"(store|text|reasoning|top_logprobs|metadata): only smg$":
        "What holds where nothing was asked for: OpenAI's answers say it, and so do the gateway's; vLLM's say null.",
    RESPONSE + r"previous_response_id: only smg$": "vLLM is sent the whole talk: see above.",
    RESPONSE + r"max_output_tokens: only direct$":
        "vLLM says what is left of the model's context where no limit was asked for; OpenAI and the gateway say null.",
    RESPONSE + r'service_tier: "auto" direct, "default" through smg$':
        "A response says which tier served it, as OpenAI's; vLLM, which has none, repeats the request.",
    RESPONSE + r'tool_choice: "none" direct, "auto" through smg$':
        "vLLM changes the request when there are no tools; the gateway shows what was asked, or OpenAI's default.",
    RESPONSE + r"(presence_penalty|frequency_penalty|usage\.\w+\.(\w+_per_turn|tool_output_tokens)): only direct$":
        "Fields of vLLM's own: penalties, and usage of tools that it carries out itself.",
    r"\.(part\.logprobs|content\[\d+\]\.logprobs|item\.content): only smg$":
        "Where there are no logprobs, and nothing is thought yet, a list is empty, as in OpenAI's schema; vLLM says null.",
    r"\.events\[\d+\]\.logprobs: 0 items direct, \d+ through smg": "vLLM leaves the logprobs out of `response.output_text.done`, where OpenAI's schema has them.",
    r'\.(item|output\[\d+\])\.status: ("completed" direct, "incomplete" through smg|only smg)$':
        "An item that was cut off is incomplete: vLLM says so of the response, and calls the item completed; of reasoning it says nothing.",
    r'\.types\[\d+\]: "response.completed" direct, "response.incomplete" through smg$':
        "OpenAI has an event of its own for a response that was cut off; vLLM has one end for all.",
    r"^systems(\.events\[\d+\]\.response)?\.usage\.(input|total)_tokens":
        "Another prompt: templates take one system message, and that first, so the gateway makes one of all that a talk begins with, and leaves the others where "
        "they were said. vLLM makes one of all as soon as there is a developer's, and none otherwise.",
}

SCHEMA = {"type": "object", "properties": {"verdict": {"enum": ["yes", "no"]}, "because": {"enum": ["so"]}},
          "required": ["verdict", "because"], "additionalProperties": False}


def say(given, /, **options):
    """A turn: what is new in it, and what else is asked."""
    return {"input": given, **options}


def rome(**options):
    return say("What is the weather in Rome?", tools=[WEATHER], **options)


def sunny(called):
    """What the tool says that was called."""
    call = next(it for it in called.output if it.type == "function_call")
    return [{"type": "function_call_output", "call_id": call.call_id, "output": '{"weather": "sunny"}'}]


def image(**options):
    parts = [{"type": "input_text", "text": "Say hello."}, {"type": "input_image", "image_url": PIXEL, "detail": "low"}]
    return say([{"role": "user", "content": parts}], **options)


SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
DEVELOPER, USER = {**SYSTEM, "role": "developer"}, {"role": "user", "content": "Say hello."}
TEN = [say(it) for it in [*backends.TAUGHT, "What is 2+2?"] * 2]
TALKS = {
    "no limit": [say("Say hello.", max_output_tokens=None)],
    "ten turns": TEN,
    "ten turns with a tool": [rome(), say(sunny, tools=[WEATHER]), *[{**it, "tools": [WEATHER]} for it in TEN[:8]]],
    "instructions of one turn": [say("Say hello.", instructions="You are a helpful assistant."), say("Count to ten.")],
    "roles and parts": [say([
        SYSTEM, USER, {"role": "assistant", "content": "Hello! How can I help you today?"},
        {"role": "user", "content": [{"type": "input_text", "text": "Count "}, {"type": "input_text", "text": "to ten."}]}]), say([SYSTEM, USER])],
    "developer": [say([DEVELOPER, USER])],
    "systems": [say([SYSTEM, USER], instructions="Be brief."), say([DEVELOPER, USER])],
    "options": [say("zzz", temperature=1.0, top_p=0.9, metadata={"a": "b"}, extra_body={"seed": 42, "top_k": 50, "presence_penalty": 0.5, "stop": ["q"]})],
    "cut off, and gone on": [say("Tell me a story.", max_output_tokens=3), say("Say hello.")],
    "logprobs": [say("Say hello.", include=["message.output_text.logprobs"], top_logprobs=2)],
    "tool not called": [say("Say hello.", tools=[WEATHER])],
    "tool none": [rome(tool_choice="none")],
    "tool named": [rome(tool_choice={"type": "function", "name": "get_weather"}), say(sunny, tools=[WEATHER])],
    "tool required": [rome(tool_choice="required"), say(sunny, tools=[WEATHER])],
    "schema": [say("Say hello.", text={"format": {"type": "json_schema", "name": "verdict", "strict": True, "schema": SCHEMA}}), say("Count to ten.")],
    "json": [say("Say hello.", text={"format": {"type": "json_object"}}, max_output_tokens=40)],
}
# At a worker that tells reasoning from words.
THOUGHTS = {
    "thought": [say("What is 2+2?"), say("What is 2+2?", reasoning={"effort": "low"}), say("Say hello.")],
    "thought, cut off": [say("What is 2+2?", max_output_tokens=5), say("Say hello.")],
    "thought, tool": [rome()],
}
# Refused by the worker, whose words are passed on.
REFUSED = {
    "image": image(), "image streamed": image(stream=True), "nothing": say([]), "too long": say("gateway " * 9000),
    "schema of no type": say("x", text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "nonsense"}}}),
}
# Refused in words of the gateway's own, or by the worker in the names of chat completions.
REFUSED_IN_OTHER_WORDS = {
    "model": say("x", model="nope"), "temperature": say("x", temperature=-1), "role": say([{"role": "robot", "content": "x"}]),
    "limit 0": say("x", max_output_tokens=0), "limit too high": say("x", max_output_tokens=100_000),
    "top_logprobs": say("x", include=["message.output_text.logprobs"], top_logprobs=21), "tool without a name": say("x", tools=[{"type": "function"}]),
    "unknown tool": rome(tool_choice={"type": "function", "name": "nope"}), "required without tools": say("x", tool_choice="required"),
}
told: set[tuple[str, bool]] = set()


def talk(turns: list[dict], is_stream: bool, is_kept: bool):
    """All turns. `is_kept`: whoever is asked knows what was said before, by the last answer's id."""
    def call(client):
        said, answers = [], []
        for turn in turns:
            given = turn["input"](answers[-1]) if callable(turn["input"]) else turn["input"]
            new = [{"role": "user", "content": given}] if isinstance(given, str) else given
            asked = {"model": "tiny", "temperature": 0, "max_output_tokens": 80, **turn, "input": said + new}
            if is_kept:
                asked |= {"input": given, "previous_response_id": answers[-1].id if answers else None}
            answers.append([*client.responses.create(**asked, stream=True)][-1].response if is_stream else client.responses.create(**asked))
            said += new + [it.to_dict() for it in answers[-1].output]
        return answers
    return call


class Sides(Both):
    """vLLM's own API beside the gateway's."""

    def __init__(self, backend, talk: str):
        super().__init__(backend, talk)
        self.known = JUSTIFIED

    def comparable(self, exchange):
        body = without_nulls(compare.mask(exchange.body, compare.MASKED | {"item_id", "call_id", "created_at"}))
        if not isinstance(body, list):
            return body
        assert [it["data"].pop("sequence_number") for it in body] == list(range(len(body)))
        assert [it["event"] for it in body] == [it["data"]["type"] for it in body]
        body = merged([it["data"] for it in body])
        return {"types": [it.pop("type") for it in body], "events": body}

    def demand(self, turns: list[dict], is_stream: bool) -> None:
        """The talk is had on both sides, and again where it was had first: by then all workers have its prompts in their caches."""
        told.add((self.feature, is_stream))
        for url in [*self.backend.chat_urls, self.backend.chat_urls[0]]:
            direct = make(talk(turns, is_stream, is_kept=False), url)
        through = make(talk(turns, is_stream, is_kept=True), self.backend.smg)
        self.demand_same(direct, through)
        assert direct.error is None and len(through.value) == len(turns)
        with client(self.backend.smg) as smg:
            for answer in through.value:
                assert smg.responses.retrieve(answer.id).to_dict() == answer.to_dict()


def without_nulls(value):
    """What is null is not there: to the SDK it is the same."""
    if isinstance(value, dict):
        return {key: without_nulls(it) for key, it in value.items() if it is not None}
    return [without_nulls(it) for it in value] if isinstance(value, list) else value


def merged(events: list[dict]) -> list[dict]:
    """Deltas that follow each other in one place as one: where the cuts lie is a matter of time."""
    def place(event):
        return [event.get(it) for it in ("type", "output_index", "content_index")]
    found = []
    for event in events:
        if found and event["type"].endswith(".delta") and place(event) == place(found[-1]):
            found[-1] |= {it: found[-1][it] + event[it] for it in ("delta", "logprobs") if it in event}
        else:
            found.append(event)
    return found


@pytest.fixture(scope="module")
def thinking(backend):
    started = backends.ThinkingVllm().start()
    yield started
    started.stop()


streamed_or_not = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])


@streamed_or_not
@pytest.mark.parametrize("name", TALKS)
def test_responses_versus(backend, name, is_stream):
    Sides(backend, name).demand(TALKS[name], is_stream)


@streamed_or_not
@pytest.mark.parametrize("name", THOUGHTS)
def test_responses_versus_thinking(backend, thinking, name, is_stream):
    Sides(thinking, name).demand(THOUGHTS[name], is_stream)


@pytest.mark.parametrize("name", REFUSED)
def test_responses_versus_refused(both, name):
    both(lambda client: client.responses.create(**{"model": "tiny", **REFUSED[name]}), lacks=400)


@pytest.mark.parametrize("name", REFUSED_IN_OTHER_WORDS)
def test_responses_versus_refused_otherwise(both, name):
    asked = {"model": "tiny", **REFUSED_IN_OTHER_WORDS[name]}
    both(lambda client: client.responses.create(**asked), lacks=404 if name == "model" else 400, is_own=True)


def test_responses_versus_justified(backend):
    if len(told) < 2 * len({**TALKS, **THOUGHTS}):
        pytest.skip("not all talks were had")
    assert [it for it in JUSTIFIED.values() if f"* {it}" not in notes[backend.name]] == []
