"""One request on a connection of its own, and what came back byte for byte."""

import http.client
import json
import time
from dataclasses import dataclass
from dataclasses import field
from urllib.parse import urlsplit

from versus.corpus import Ask

TIMEOUT = 120


@dataclass
class Answer:
    """What came back; for a client that left, what there was by then."""

    status: int = 0
    content_type: str = ""
    raw: bytes = b""
    problems: list[str] = field(default_factory=list)

    @property
    def events(self) -> list:
        """The data of each event; `[DONE]` is a text."""
        return [_json(it.removeprefix(b"data: ")) for it in self.raw.split(b"\n\n") if it]

    @property
    def body(self):
        return _json(self.raw)


def _json(raw: bytes):
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")


def send(url: str, ask: Ask, is_busy) -> Answer:
    """Asks; a client that leaves before the first byte does so when the worker is busy with it (`is_busy`)."""
    split = urlsplit(url)
    connection = http.client.HTTPConnection(split.hostname, split.port, timeout=TIMEOUT)
    body = json.dumps(ask.body).encode() if isinstance(ask.body, dict) else ask.body
    try:
        connection.request(ask.method, ask.path, body, {"content-type": "application/json"} if body is not None else {})
        if ask.leave_after == 0:
            _wait(is_busy)
            return Answer()
        response = connection.getresponse()
        answer = Answer(response.status, response.getheader("content-type", ""))
        if ask.leave_after is None:
            answer.raw = response.read()
        else:
            while answer.raw.count(b"\n\n") < ask.leave_after:
                answer.raw += response.readline()
        answer.problems = _framing(answer)
        return answer
    finally:
        connection.close()


def _framing(answer: Answer) -> list[str]:
    """What is wrong with the lines of a stream: each event is `data: ` and one line, and nothing else is there."""
    if not answer.content_type.startswith("text/event-stream"):
        return []
    blocks = answer.raw.split(b"\n\n")
    found = [f"line: {it[:60]!r}" for it in blocks[:-1] if not it.startswith(b"data: ") or b"\n" in it]
    return found + ([f"after the last event: {blocks[-1][:60]!r}"] if blocks[-1] else [])


def _wait(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the worker did not take the request")
        time.sleep(0.002)
