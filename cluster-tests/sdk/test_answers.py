"""Whole answers: chat, tools, structured output, completions, embeddings, models, and the parameters that shape them."""

import base64
import json
import struct

import pytest

import processes

TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": {
    "type": "object", "properties": {"verdict": {"enum": ["yes", "no"]}}, "required": ["verdict"], "additionalProperties": False}}}
# vLLM refuses several choices of what is certain.
BARELY_RANDOM = {"temperature": 0.01, "seed": 1}
WEATHER = [{"role": "user", "content": "What is the weather in Rome?"}]


def user(text):
    return [{"role": "user", "content": text}]


def chat(backend, messages=None, **options):
    """A chat call: what a test varies are its options."""
    asked = {"model": backend.model, "messages": messages or user("Say hello."), "temperature": 0, "max_tokens": 80, **options}
    return lambda client: client.chat.completions.create(**asked)


def completion(backend, **options):
    asked = {"model": backend.model, "prompt": "def main(", "temperature": 0, "max_tokens": 12, **options}
    return lambda client: client.completions.create(**asked)


def test_chat(backend, both):
    got = both(chat(backend)).value
    [choice] = got.choices
    assert choice.message.role == "assistant" and choice.finish_reason == "stop"
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    if "Say hello." in backend.taught:
        assert choice.message.content == backend.taught["Say hello."]


def test_chat_taught(backend, both):
    for question, answer in backend.taught.items():
        assert both(chat(backend, user(question))).value.choices[0].message.content == answer


def test_chat_turns(backend, both):
    messages = [{"role": "system", "content": "You are a helpful assistant."}, *user("Say hello."),
                {"role": "assistant", "content": "Hello! How can I help you today?"}, *user("Count to ten.")]
    assert both(chat(backend, messages)).value.choices[0].message.content


def test_tools_call(backend, both):
    got = both(chat(backend, WEATHER, tools=TOOLS)).value.choices[0]
    [call] = got.message.tool_calls
    assert got.finish_reason == "tool_calls" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Rome"}


def test_tools_result(backend, both):
    """The second round of a tool call."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [*WEATHER, {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": '{"weather": "sunny"}'}]
    got = both(chat(backend, messages, tools=TOOLS)).value.choices[0]
    assert got.finish_reason == "stop"
    if backend.name != "sim":
        assert got.message.content == "It is sunny there."


def test_tools_not_called(backend, both):
    got = both(chat(backend, user("Say hello."), tools=TOOLS)).value.choices[0]
    assert not got.message.tool_calls and got.message.content


def test_tool_choice_none(backend, both):
    assert not both(chat(backend, WEATHER, tools=TOOLS, tool_choice="none")).value.choices[0].message.tool_calls


def test_tool_choice_named(backend, both):
    named = {"type": "function", "function": {"name": "get_weather"}}
    both(chat(backend, WEATHER, tools=TOOLS, tool_choice=named))


def test_structured_schema(backend, both):
    got = both(chat(backend, response_format=SCHEMA)).value.choices[0]
    if got.finish_reason == "stop":
        assert json.loads(got.message.content)["verdict"] in ("yes", "no")
    assert got.message.content.lstrip().startswith("{")


def test_structured_parse(backend, both):
    """The SDK's own way: a class in, an instance out."""
    from typing import Literal

    from pydantic import BaseModel

    class Verdict(BaseModel):
        verdict: Literal["yes", "no"]

    got = both(lambda client: client.chat.completions.parse(
        model=backend.model, messages=user("Say hello."), temperature=0, max_tokens=200, response_format=Verdict))
    assert got.error or isinstance(got.value.choices[0].message.parsed, Verdict)


def test_structured_json_object(backend, both):
    got = both(chat(backend, response_format={"type": "json_object"}, max_tokens=40)).value.choices[0]
    assert got.message.content is not None


def test_completions(backend, both):
    got = both(completion(backend)).value
    assert got.choices[0].text and got.usage.completion_tokens <= 12


def test_completions_echo(backend, both):
    got = both(completion(backend, echo=True)).value
    if backend.name in ("sim", "vllm"):
        assert got.choices[0].text.startswith("def main(")


def test_completions_token_ids(backend, both):
    both(completion(backend, prompt=[10, 20, 30, 40]))


def test_completions_many(backend, both):
    both(completion(backend, prompt=["import os", "import sys"]))


def test_completions_logprobs(backend, both):
    both(completion(backend, logprobs=2))


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_embeddings_float(backend, both, many):
    asked = ["gateway", "a wholly different text: Grüße 🚀"] if many else "gateway"
    got = both(lambda client: client.embeddings.create(model=backend.embed_model, input=asked, encoding_format="float"), where="embed").value
    assert [it.index for it in got.data] == list(range(len(got.data))) and len(got.data) == (2 if many else 1)
    assert all(isinstance(it, float) for it in got.data[0].embedding)


def test_embeddings_base64(backend, both):
    def numbers(client, how):
        return client.embeddings.create(model=backend.embed_model, input="gateway", encoding_format=how).data[0].embedding
    packed = both(lambda client: numbers(client, "base64"), where="embed").value
    plain = both(lambda client: numbers(client, "float"), where="embed").value
    if isinstance(packed, str):
        raw = base64.b64decode(packed)
        packed = struct.unpack(f"<{len(raw) // 4}f", raw)
    assert packed == pytest.approx(plain, abs=1e-5)


def test_embeddings_default(backend, both):
    """The SDK asks for base64 by itself and unpacks it."""
    got = both(lambda client: client.embeddings.create(model=backend.embed_model, input="gateway"), where="embed").value
    assert len(got.data[0].embedding) >= 64


def test_embeddings_dimensions(backend, both):
    both(lambda client: client.embeddings.create(model=backend.embed_model, input="gateway", dimensions=32), where="embed")


def test_embeddings_of_a_chat_model(backend, both):
    both(lambda client: client.embeddings.create(model=backend.model, input="gateway"))


def test_models_list(backend, both, smg):
    """The union of what the workers serve."""
    from conftest import client
    direct = set()
    for url in {*backend.chat_urls, *backend.embed_urls}:
        with client(url) as worker:
            direct |= {it.id for it in worker.models.list()}
    got = list(smg.models.list())
    assert {it.id for it in got} == direct and len(got) == len(direct)
    assert all(it.object == "model" and isinstance(it.created, int) and it.owned_by for it in got)


def test_models_retrieve(backend, smg):
    assert smg.models.retrieve(backend.model).id == backend.model


def test_recognised(backend):
    """What each server is and how long a context it has, found by the gateway itself."""
    workers = json.loads(processes.get(f"{backend.smg}/workers")[1])["workers"]
    assert len(workers) == len({*backend.chat_urls, *backend.embed_urls})
    assert {it["runtime_type"] for it in workers} == {backend.runtime}
    assert all(model["context_len"] == backend.context for it in workers if it["url"] in backend.chat_urls for model in it["models"])


def test_logprobs(backend, both):
    got = both(chat(backend, logprobs=True, top_logprobs=3)).value.choices[0]
    assert "".join(it.token for it in got.logprobs.content).startswith(got.message.content[:5])


def test_n(backend, both):
    assert len(both(chat(backend, n=2, **BARELY_RANDOM)).value.choices) == 2


def test_stop(backend, both):
    [first, *_] = both(chat(backend, max_tokens=80)).value.choices
    word = first.message.content.split(" ")[2]
    got = both(chat(backend, stop=[word])).value.choices[0]
    assert word not in got.message.content and first.message.content.startswith(got.message.content) and got.finish_reason == "stop"


def test_max_tokens(backend, both):
    got = both(chat(backend, max_tokens=3)).value
    assert got.choices[0].finish_reason == "length" and got.usage.completion_tokens == 3


def test_max_completion_tokens(backend, both):
    def call(client):
        return client.chat.completions.create(model=backend.model, messages=user("Say hello."), temperature=0, max_completion_tokens=3)
    assert both(call).value.usage.completion_tokens == 3


def test_seed(backend, both):
    """The same seed at a high temperature says the same on every worker."""
    both(chat(backend, user("zzz"), seed=42, temperature=1.0, max_tokens=12))


def test_penalties_and_user(backend, both):
    both(chat(backend, presence_penalty=0.5, frequency_penalty=0.5, top_p=0.9, logit_bias={"5": 1}, user="someone"))


def test_unicode_prompt(backend, both):
    text = "Ümlaut é, e\u0301, 世界, 한국어, עברית, 👩‍👩‍👧, \u2028 \u0000 \\ \" </s>"
    assert both(chat(backend, user(text), max_tokens=8)).value.choices[0].message


def test_content_parts(backend, both):
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]
    both(chat(backend, [{"role": "user", "content": parts}]))


def test_long_prompt(backend, both):
    got = both(chat(backend, user("gateway " * 400), max_tokens=4)).value
    assert got.usage.prompt_tokens > 200


def test_unknown_fields(backend, both):
    """What the SDK does not know goes in and comes out: `timings`, `stop_reason` and the like are compared by `both`."""
    extra = {"x_unknown": {"deep": [1, 2.50, "ü", None], "big": 12345678901234567890}, "min_p": 0.05, "top_k": 1}
    both(chat(backend, extra_body=extra))
    if backend.name == "sim":
        assert_same_request(backend, chat(backend, extra_body=extra))
        assert_same_request(backend, chat(backend, extra_body=extra, stream=True, stream_options={"include_usage": True}))


def assert_same_request(backend, call):
    """A simulated worker tells what it was sent: byte for byte what the SDK wrote."""
    from conftest import make

    def last(urls):
        seen = [it for url in urls for it in json.loads(processes.get(f"{url}/sim/requests")[1])]
        return [it["body"] for it in seen if it["path"] == "/v1/chat/completions"]

    before = len(last(backend.chat_urls))
    make(lambda client: list(call(client)), backend.chat_urls[0])
    direct = last(backend.chat_urls[:1])[-1]
    make(lambda client: list(call(client)), backend.smg)
    assert last(backend.chat_urls).count(direct) >= 2, f"{direct} did not arrive as it was sent ({before} before)"
