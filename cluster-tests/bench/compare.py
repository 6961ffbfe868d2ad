"""One interleaved run of gateways in front of the same simulated workers: `compare.py --help`; run.sh installs what it needs.

Every contender takes its turn in every round and phase; a figure is the median of its rounds. Added times are p50 through
the gateway minus p50 direct, both of the same minute. CPU is of the gateway's processes, from /proc/PID/stat.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import marks
from contenders import all_contenders
from processes import Process, await_ready, chat

PORT = 31_100
# Upstreams: first port and options. The fast ones answer at once; the others pace their streams.
UPSTREAMS = {
    "fast": (31_001, ["--output-tokens", "256"]),
    "5ms": (31_011, ["--token-delay", "5ms", "--output-tokens", "8"]),
    "20ms": (31_021, ["--token-delay", "20ms", "--output-tokens", "100"]),
}
WORKERS = 4
READY_SECONDS = 60
CONNECTIONS = 64


class Sizes:
    """How much is measured."""

    def __init__(self, quick, seconds):
        self.rounds = 1 if quick else 3
        self.load = f"{seconds or (1 if quick else 2)}s"
        self.single = "1s"
        self.first_tokens = 20 if quick else 40
        self.paced = 64
        self.prompts = 10_000 if quick else 50_000


class Run:
    """What one run knows: where things are, what was found."""

    def __init__(self, options, home):
        self.options, self.home, self.sizes = options, home, Sizes(options.quick, options.seconds)
        self.contenders = all_contenders(options.smg, options.nginx, options.venvs)
        if options.only:
            self.contenders = [it for it in self.contenders if any(word in it.name for word in options.only.split(","))]
        self.samples, self.reasons, self.commands, self.proof, self.seed = {}, {}, {}, [], 0

    def urls(self, upstream):
        first = UPSTREAMS[upstream][0]
        return [f"http://127.0.0.1:{first + n}" for n in range(WORKERS)]

    def bench(self, port, *options):
        """Runs the load generator; its JSON. Every run has a seed of its own, so no prompt comes twice."""
        self.seed += 1
        command = [self.options.smg, "bench", "--json", "--url", f"http://127.0.0.1:{port}", "--seed", str(self.seed)]
        done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise Failed(f"the load generator: {done.stderr.strip()}")
        result = json.loads(done.stdout)
        if result["ok"] == 0 or result["ok"] < result["requests"] * 0.999:
            raise Failed(f"{result['ok']} of {result['requests']} requests were answered: {result['errors']} ({options})")
        return result

    def record(self, contender, key, value):
        self.samples.setdefault((contender.gateway, contender.policy), {}).setdefault(key, []).append(value)

    def start(self, contender, upstream):
        command = contender.command(PORT, self.urls(upstream), self.home)
        self.commands.setdefault(contender.name, " ".join(command).replace(os.path.expanduser("~"), "~"))
        log = os.path.join(self.home, contender.name.replace(" ", "-") + ".log")
        return Process(command, log)

    def started(self, contender, upstream, measure):
        """Starts, checks and measures one contender; what goes wrong is its reason in the table."""
        if contender.name in self.reasons:
            return
        try:
            with self.start(contender, upstream) as process:
                ready = await_ready(process, PORT, READY_SECONDS)
                if ready is None:
                    raise Failed(f"not ready after {READY_SECONDS} s: {process.last_words()}")
                self.correct(upstream)
                measure(contender, process, ready)
                print(f"  {contender.name}: {time.monotonic() - process.began:.1f} s", file=sys.stderr)
        except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.reasons[contender.name] = str(error)[:200].replace("|", "/").replace("\n", " ")
            print(f"  {contender.name}: {self.reasons[contender.name]}", file=sys.stderr)

    def correct(self, upstream):
        """Through the gateway a request must say what it says direct, streamed and not."""
        first = UPSTREAMS[upstream][0]
        for stream in (False, True):
            # Each worker has a text of its own for the same prompt.
            expected = [chat(first + n, "is this right?", stream) for n in range(WORKERS)]
            for _ in range(WORKERS):
                given = chat(PORT, "is this right?", stream)
                if given not in expected or given[0] != 200:
                    raise Failed(f"correctness request: expected {expected[0]}, got {given}")


class Failed(Exception):
    """A contender that cannot be measured."""


def cpu_of(process, measure):
    before = process.cpu()
    result = measure()
    return result, process.cpu() - before


def fast_phase(run):
    """CPU per request and chunk, added latency, start to ready."""
    direct = UPSTREAMS["fast"][0]

    def measure(contender, process, ready):
        run.record(contender, "ready", ready)
        run.bench(PORT, "--connections", CONNECTIONS, "--requests", 2000)  # connections are made, caches warm
        single = ["--connections", 1, "--duration", run.sizes.single]
        ours, theirs = run.bench(direct, *single), run.bench(PORT, *single)
        run.record(contender, "added_p50", theirs["latency_us"]["p50"] - ours["latency_us"]["p50"])
        load = ["--connections", CONNECTIONS, "--duration", run.sizes.load]
        for key, size in (("cpu_1k", "1KiB"), ("cpu_32k", "32KiB")):
            result, cpu = cpu_of(process, lambda: run.bench(PORT, *load, "--prompt-size", size))
            run.record(contender, key, cpu / result["ok"] * 1000)
            run.record(contender, f"{key}_rate", result["requests_per_second"])
        stream = ["--stream", "--max-tokens", 256]
        result, cpu = cpu_of(process, lambda: run.bench(PORT, *load, *stream))
        run.record(contender, "sse_unpaced", cpu / result["events"] * 1000)
        run.record(contender, "sse_unpaced_rate", result["events_per_second"])

    return measure


def first_token_phase(run):
    direct = UPSTREAMS["5ms"][0]

    def measure(contender, _process, _ready):
        one = ["--connections", 1, "--stream", "--requests", run.sizes.first_tokens]
        ours, theirs = run.bench(direct, *one), run.bench(PORT, *one)
        run.record(contender, "added_ttft", theirs["first_token_us"]["p50"] - ours["first_token_us"]["p50"])

    return measure


def paced_phase(run):
    def measure(contender, process, _ready):
        stream = ["--connections", CONNECTIONS, "--stream", "--max-tokens", 100]
        run.bench(PORT, *stream, "--requests", CONNECTIONS, "--max-tokens", 4)
        result, cpu = cpu_of(process, lambda: run.bench(PORT, *stream, "--requests", run.sizes.paced))
        run.record(contender, "sse_paced", cpu / result["events"] * 1000)

    return measure


def memory_phase(run):
    """Distinct 8 KB prompts in ten slices: memory afterwards, and the CPU of the last slice against the first."""

    def measure(contender, process, _ready):
        load = ["--connections", CONNECTIONS, "--prompt-size", "8KiB", "--requests", run.sizes.prompts // 10]
        slices = [cpu_of(process, lambda: run.bench(PORT, *load))[1] for _ in range(10)]
        peak, now = process.memory()
        run.record(contender, "rss_peak", peak)
        run.record(contender, "rss_now", now)
        # Two slices of each end: one alone is a tick or two of noise for a fast gateway. The first warms up.
        run.record(contender, "cpu_growth", sum(slices[-2:]) / max(sum(slices[1:3]), 1e-9))
        run.record(contender, "cpu_slices", slices)

    return measure


PHASES = [("fast", fast_phase), ("5ms", first_token_phase), ("20ms", paced_phase)]


def prove_upstream(run, upstreams):
    """The upstream must answer far more than any contender asks of it."""
    before = upstreams["fast"].cpu()
    began = time.monotonic()
    for title, options in (
        ("1 KB", []), ("32 KB", ["--prompt-size", "32KiB"]), ("stream", ["--stream", "--max-tokens", 256]),
    ):
        result = run.bench(UPSTREAMS["fast"][0], "--connections", CONNECTIONS, "--duration", run.sizes.single, *options)
        rate = result["events_per_second"] if title == "stream" else result["requests_per_second"]
        run.proof.append((title, rate))
    run.upstream_share = (upstreams["fast"].cpu() - before) / (time.monotonic() - began)


def measure_all(run):
    command = [run.options.smg, "sim-worker", "--workers", str(WORKERS), "--kv-blocks", "0"]
    upstreams = {}
    try:
        for name, (port, options) in UPSTREAMS.items():
            log = os.path.join(run.home, f"upstream-{name}.log")
            upstreams[name] = Process([*command, "--port", str(port), *options], log)
            if await_ready(upstreams[name], port, READY_SECONDS) is None:
                raise SystemExit(f"the upstream does not start: {upstreams[name].last_words()}")
        prove_upstream(run, upstreams)
        for round_ in range(run.sizes.rounds):
            for upstream, phase in PHASES:
                print(f"round {round_ + 1} of {run.sizes.rounds}: {upstream}", file=sys.stderr)
                for contender in run.contenders:
                    run.started(contender, upstream, phase(run))
        print("memory", file=sys.stderr)
        for contender in (it for it in run.contenders if it.policy == "cache_aware"):
            run.started(contender, "fast", memory_phase(run))
    finally:
        for process in upstreams.values():
            process.stop()


def report(run):
    figures = {
        who: {key: statistics.median(values) for key, values in by_key.items() if key != "cpu_slices"}
        for who, by_key in run.samples.items()
    }
    found = marks.verdicts(figures)
    lines = ["", marks.figures_table(run.contenders, figures, run.reasons), "", marks.marks_table(found), ""]
    for title, rate in run.proof:
        key = {"1 KB": "cpu_1k_rate", "32 KB": "cpu_32k_rate", "stream": "sse_unpaced_rate"}[title]
        fastest = max((values.get(key, 0) for values in figures.values()), default=0)
        lines.append(f"upstream direct, {title}: {rate:,.0f} a second; the fastest contender asked for {fastest:,.0f}")
    lines += ["", f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; median of {run.sizes.rounds} round(s)", ""]
    lines += [f"{name}: {command}" for name, command in run.commands.items()]
    missing = [it.name for it in run.contenders if it.name in run.reasons]
    lines += [f"not measured: {name}: {run.reasons[name]}" for name in missing]
    print("\n".join(lines))
    os.makedirs(os.path.dirname(run.options.out), exist_ok=True)
    with open(run.options.out, "w") as file:
        json.dump({
            "quick": run.options.quick, "cores": os.cpu_count(), "kernel": platform.release(), "upstream": run.proof,
            "samples": {" ".join(who).strip(): values for who, values in run.samples.items()},
            "marks": found, "commands": run.commands, "not_measured": run.reasons,
        }, file, indent=1)
    print(f"\nwritten: {run.options.out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smg", required=True, help="our binary")
    parser.add_argument("--nginx", required=True)
    parser.add_argument("--venvs", required=True, help="where the peers are installed")
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--seconds", type=int, help="how long each load at 64 connections runs (default: 2, quick: 1)")
    parser.add_argument("--only", help="contenders whose name has one of these words, separated by commas")
    options = parser.parse_args()
    home = tempfile.mkdtemp(prefix="smg-bench-")
    try:
        run = Run(options, home)
        measure_all(run)
        report(run)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
