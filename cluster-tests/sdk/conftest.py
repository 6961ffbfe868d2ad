"""The differential suite: each call of the official SDK is made direct and through smg, and must come out the same.

`both` makes the pair of calls; what it learnt goes into the table at the end. Backends are chosen with `--backends sim,llama.cpp`.
"""

import re
import time
from collections import defaultdict
from dataclasses import dataclass, field

import httpx2
import openai
import pytest

import backends
import compare
import processes

cells: dict[tuple[str, str], str] = {}
notes: dict[str, list[str]] = defaultdict(list)


def pytest_addoption(parser):
    parser.addoption("--backends", default="sim,llama.cpp")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        said_by = asked_of(metafunc.definition)
        names = [it for it in metafunc.config.getoption("--backends").split(",") if it in said_by]
        metafunc.parametrize("backend", names, indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    """What none of the chosen backends is asked is left out: it was not skipped."""
    chosen = set(config.getoption("--backends").split(","))
    others = [it for it in items if "backend" in it.fixturenames and not chosen & set(asked_of(it))]
    config.hook.pytest_deselected(items=others)
    items[:] = [it for it in items if it not in others]


def asked_of(node):
    """The backends that a test is for: what asks for words, or for an API, that only some have names them, for itself or for its module."""
    marker = node.get_closest_marker("backends")
    return marker.args if marker else getattr(node.module, "BACKENDS", backends.ALL)


@pytest.fixture(scope="session")
def backend(request):
    started = backends.ALL[request.param]().start()
    notes[request.param] += started.notes
    yield started
    started.stop()


class Recorder(httpx2.HTTPTransport):
    """The SDK's transport, keeping what came back byte for byte."""

    def __init__(self):
        super().__init__()
        self.exchanges: list[Exchange] = []

    def handle_request(self, request):
        response = super().handle_request(request)
        exchange = Exchange(response.status_code, response.headers.get("content-type", ""))
        self.exchanges.append(exchange)
        response.stream = Tee(response.stream, exchange)
        return response


class Tee(httpx2.SyncByteStream):
    def __init__(self, inner, exchange):
        self.inner, self.exchange = inner, exchange

    def __iter__(self):
        for piece in self.inner:
            self.exchange.raw += piece
            yield piece

    def close(self):
        self.inner.close()


@dataclass
class Exchange:
    status: int
    content_type: str
    raw: bytes = b""

    @property
    def body(self):
        return compare.body(self.content_type, self.raw)


@dataclass
class Outcome:
    """What one side of a pair gave: a value or the SDK's error, and what was on the wire."""

    value: object = None
    error: openai.OpenAIError | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    seconds: float = 0.0


def client(base: str, *, key: str = backends.KEY, timeout: float = 120, transport=None) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(transport=transport) if transport else None
    return openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=timeout, http_client=http)


def make(call, base: str, **options) -> Outcome:
    """One call at one address."""
    transport, outcome = Recorder(), Outcome()
    began = time.monotonic()
    with client(base, transport=transport, **options) as made:
        try:
            outcome.value = call(made)
        except openai.OpenAIError as error:
            outcome.error = error
    outcome.exchanges, outcome.seconds = transport.exchanges, time.monotonic() - began
    return outcome


class Both:
    """Makes a call direct and through smg, and demands the same of both."""

    def __init__(self, backend, feature: str):
        self.backend, self.feature, self.known = backend, feature, backend.known

    def __call__(self, call, *, where: str = "chat", lacks: int | str | None = None, is_own: bool = False) -> Outcome:
        """`call` gets a client. `lacks`: the status this engine refuses it with, or the SDK's error (by default what the backend says).

        `is_own`: the gateway refuses this itself, before a worker sees it: its words are its own, the status is not.
        """
        urls = self.backend.chat_urls if where == "chat" else self.backend.embed_urls
        if not urls:
            pytest.skip("this engine has no server for it here")
        for url in urls:
            make(call, url)  # afterwards all workers have the prompt in their caches alike
        direct, through = make(call, urls[0]), make(call, self.backend.smg)
        known = self.demand_own(direct, through) if is_own else self.demand_same(direct, through)
        expected = lacks if lacks is not None else self.backend.lacks.get(self.feature)
        status = direct.error and getattr(direct.error, "status_code", type(direct.error).__name__)
        if not expected and direct.error is not None:
            raise AssertionError(f"the engine itself refuses: {direct.error}")
        assert (status or 0) == (expected or 0), f"the engine was expected to answer {expected or 200}"
        self.cell(f"{'own' if is_own else 'same'}{'*' if known else ''}{f' {status}' if status else ''}")
        return direct

    def demand_own(self, direct: Outcome, through: Outcome) -> list[str]:
        """The same status and class, in OpenAI's schema."""
        assert type(direct.error) is type(through.error), f"direct {direct.error!r}, through smg {through.error!r}"
        assert through.error.body.keys() >= {"message", "type", "param", "code"}, through.error.body
        return []

    def demand_same(self, direct: Outcome, through: Outcome) -> list[str]:
        """Returns the known differences that were met."""
        assert type(direct.error) is type(through.error), f"direct {direct.error!r}, through smg {through.error!r}"
        assert len(direct.exchanges) == len(through.exchanges)
        found = []
        for one, two in zip(direct.exchanges, through.exchanges):
            assert one.status == two.status, f"{one.status} {one.raw!r} direct, {two.status} {two.raw!r} through smg"
            assert one.content_type.partition(";")[0] == two.content_type.partition(";")[0]
            found += compare.differences(self.comparable(one), self.comparable(two), self.backend.tolerance)
        known = {it: reason for it in found for pattern, reason in self.known.items() if re.search(pattern, self.feature + it)}
        notes[self.backend.name] += [f"* {reason}" for reason in known.values()]
        assert not (unknown := [it for it in found if it not in known]), "\n".join(unknown)
        return list(known)

    def comparable(self, exchange: Exchange):
        body = compare.mask(exchange.body, compare.MASKED | self.backend.masked)
        if not isinstance(body, list):
            return body
        return compare.merged(body) if self.backend.coalesces else compare.by_choice(body)

    def cell(self, text: str) -> None:
        before = [it for it in cells.get((self.feature, self.backend.name), "").split(", ") if it]
        cells[self.feature, self.backend.name] = ", ".join(dict.fromkeys([*before, text]))


@pytest.fixture
def feature(request) -> str:
    return request.function.__name__.removeprefix("test_")


@pytest.fixture
def both(backend, feature) -> Both:
    return Both(backend, feature)


@pytest.fixture
def smg(backend):
    """A client of the gateway, for what is the gateway's own."""
    with client(backend.smg) as made:
        yield made


def pytest_runtest_logreport(report):
    if "[" not in report.nodeid:
        return
    name, params = report.nodeid.rsplit("::", 1)[-1].removeprefix("test_").rstrip("]").split("[", 1)
    backend = next((it for it in params.split("-") if it in backends.ALL), None)
    if backend is None:
        return  # a test with workers of its own
    if report.failed:
        cells[name, backend] = "FAIL"
    elif report.skipped:
        cells[name, backend] = "not run"
    elif report.when == "call":
        cells.setdefault((name, backend), "pass")


def pytest_sessionfinish(exitstatus):
    if exitstatus == 0:
        processes.forget_logs()
    else:
        print(f"\nlogs of what was started: {processes.LOGS}")


def pytest_terminal_summary(terminalreporter):
    names = sorted({backend for _, backend in cells}, key=list(backends.ALL).index)
    if not names:
        return
    out = terminalreporter
    out.section("feature x backend: direct and through smg")
    out.line("same      the same status and body (events in order) but for ids, times, fingerprints and timings; with a status: refused alike")
    out.line("same*     but for the known difference below; own 4xx: refused by smg itself with the engine's status; pass: held, nothing to compare")
    out.line(f"{'feature':<42}" + "".join(f"{name:<18}" for name in names))
    for feature in dict.fromkeys(feature for feature, _ in cells):
        out.line(f"{feature:<42}" + "".join(f"{cells.get((feature, name), '-'):<18}" for name in names))
    for name in names:
        for note in dict.fromkeys(notes[name]):
            out.line(f"{name}: {note}")
