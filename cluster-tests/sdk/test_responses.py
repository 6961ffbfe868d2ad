"""Responses and conversations through the official SDK: each call goes to the next gateway, and all of them know what any was told.

By default a cluster of `SDK_NODES` (three) gateways with the backend's workers is started here. `SDK_BASES` (addresses, separated by spaces) names the nodes of a running
cluster instead, whose workers are simulated ones; `SDK_KEY` is a key of theirs, if they have any, and `SDK_OTHER_KEY` one of another tenant.
"""

import itertools
import json
import os
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

import backends
import processes
from conftest import client

BACKENDS = ["sim", "llama.cpp"]
TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
OTHER = "sk-another-tenant"
NODES = int(os.environ.get("SDK_NODES", "3"))
WEATHER = {"type": "function", "name": "get_weather", "strict": False,
           "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Thinker(BaseHTTPRequestHandler):
    """A worker that thinks before it speaks, which simulated ones do not."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, body: bytes, kind: str = "application/json"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        models = {"object": "list", "data": [{"id": "thinker", "object": "model", "owned_by": "test", "max_model_len": 4096}]}
        self.send(json.dumps(models if self.path == "/v1/models" else {}).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 2}}
        thoughts = [it["reasoning_content"] for it in asked["messages"] if "reasoning_content" in it]
        said = f"remembered: {thoughts[-1]}" if thoughts else "hello"
        if not asked.get("stream"):
            message = {"role": "assistant", "reasoning_content": "let me think", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return self.send(json.dumps({"id": "1", "object": "chat.completion", "model": "thinker", "choices": [choice], "usage": usage}).encode())
        deltas = [{"role": "assistant"}, {"reasoning_content": "let me "}, {"reasoning_content": "think"}, {"content": said}]
        chunks = [{"choices": [{"index": 0, "delta": it}]} for it in deltas]
        chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
        body = "".join(f"data: {json.dumps({'id': '1', **it})}\n\n" for it in chunks) + "data: [DONE]\n\n"
        self.send(body.encode(), "text/event-stream")


class Nodes:
    """Clients of all gateways, of which each call takes the next."""

    def __init__(self, bases: list[str], key: str, other_key: str | None, model: str):
        self.bases, self.key, self.other_key, self.model = bases, key, other_key, model
        self.clients = [client(it, key=key) for it in bases]
        self.turns = itertools.cycle(self.clients)

    @property
    def next(self) -> openai.OpenAI:
        return next(self.turns)

    @property
    def responses(self):
        return self.next.responses

    @property
    def conversations(self):
        return self.next.conversations

    def create(self, **options):
        """A response of the model's, in which nothing is left to chance."""
        return self.responses.create(**{"model": self.model, "temperature": 0, **options})

    def other(self, base: str | None = None) -> openai.OpenAI:
        return client(base or self.bases[-1], key=self.other_key)

    def until_ended(self, response_id: str, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while True:
            found = self.responses.retrieve(response_id)
            if found.status not in ("queued", "in_progress"):
                return found
            assert time.monotonic() < deadline, f"not ended in time: {found.status}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def nodes(backend, tmp_path_factory):
    bases = os.environ.get("SDK_BASES", "").split()
    if bases:
        return (yield Nodes(bases, os.environ.get("SDK_KEY", "sk-none"), os.environ.get("SDK_OTHER_KEY"), os.environ.get("SDK_MODEL", "sim-model")))
    ports, meshes = ([processes.free_port() for _ in range(NODES)] for _ in range(2))
    started, bases = [], [f"http://127.0.0.1:{it}" for it in ports]
    try:
        for at, (port, mesh) in enumerate(zip(ports, meshes)):
            command = [os.environ["SMG_BIN"], "--worker-urls", *backend.urls(), "--host", "127.0.0.1", "--port", str(port), "--prometheus-port",
                       str(processes.free_port()), "--data-dir", str(tmp_path_factory.mktemp("data")), "--ha-mesh", "--mesh-host", "127.0.0.1",
                       "--mesh-port", str(mesh), "--seeds", *[f"127.0.0.1:{it}" for it in meshes],
                       "--api-key", f"sdk:sdk:user:{backends.KEY}", f"other:other:user:{OTHER}"]
            started.append(processes.Process(f"smg-history-{backend.name}-{at}", command))
        for process, base in zip(started, bases):
            process.wait_ready(f"{base}/readiness", 60)
            backend.wait_models(base)
        nodes = Nodes(bases, backends.KEY, OTHER, backend.model)
        for each in nodes.clients:
            until_kept(each, nodes.model)
        yield nodes
    finally:
        for process in started:
            process.stop()


def until_kept(node: openai.OpenAI, model: str):
    """Waits until the cluster keeps what this node makes: it forms a group first."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return node.responses.create(model=model, input="say: x")
        except openai.InternalServerError as error:
            assert error.status_code == 503 and time.monotonic() < deadline, error
            time.sleep(0.2)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """A gateway whose only worker thinks."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Thinker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = processes.free_port()
    base = f"http://127.0.0.1:{port}"
    command = [os.environ["SMG_BIN"], "--worker-urls", f"http://127.0.0.1:{server.server_port}", "--host", "127.0.0.1", "--port", str(port),
               "--prometheus-port", str(processes.free_port()), "--data-dir", str(tmp_path_factory.mktemp("data"))]
    process = processes.Process("smg-thinker", command)
    try:
        process.wait_ready(f"{base}/readiness", 30)
        deadline = time.monotonic() + 30
        while "thinker" not in processes.get(f"{base}/v1/models")[1]:
            assert time.monotonic() < deadline, processes.get(f"{base}/workers")
            time.sleep(0.05)
        yield Nodes([base], "sk-none", None, "thinker")
    finally:
        process.stop()
        server.shutdown()


def check(events: list, last=None):
    """The rules of a stream: numbers without a gap, one terminal event at the end, items as they were when they were done."""
    assert [it.sequence_number for it in events] == list(range(len(events)))
    assert events[0].type == "response.created" and [it.type for it in events if it.type in TERMINAL] == [events[-1].type]
    items, texts = [], {}
    for event in events:
        place = (getattr(event, "output_index", None), getattr(event, "content_index", None))
        match event.type:
            case "response.output_item.added":
                assert event.output_index == len(items) and event.item.status == "in_progress"
                items.append(event.item)
            case "response.output_text.delta" | "response.reasoning_text.delta" | "response.function_call_arguments.delta":
                assert items[event.output_index].status == "in_progress" and items[event.output_index].id == event.item_id
                texts[place] = texts.get(place, "") + event.delta
            case "response.output_text.done" | "response.reasoning_text.done":
                assert event.text == texts.get(place, "")
            case "response.function_call_arguments.done":
                assert event.arguments == texts.get(place, "")
            case "response.output_item.done":
                assert event.item.status != "in_progress"
                items[event.output_index] = event.item
    ended = events[-1].response
    assert [it.to_dict() for it in ended.output] == [it.to_dict() for it in items]
    if last is not None:
        assert ended.to_dict() == last.to_dict()
    return ended


def streamed(nodes, **options):
    with nodes.create(stream=True, **options) as stream:
        return check(list(stream))


def taught(backend):
    """A question, and the answer that all workers have to it."""
    return next(iter(backend.taught.items()))


def test_response(backend, nodes):
    question, answer = taught(backend)
    made = nodes.create(input=question, instructions="You are a helpful assistant.", metadata={"a": "b"}, temperature=0.01)
    assert (made.object, made.status, made.output_text, made.metadata, made.temperature) == ("response", "completed", answer, {"a": "b"}, 0.01)
    assert made.usage.input_tokens > 0 and made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    for _ in range(3):
        assert nodes.responses.retrieve(made.id).to_dict() == made.to_dict()
    assert [it.content[0].text for it in nodes.responses.input_items.list(made.id)] == [question]
    assert nodes.responses.delete(made.id) is None
    for call in (nodes.responses.retrieve, nodes.responses.delete, nodes.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as refused:
            call(made.id)
        assert refused.value.code == "not_found"


def test_stream(backend, nodes):
    question, answer = taught(backend)
    ended = streamed(nodes, input=question)
    assert (ended.status, ended.output_text) == ("completed", answer)
    assert nodes.responses.retrieve(ended.id).to_dict() == ended.to_dict()
    with nodes.responses.stream(model=nodes.model, input=question, temperature=0) as stream:
        deltas = "".join(it.delta for it in stream if it.type == "response.output_text.delta")
    assert deltas == stream.get_final_response().output_text == answer


@pytest.mark.parametrize("is_stream", [False, True])
def test_chain_of_ten(backend, nodes, is_stream):
    previous, said, tokens = None, [], 0
    for question in itertools.islice(itertools.cycle(backend.taught), 10):
        options = {"input": question, **({"previous_response_id": previous} if previous else {})}
        made = streamed(nodes, **options) if is_stream else nodes.create(**options)
        said.append({"role": "user", "content": question})
        by_hand = nodes.create(input=said, store=False)
        assert made.previous_response_id == previous and made.output_text == by_hand.output_text
        assert made.usage.input_tokens == by_hand.usage.input_tokens > tokens, "it read what came before"
        previous, tokens = made.id, made.usage.input_tokens
        said += [it.to_dict() for it in made.output]


def test_a_chain_with_a_hole_is_refused(nodes):
    first = nodes.create(input="say: a")
    second = nodes.create(input="say: b", previous_response_id=first.id)
    nodes.responses.delete(first.id)
    for previous, code in [(second.id, "previous_response_deleted"), (first.id, "previous_response_not_found"), ("resp_none", "previous_response_not_found")]:
        with pytest.raises(openai.BadRequestError) as refused:
            nodes.create(input="x", previous_response_id=previous)
        assert refused.value.code == code


def test_conversation(nodes):
    made = nodes.conversations.create(metadata={"topic": "x"}, items=[{"type": "message", "role": "user", "content": "say: one"}])
    assert made.object == "conversation" and nodes.conversations.retrieve(made.id).to_dict() == made.to_dict()
    assert nodes.conversations.update(made.id, metadata={"topic": "y"}).metadata == {"topic": "y"}
    first = nodes.create(input="say: two", conversation=made.id)
    second = streamed(nodes, input="say: three", conversation={"id": made.id})
    assert first.conversation.id == made.id and second.usage.input_tokens > first.usage.input_tokens
    texts = [it.content[0].text for it in nodes.conversations.items.list(made.id, order="asc", limit=2)]
    assert texts == ["say: one", "say: two", first.output_text, "say: three", second.output_text]
    added = nodes.conversations.items.create(made.id, items=[{"type": "message", "role": "user", "content": "more"}])
    item = added.data[0]
    assert nodes.conversations.items.retrieve(item.id, conversation_id=made.id).to_dict() == item.to_dict()
    assert nodes.conversations.items.delete(item.id, conversation_id=made.id).id == made.id
    with pytest.raises(openai.NotFoundError):
        nodes.conversations.items.retrieve(item.id, conversation_id=made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        nodes.conversations.items.list(made.id, after=item.id)
    assert refused.value.param == "after"
    gone = nodes.conversations.delete(made.id)
    assert gone.deleted and gone.object == "conversation.deleted"
    with pytest.raises(openai.NotFoundError):
        nodes.create(input="x", conversation=made.id)
    assert nodes.responses.retrieve(first.id).to_dict() == first.to_dict()


@pytest.mark.parametrize("is_stream", [False, True])
def test_tools(nodes, is_stream):
    options = {"input": "What is the weather in Rome?", "tools": [WEATHER]}
    called = streamed(nodes, **options) if is_stream else nodes.create(**options)
    call = next(it for it in called.output if it.type == "function_call")
    assert call.name == "get_weather" and "city" in json.loads(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answered = nodes.create(previous_response_id=called.id, input=[output], tools=[WEATHER])
    assert answered.status == "completed" and answered.output[-1].type == "message"
    by_hand = [{"role": "user", "content": "What is the weather in Rome?"}, *[it.to_dict() for it in called.output], output]
    assert nodes.create(input=by_hand, tools=[WEATHER], store=False).output_text == answered.output_text
    by_name = [{"role": "user", "content": "What is the weather in Rome?"}, {"type": "item_reference", "id": call.id}, output]
    assert nodes.create(input=by_name, tools=[WEATHER]).status == "completed"


@pytest.mark.parametrize("is_stream", [False, True])
def test_reasoning(thinker, is_stream):
    options = {"input": "hi", "reasoning": {"effort": "low"}}
    made = streamed(thinker, **options) if is_stream else thinker.create(**options)
    assert [it.type for it in made.output] == ["reasoning", "message"]
    assert made.output[0].content[0].text == "let me think" and made.usage.output_tokens_details.reasoning_tokens == 2
    assert thinker.responses.retrieve(made.id).to_dict() == made.to_dict()
    assert thinker.create(input="again", previous_response_id=made.id).output_text == "remembered: let me think"


@pytest.mark.parametrize("is_stream", [False, True])
def test_structured_output(nodes, is_stream):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"], "additionalProperties": False}
    options = {"input": "somebody", "text": {"format": {"type": "json_schema", "name": "person", "schema": schema, "strict": True}}}
    made = streamed(nodes, **options) if is_stream else nodes.create(**options)
    assert json.loads(made.output_text).keys() == {"name", "age"}
    assert made.text.format.type == "json_schema"


@pytest.mark.backends("sim")  # of a model that sees
def test_image_and_parts(nodes):
    parts = [{"type": "input_text", "text": "say: seen"}, {"type": "input_image", "image_url": PIXEL, "detail": "low"}]
    made = nodes.create(input=[{"role": "user", "content": parts}])
    assert made.status == "completed"
    kept = nodes.responses.input_items.list(made.id).data[0]
    assert [it.type for it in kept.content] == ["input_text", "input_image"] and kept.content[1].image_url == PIXEL


def test_max_output_tokens(backend, nodes):
    made = nodes.create(input=taught(backend)[0], max_output_tokens=2)
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert nodes.responses.retrieve(made.id).to_dict() == made.to_dict()


def test_logprobs(nodes):
    made = nodes.create(input="say: sure", include=["message.output_text.logprobs"], top_logprobs=1)
    assert made.output[0].content[0].logprobs


def test_store_false(backend, nodes):
    question, answer = taught(backend)
    kept = nodes.create(input=question)
    made = nodes.create(input=question, previous_response_id=kept.id, store=False)
    assert (made.output_text, made.to_dict()["store"]) == (answer, False)
    for previous in (lambda: nodes.responses.retrieve(made.id), lambda: nodes.responses.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            previous()
    assert streamed(nodes, input=question, store=False).output_text == answer


def test_input_items_in_pages(nodes):
    items = [{"role": "user", "content": f"say: {it}"} for it in range(25)]
    made = nodes.create(input=items)
    pages = [it.content[0].text for it in nodes.responses.input_items.list(made.id, limit=10, order="asc")]
    assert pages == [it["content"] for it in items]
    assert [it.content[0].text for it in nodes.responses.input_items.list(made.id)] == pages[::-1]


def test_background(backend, nodes):
    question, answer = taught(backend)
    made = nodes.create(input=question, background=True)
    assert (made.status, made.background) == ("queued", True)
    ended = nodes.until_ended(made.id)
    assert (ended.status, ended.output_text) == ("completed", answer)
    with nodes.responses.retrieve(made.id, stream=True) as stream:
        events = list(stream)
    check(events, ended)
    for after in (0, 3, len(events) - 2):
        with nodes.responses.retrieve(made.id, stream=True, starting_after=after) as stream:
            assert [it.to_dict() for it in stream] == [it.to_dict() for it in events[after + 1:]]
    with pytest.raises(openai.BadRequestError) as refused:
        nodes.responses.cancel(made.id)
    assert refused.value.code == "already_ended"


def test_background_streamed_and_gone_on_with_elsewhere(backend, nodes):
    first, question = [], max(backend.taught, key=lambda it: len(backend.taught[it]))
    with nodes.create(input=question, background=True, stream=True) as stream:
        for event in stream:
            first.append(event)
            if len(first) == 10:
                break
    with nodes.responses.retrieve(first[0].response.id, stream=True, starting_after=first[-1].sequence_number) as stream:
        ended = check(first + list(stream))
    assert ended.output_text == backend.taught[question]


def test_background_cancelled(backend, nodes):
    made = nodes.create(input="go on", background=True, max_output_tokens=backend.endless, extra_body={"ignore_eos": True})
    deadline = time.monotonic() + 30
    while nodes.responses.retrieve(made.id).status == "queued":
        assert time.monotonic() < deadline, "it never begins"
        time.sleep(0.02)
    cancelled = nodes.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert nodes.responses.cancel(made.id).to_dict() == cancelled.to_dict()
    assert nodes.responses.retrieve(made.id).to_dict() == cancelled.to_dict()
    with nodes.responses.retrieve(made.id, stream=True) as stream:
        check(list(stream), cancelled)
    waited = nodes.create(input="say: x")
    with pytest.raises(openai.BadRequestError) as refused:
        nodes.responses.cancel(waited.id)
    assert refused.value.code == "not_background"


def test_idempotency_key(nodes):
    def make(text, key):
        return nodes.create(input=text, extra_headers={"Idempotency-Key": key})
    key = uuid.uuid4().hex
    made = make("say: once", key)
    assert make("say: once", key).to_dict() == made.to_dict()
    with pytest.raises(openai.ConflictError) as refused:
        make("say: twice", key)
    assert refused.value.code == "idempotency_key_reused"
    options = {"model": nodes.model, "input": "say: streamed once", "stream": True, "extra_headers": {"Idempotency-Key": uuid.uuid4().hex}}
    ended = check(list(nodes.responses.create(**options)))
    check(list(nodes.responses.create(**options)), ended)
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    conversation = nodes.conversations.create(extra_headers=headers)
    assert nodes.conversations.create(extra_headers=headers).id == conversation.id


def test_tenants_do_not_see_each_other(nodes):
    if not nodes.other_key:
        pytest.skip("there is no other tenant")
    made = nodes.create(input="say: mine")
    conversation = nodes.conversations.create(items=[{"type": "message", "role": "user", "content": "mine"}])
    with nodes.other() as other:
        for call in (lambda: other.responses.retrieve(made.id), lambda: other.responses.delete(made.id), lambda: other.responses.cancel(made.id),
                     lambda: other.responses.input_items.list(made.id), lambda: other.conversations.retrieve(conversation.id),
                     lambda: other.conversations.items.list(conversation.id), lambda: other.conversations.delete(conversation.id),
                     lambda: other.responses.create(model=nodes.model, input="x", conversation=conversation.id),
                     lambda: other.responses.create(model=nodes.model, input=[{"type": "item_reference", "id": made.output[0].id}])):
            with pytest.raises(openai.NotFoundError):
                call()
        with pytest.raises(openai.BadRequestError):
            other.responses.create(model=nodes.model, input="x", previous_response_id=made.id)
    assert nodes.responses.retrieve(made.id).to_dict() == made.to_dict()


@pytest.mark.parametrize("options, param", [
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"truncation": "auto"}, "truncation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"include": ["file_search_call.results"]}, "include"),
    ({"temperature": 9}, "temperature"),
    ({"background": True, "store": False}, "store"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0].file_id"),
])
def test_what_cannot_be_done_is_named(nodes, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        nodes.create(**{"input": "x", **options})
    assert refused.value.param == param
