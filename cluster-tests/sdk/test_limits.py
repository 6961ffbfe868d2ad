"""Limits: the SDK takes a 429 for its `RateLimitError`, finds our code in it, and tries again when it is told to."""

import json
import os
import time

import openai
import pytest

import backends
import processes
from conftest import Recorder, client
from test_answers import chat
from test_errors import is_openai_error

MODEL = "x-ratelimit-{}-requests".format


@pytest.fixture(scope="module")
def limited(backend, tmp_path_factory):
    """A gateway that is a cluster by itself, with one request a second of the model."""
    port, mesh = processes.free_port(), processes.free_port()
    command = [os.environ["SMG_BIN"], "--worker-urls", *backend.urls(), "--host", "127.0.0.1", "--port", str(port),
               "--prometheus-port", str(processes.free_port()), "--data-dir", str(tmp_path_factory.mktemp("data")), "--ha-mesh",
               "--mesh-host", "127.0.0.1", "--mesh-port", str(mesh), "--limit", f"model:{backend.model}:requests:second:1"]
    process = processes.Process(f"smg-limited-{backend.name}", command)
    base = f"http://127.0.0.1:{port}"
    try:
        process.wait_ready(f"{base}/readiness", 30)
        backend.wait_models(base)
        deadline = time.monotonic() + 30
        while share(base, backend.model) != 1:
            assert time.monotonic() < deadline, "the limit is not divided"
            time.sleep(0.05)
        yield base
    finally:
        process.stop()


def share(base: str, model: str) -> int | None:
    limits = json.loads(processes.get(f"{base}/models/{model}")[1])["limits"]
    return limits and limits[0]["here"] and limits[0]["here"]["share"]


def test_a_refusal_is_a_rate_limit_error(backend, limited):
    with client(limited) as made:
        deadline, error = time.monotonic() + 30, None
        while error is None:
            assert time.monotonic() < deadline, "twice in a second was never refused"
            try:
                chat(backend, max_tokens=1)(made)
            except openai.APIStatusError as refused:
                error = refused
    assert isinstance(error, openai.RateLimitError) and is_openai_error(error)
    assert error.code == "rate_limit_exceeded" and error.type == "rate_limit_error"
    assert f"model `{backend.model}` has used up its limit of 1 requests per second" in error.message
    headers = error.response.headers
    assert (headers[MODEL("limit")], headers[MODEL("remaining")], headers["x-ratelimit-window"]) == ("1", "0", "second")
    assert headers["retry-after"] == "1" and headers[MODEL("reset")] == "1s"


def test_the_sdk_tries_again_and_is_served(backend, limited):
    transport = Recorder()
    with openai.OpenAI(base_url=f"{limited}/v1", api_key=backends.KEY, max_retries=5,
                       http_client=openai.DefaultHttpxClient(transport=transport)) as made:
        for _ in range(4):
            answer = made.chat.completions.with_raw_response.create(
                model=backend.model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=1)
            assert answer.parse().choices
            assert answer.headers[MODEL("limit")] == "1" and answer.headers[MODEL("remaining")] == "0"
    statuses = [it.status for it in transport.exchanges]
    assert statuses.count(200) == 4 and 429 in statuses and set(statuses) == {200, 429}


def test_a_retry_after_the_limit_is_lifted_needs_no_other_client(backend, limited):
    import urllib.request
    body = json.dumps({"limits": [{"what": "requests", "per": "second", "limit": None}]}).encode()
    lift = urllib.request.Request(f"{limited}/models/{backend.model}", body, {"content-type": "application/json"}, method="PATCH")
    assert urllib.request.urlopen(lift, timeout=5).status == 200
    with client(limited) as made:
        for _ in range(4):
            answer = made.chat.completions.with_raw_response.create(
                model=backend.model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=1)
            assert MODEL("limit") not in answer.headers
