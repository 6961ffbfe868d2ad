"""Errors: the engine's own arrive as they are; those of the gateway have OpenAI's schema, so that the SDK's classes fit."""

import openai
import pytest

import backends
from conftest import client
from conftest import make
from test_answers import chat
from test_answers import user


def is_openai_error(error) -> bool:
    """`{"error": {"message", "type", "param", "code"}}`: the SDK takes `error` out of the body."""
    return isinstance(error.body, dict) and {"message", "type", "param", "code"} <= error.body.keys() and bool(error.body["message"])


def refused(both, call, status: int, is_own: bool = False):
    """An engine's refusal: the same through the gateway, whatever this engine thinks of the request (0: nothing bad)."""
    expected = both.backend.lacks.get(both.feature, status)
    return both(call, lacks=expected, is_own=is_own)


def test_unknown_model(backend, smg):
    """llama.cpp and SGLang take any name; the gateway knows who serves what."""
    with pytest.raises(openai.NotFoundError) as caught:
        chat(backend, model="no-such-model")(smg)
    assert is_openai_error(caught.value) and "no-such-model" in caught.value.message
    if backend.name in ("sim", "vllm"):
        direct = make(chat(backend, model="no-such-model"), backend.chat_urls[0]).error
        assert direct.status_code == 404 and direct.body.keys() <= caught.value.body.keys() | {"param"}


def test_wrong_key(backend):
    for key in ("sk-wrong", backends.KEY + "x", backends.KEY[:-1]):
        error = make(chat(backend), backend.smg, key=key).error
        assert isinstance(error, openai.AuthenticationError) and is_openai_error(error) and key not in str(error)


def test_unknown_path(backend, smg):
    with pytest.raises(openai.NotFoundError) as caught:
        smg.post("/no/such/path", body={}, cast_to=object)
    assert is_openai_error(caught.value)


def test_wrong_method(backend, smg):
    with pytest.raises(openai.APIStatusError) as caught:
        smg.get("/chat/completions", cast_to=object)
    assert caught.value.status_code == 405 and is_openai_error(caught.value)


def test_malformed_json(backend, smg):
    import httpx2
    answer = httpx2.post(f"{backend.smg}/v1/chat/completions", content=b'{"model": "tiny", "messages": [',
                         headers={"authorization": f"Bearer {backends.KEY}", "content-type": "application/json"})
    assert answer.status_code == 400 and {"message", "type", "param", "code"} <= answer.json()["error"].keys()


def test_bad_temperature(backend, both):
    refused(both, chat(backend, temperature=-1), 400)


def test_bad_temperature_in_a_stream(backend, both):
    refused(both, lambda it: list(chat(backend, temperature=-1, stream=True)(it)), 400)


def test_bad_max_tokens(backend, both):
    refused(both, chat(backend, max_tokens=-5), 400)


def test_bad_tool(backend, both):
    refused(both, chat(backend, tools=[{"type": "function", "function": {"no": "name"}}]), 400)


def test_bad_response_format(backend, both):
    refused(both, chat(backend, response_format={"type": "no_such_type"}), 400)


def test_prompt_too_long(backend, both):
    refused(both, chat(backend, user("gateway " * backend.too_long)), 400)


def test_messages_missing(backend, both):
    refused(both, lambda it: it.post("/chat/completions", body={"model": backend.model}, cast_to=object), 400, is_own=True)


def test_messages_not_a_list(backend, both):
    refused(both, chat(backend, messages="Say hello."), 400, is_own=True)


def test_busy_worker(backend, both):
    """Too many requests (a simulated worker on command): the SDK sees the class it expects, direct and through smg."""
    if backend.name != "sim":
        pytest.skip("real engines cannot be told to be busy")
    headers = {"x-sim-fault": "status:status=400"}
    call = chat(backend, extra_headers=headers)
    assert isinstance(both(call, lacks=400).error, openai.BadRequestError)


def test_error_after_the_client_is_closed(backend):
    made = client(backend.smg)
    made.close()
    with pytest.raises((openai.APIConnectionError, RuntimeError)):
        chat(backend)(made)
