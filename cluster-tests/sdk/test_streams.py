"""Streams: the same events in the same order, usage when and only when it is asked for, and text that is never broken."""

import json

from test_answers import BARELY_RANDOM
from test_answers import TOOLS
from test_answers import WEATHER
from test_answers import chat
from test_answers import completion
from test_answers import user


def streamed(call):
    """Reads a stream to its end."""
    return lambda client: list(call(client))


def text(chunks) -> str:
    return "".join(it.choices[0].delta.content or "" for it in chunks if it.choices)


def finish(chunks) -> list[str]:
    return [choice.finish_reason for it in chunks for choice in it.choices if choice.finish_reason]


def test_stream(backend, both):
    whole = both(chat(backend)).value.choices[0].message.content
    got = both(streamed(chat(backend, stream=True)))
    assert text(got.value) == whole and finish(got.value) == ["stop"]
    assert got.exchanges[0].content_type.startswith("text/event-stream")
    assert got.exchanges[0].body[-1] == "[DONE]"
    assert not any(it.usage for it in got.value)


def test_stream_usage(backend, both):
    """Exactly one chunk with usage, the last, with no choices."""
    got = both(streamed(chat(backend, stream=True, stream_options={"include_usage": True}))).value
    *others, last = got
    assert last.choices == [] and last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert not any(it.usage for it in others) and not any(not it.choices for it in others)


def test_stream_usage_off(backend, both):
    got = both(streamed(chat(backend, stream=True, stream_options={"include_usage": False}))).value
    assert not any(it.usage for it in got) and all(it.choices for it in got)


def test_stream_unicode(backend, both):
    for question, answer in backend.taught.items():
        got = text(both(streamed(chat(backend, user(question), stream=True))).value)
        assert got == answer and "\ufffd" not in got


def test_stream_tools(backend, both):
    got = both(streamed(chat(backend, WEATHER, tools=TOOLS, stream=True))).value
    calls = [call for it in got if it.choices for call in it.choices[0].delta.tool_calls or []]
    names = [it.function.name for it in calls if it.function.name]
    assert names == ["get_weather"] and finish(got) == ["tool_calls"]
    assert json.loads("".join(it.function.arguments or "" for it in calls)) == {"city": "Rome"}


def test_stream_helper(backend, both):
    """The SDK's event stream, which accumulates by itself."""
    def call(client):
        asked = {"model": backend.model, "messages": user("Say hello."), "temperature": 0, "max_tokens": 80}
        with client.chat.completions.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            return kinds, stream.get_final_completion().choices[0].message.content
    kinds, said = both(call).value
    assert said and "content.delta" in kinds and "content.done" in kinds


def test_stream_logprobs(backend, both):
    got = both(streamed(chat(backend, stream=True, logprobs=True, top_logprobs=2))).value
    assert any(it.choices and it.choices[0].logprobs for it in got)


def test_stream_n(backend, both):
    got = both(streamed(chat(backend, stream=True, n=2, **BARELY_RANDOM))).value
    assert {choice.index for it in got for choice in it.choices} == {0, 1}


def test_stream_stop(backend, both):
    both(streamed(chat(backend, stream=True, stop=["can", "the"])))


def test_stream_length(backend, both):
    assert finish(both(streamed(chat(backend, stream=True, max_tokens=3))).value) == ["length"]


def test_stream_structured(backend, both):
    from test_answers import SCHEMA
    got = text(both(streamed(chat(backend, stream=True, response_format=SCHEMA))).value)
    assert got.lstrip().startswith("{")


def test_stream_completions(backend, both):
    got = both(streamed(completion(backend, stream=True))).value
    assert "".join(it.choices[0].text for it in got) == both(completion(backend)).value.choices[0].text


def test_stream_completions_usage(backend, both):
    got = both(streamed(completion(backend, stream=True, stream_options={"include_usage": True}))).value
    assert [bool(it.usage) for it in got] == [False] * (len(got) - 1) + [True]
    assert len(got[-1].choices) == backend.usage_choices


def test_stream_many_at_once(backend, smg):
    """Sixteen streams side by side through smg: each is its own."""
    from concurrent.futures import ThreadPoolExecutor
    questions = list(backend.taught) * 16
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda it: text(chat(backend, user(it), stream=True)(smg)), questions[:16]))
    assert got == [backend.taught[it] for it in questions[:16]]
