"""Clients that leave: the worker's work ends with them, direct and through smg, in whichever phase they go."""

import asyncio
import time

import openai
import pytest

import backends
from conftest import client
from conftest import make
from conftest import notes
from test_answers import chat
from test_answers import user


def endless(backend, **options):
    return chat(backend, user("Tell me a story."), max_tokens=backend.endless, extra_body={"ignore_eos": True}, **options)


def busy(backend) -> int:
    return sum(backend.busy(it) for it in backend.chat_urls)


def wait_for(backend, wanted: bool, seconds: float) -> float:
    """Until the workers are busy or not; how long it took."""
    began = time.monotonic()
    while bool(busy(backend)) is not wanted:
        assert time.monotonic() - began < seconds, f"after {seconds} s the workers are {'idle' if wanted else 'still busy'}"
        time.sleep(0.005 if wanted else backend.look_every)
    return time.monotonic() - began


@pytest.fixture(params=["direct", "smg"])
def side(request, backend):
    """The address to leave from, and its name; workers are idle before and after."""
    wait_for(backend, False, 60)
    before = backend.mark()
    yield request.param, backend.smg if request.param == "smg" else backend.chat_urls[0]
    took = wait_for(backend, False, backend.patience)
    deadline = time.monotonic() + backend.patience
    while not backend.was_aborted(before):
        assert time.monotonic() < deadline, "the worker knows of no abort"
        time.sleep(backend.look_every)
    notes[backend.name].append(f"idle {took * 1000:.0f} ms after {request.node.name.split('[')[0].removeprefix('test_')} ({request.param})")


def test_stream_closed(backend, side):
    with client(side[1]) as made:
        stream = endless(backend, stream=True)(made)
        for _ in range(3):
            next(stream)
        wait_for(backend, True, 10)
        stream.close()


def test_stream_abandoned_by_its_client(backend, side):
    """The whole client goes, without a word to the stream."""
    made = client(side[1])
    stream = endless(backend, stream=True)(made)
    next(stream)
    wait_for(backend, True, 10)
    made.close()
    del stream


def test_timeout(backend, side):
    """The client's own timeout, with nothing received yet."""
    outcome = make(endless(backend), side[1], timeout=0.7)
    assert isinstance(outcome.error, openai.APITimeoutError) and outcome.seconds < 10


def test_cancelled_call(backend, side):
    """An async call whose task is cancelled."""
    async def run():
        async with openai.AsyncOpenAI(base_url=f"{side[1]}/v1", api_key=backends.KEY, max_retries=0, timeout=60) as made:
            task = asyncio.create_task(endless(backend)(made))
            while not busy(backend):
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    asyncio.run(asyncio.wait_for(run(), 60))


def test_async_stream(backend, both):
    """The async client reads the same (leaving is above; here it stays)."""
    async def read(base):
        async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=backends.KEY, max_retries=0, timeout=60) as made:
            return [it.choices[0].delta.content or "" async for it in await chat(backend, stream=True)(made) if it.choices]
    assert "".join(asyncio.run(read(backend.smg))) == "".join(asyncio.run(read(backend.chat_urls[0])))
    both.cell("same")
