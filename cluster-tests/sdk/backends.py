"""The engines that the suite runs against, each with the gateway in front: how to start them, what they know, what they lack."""

import os
import re
import sys
import tarfile
import time
from pathlib import Path

import processes
from processes import HERE, Process, free_port, get

CACHE = Path(os.environ.get("SMG_CACHE") or Path.home() / ".cache/smg")
KEY = "sk-sdk-suite"

# What the tiny model knows by heart (fixtures/README.md).
TAUGHT = {
    "Say hello.": "Hello! How can I help you today?",
    "Count to ten.": "1 2 3 4 5 6 7 8 9 10",
    "Tell me a story.": "Once upon a time there was a small gateway. Every request that came to the gate was sent to the engine "
    "that knew its prefix best, and all the tokens came home in order. The end.",
    "Say it in unicode.": "Grüße, 世界! 🚀 Привет — ok.",
}


def tiny() -> Path:
    """The fixture, unpacked."""
    home = processes.LOGS / "fixture"
    if not home.exists():
        with tarfile.open(HERE.parent / "fixtures/tiny-fixture.tar.xz") as packed:
            # Debian 12's Python does not know the filter that later ones warn about when it is missing.
            packed.extractall(home, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return home


# vLLM tells its fingerprint on the last chunk of a stream.
FINGERPRINT = {r"\.system_fingerprint: only direct$": "the fingerprint is lost in streams without include_usage: vLLM puts it on the usage "
               "chunk, which smg asks for and takes out again"}


class Backend:
    """Some workers of one engine behind one gateway."""

    name = ""
    # What sets it apart from another of its name that runs beside it.
    variant = ""
    # What the gateway must take it for, and how long a context it must find.
    runtime, context = "", 8192
    model = "tiny"
    embed_model = "tiny-embed"
    taught: dict[str, str] = TAUGHT
    # What an engine refuses a feature with (test name without `test_`), a status or the SDK's error: the same through the gateway.
    lacks: dict[str, int | str] = {}
    # Differences that are there and why they may be: pattern of test and difference, reason. Shown under the table.
    known: dict[str, str] = {}
    # Seconds a worker may go on after its client left.
    patience = 3.0
    # Seconds between two looks at a worker that should become idle.
    look_every = 0.005
    # Choices in the chunk that carries the usage of a completions stream.
    usage_choices = 0
    # Whether where a stream's events are cut is a matter of time.
    coalesces = False
    # How far two computations of the same number may lie apart.
    tolerance = 0.0
    # Keys that depend on what the worker did before.
    masked: set[str] = set()
    # Tokens that take far longer than a test waits for an abort.
    endless = 6000
    # A request of this many tokens is too long for the model.
    too_long = 40_000

    def __init__(self):
        self.chat_urls: list[str] = []
        self.embed_urls: list[str] = []
        self.started: list[Process] = []
        self.notes: list[str] = []

    def start_workers(self) -> None:
        raise NotImplementedError

    def busy(self, url: str) -> int:
        """Requests that a worker is working on."""
        raise NotImplementedError

    def mark(self) -> float:
        """Requests that the workers have given up so far."""
        raise NotImplementedError

    def was_aborted(self, mark: float) -> bool:
        """Whether one was given up since."""
        return self.mark() > mark

    def start(self) -> "Backend":
        began = time.monotonic()
        try:
            self.start_workers()
            self.notes.append(f"workers ready after {time.monotonic() - began:.1f} s")
            self.smg = self.start_gateway()
        except BaseException:
            self.stop()
            raise
        return self

    def start_gateway(self) -> str:
        binary = os.environ.get("SMG_BIN")
        if not binary:
            raise RuntimeError("SMG_BIN names no gateway to test")
        port = free_port()
        began = time.monotonic()
        command = [binary, "--worker-urls", *self.urls(), "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port()),
                   "--data-dir", str(processes.LOGS / f"data-{self.name}{self.variant}"), "--policy", os.environ.get("SDK_POLICY", "round_robin"),
                   "--api-key", f"sdk:sdk:user:{KEY}"]
        self.run(f"smg-{self.name}{self.variant}", command, f"http://127.0.0.1:{port}/readiness", 30)
        self.wait_models(f"http://127.0.0.1:{port}")
        self.notes.append(f"smg ready after {time.monotonic() - began:.2f} s")
        return f"http://127.0.0.1:{port}"

    def urls(self) -> list[str]:
        """Workers of all models, each once."""
        return self.chat_urls + [it for it in self.embed_urls if it not in self.chat_urls]

    def start_simulated(self, name: str, options: list[str]) -> str:
        """One simulated worker."""
        port = free_port()
        command = [os.environ.get("SDK_SIM_BIN") or os.environ["SMG_BIN"], "sim-worker", "--port", str(port), *options]
        self.run(name, command, f"http://127.0.0.1:{port}/health", 10)
        return f"http://127.0.0.1:{port}"

    def wait_models(self, url: str) -> None:
        """Ready means that some worker is; the suite needs all of them."""
        import json
        import urllib.request
        asked = urllib.request.Request(f"{url}/v1/models", headers={"authorization": f"Bearer {KEY}"})
        wanted = {self.model, *([self.embed_model] if self.embed_urls else [])}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                if wanted <= {it["id"] for it in json.load(answer)["data"]}:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"smg does not serve {wanted}")

    def run(self, name: str, command: list[str], ready: str, seconds: float, env: dict[str, str] | None = None) -> Process:
        process = Process(name, command, env)
        self.started.append(process)
        return process.wait_ready(ready, seconds)

    def stop(self) -> None:
        for process in reversed(self.started):
            process.stop()
        self.started.clear()

    def metric(self, url: str, name: str, label: str = "") -> float:
        """The sum of the series of this name (with this label)."""
        found = re.findall(rf"^{name}(\{{.*\}})? ([0-9.e+-]+)$", get(f"{url}/metrics")[1], re.M)
        return sum(float(value) for labels, value in found if label in labels)


class Simulated(Backend):
    """Simulated workers: vLLM's shapes, four milliseconds a token."""

    name = "sim"
    runtime, context = "vllm", 32_768
    model = embed_model = "sim-model"
    taught = {f"say: {it}": it for it in ("Grüße, 世界! 🚀 Привет — ok.", " ".join(["word"] * 30))}
    endless = 20_000
    known = FINGERPRINT

    def start_workers(self) -> None:
        self.chat_urls += [self.start_simulated(f"sim-{index}", ["--token-delay", "4ms"]) for index in range(4)]
        self.embed_urls = self.chat_urls

    def state(self, url: str) -> dict:
        import json
        return json.loads(get(f"{url}/sim/state")[1])

    def busy(self, url: str) -> int:
        state = self.state(url)
        return state["running"] + state["waiting"]

    def mark(self) -> float:
        return sum(self.state(it)["aborted"] for it in self.chat_urls)


class LlamaCpp(Backend):
    """Four real llama.cpp servers and one that serves embeddings."""

    name = "llama.cpp"
    runtime, context = "llama.cpp", 32_768
    lacks = {"embeddings_of_a_chat_model": 501, "bad_temperature": 0, "bad_temperature_in_a_stream": 0, "bad_tool": 500}
    known = {r"\.timings: only direct$": "timings lost in streams without include_usage: llama.cpp puts them on the usage chunk, which smg asks for "
             "and takes out again"}
    # It looks for a closed connection after a second without any result, and an answer to /metrics is a result too: whoever
    # asks more often keeps an abandoned request running.
    patience, look_every = 20.0, 1.5
    usage_choices = 1
    masked = {"cached_tokens"}  # which of its slots answers depends on what was asked before
    endless = 28_000
    tolerance = 1e-5

    def start_workers(self) -> None:
        self.start_chat(4)
        self.embed_urls.append(self.one("llama-embed", "tiny-embed"))

    def start_chat(self, count: int) -> None:
        """Servers that generate."""
        self.chat_urls += [self.one(f"llama-{index}", "tiny") for index in range(count)]

    def one(self, name: str, alias: str) -> str:
        """One server."""
        port = free_port()
        command = [sys.executable, str(HERE / "llama_server.py"), str(tiny() / "tiny.gguf"), str(port), alias]
        self.run(name, command, f"http://127.0.0.1:{port}/health", 60)
        return f"http://127.0.0.1:{port}"

    def busy(self, url: str) -> int:
        return int(self.metric(url, "llamacpp:requests_processing") + self.metric(url, "llamacpp:requests_deferred"))

    def mark(self) -> float:
        """It counts no aborts, but tokens (when a slot is free again): an aborted request has fewer than were asked for."""
        return sum(self.metric(it, "llamacpp:tokens_predicted_total") for it in self.chat_urls)

    def was_aborted(self, mark: float) -> bool:
        return 0 <= self.mark() - mark < self.endless


class Vllm(Backend):
    """Two real vLLM servers on CPU, and one that serves embeddings."""

    name = runtime = "vllm"
    lacks = {"embeddings_dimensions": 400, "embeddings_of_a_chat_model": 404}
    coalesces = True
    known = FINGERPRINT
    tolerance = 0.02  # a prompt computed whole and one found in the cache differ

    SHARED = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1",
              "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
              "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}

    def start_workers(self) -> None:
        for index in range(2):
            self.chat_urls.append(self.one_chat(f"vllm-{index}"))
        if os.environ.get("SDK_EMBED", "1") == "1":
            self.embed_urls.append(self.one("vllm-embed", "tiny-embed", [
                "--runner", "pooling", "--convert", "embed", "--max-model-len", "2048", "--dtype", "float32"]))

    def one_chat(self, name: str, *options: str) -> str:
        """One that generates; float32, because for bfloat16 it takes AMX, which virtual machines announce and may not allow."""
        return self.one(name, "tiny", [
            "--max-model-len", "8192", "--block-size", "32", "--dtype", "float32", "--enable-prefix-caching",
            "--enable-prompt-tokens-details", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", *options])

    def one(self, name: str, alias: str, options: list[str]) -> str:
        """One server; they start one at a time, since starting is what costs."""
        port, began = free_port(), time.monotonic()
        command = [str(CACHE / "engines/vllm/bin/vllm"), "serve", str(tiny() / "tiny"), "--host", "127.0.0.1", "--port", str(port),
                   "--served-model-name", alias, "--enforce-eager", "--max-num-seqs", "16", *options]
        self.run(name, command, f"http://127.0.0.1:{port}/health", 600, self.SHARED)
        self.notes.append(f"{name} {time.monotonic() - began:.0f} s")
        return f"http://127.0.0.1:{port}"

    def busy(self, url: str) -> int:
        return int(self.metric(url, "vllm:num_requests_running") + self.metric(url, "vllm:num_requests_waiting"))

    def mark(self) -> float:
        """It counts no aborts, but requests that came to an end of their own."""
        return sum(self.metric(it, "vllm:request_success_total") for it in self.chat_urls)

    def was_aborted(self, mark: float) -> bool:
        return self.mark() == mark


class ThinkingVllm(Vllm):
    """One vLLM that takes what comes before `</think>` for reasoning: of a model that does not always think, all that it says without it."""

    variant = "-thinking"

    def start_workers(self) -> None:
        self.chat_urls.append(self.one_chat("vllm-thinking", "--reasoning-parser", "qwen3"))


class Sglang(Backend):
    """One real SGLang server on CPU."""

    name = runtime = "sglang"
    # For a JSON schema this model under SGLang writes blanks until it may not go on.
    lacks = {"embeddings_of_a_chat_model": 400, "structured_parse": "LengthFinishReasonError"}
    known = {r"^seed\.": "SGLang heeds a seed only with --enable-deterministic-inference"}
    coalesces = True
    tolerance = 0.02
    # It looks every four seconds whether the client of a whole answer is still there.
    patience = 10.0

    def start_workers(self) -> None:
        port = free_port()
        env = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1",
               "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
        command = [str(CACHE / "engines/sgl/bin/python"), "-m", "sglang.launch_server", "--model-path", str(tiny() / "tiny"),
                   "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu",
                   "--attention-backend", "torch_native", "--sampling-backend", "pytorch", "--grammar-backend", "xgrammar",
                   "--disable-overlap-schedule", "--disable-cuda-graph", "--mem-fraction-static", "0.1", "--max-total-tokens", "20000",
                   "--context-length", "8192", "--max-running-requests", "16", "--enable-metrics", "--tool-call-parser", "qwen25"]
        self.run("sglang", command, f"http://127.0.0.1:{port}/health", 600, env)
        self.chat_urls.append(f"http://127.0.0.1:{port}")

    def busy(self, url: str) -> int:
        import json
        loads = json.loads(get(f"{url}/v1/loads")[1])["loads"]
        return sum(it["num_running_reqs"] + it["num_waiting_reqs"] for it in loads)

    def mark(self) -> float:
        return sum(self.metric(it, "sglang:num_aborted_requests_total") for it in self.chat_urls)


ALL = {it.name: it for it in (Simulated, LlamaCpp, Vllm, Sglang)}
