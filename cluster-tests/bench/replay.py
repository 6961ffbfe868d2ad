"""Trace replay through real nodes and simulated workers: what sharing keeps of the cache hits when there are several nodes (P5).

    replay.py SMG TRACE [TRACE...] [--requests N] [--speed X] [--nodes 1 3 8] [--workers N] [--kv-blocks N] [--incumbent BIN]

Every run is the same requests at the same times, spread over the nodes as clients that choose at random would. Hits are counted by
the workers themselves. A run is void unless more than half of the probes were remote and at most 1 % fell back (three nodes and more).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from processes import Process
from processes import chat

CLIENTS, MESH, METRICS, WORKERS = 21000, 21100, 21200, 21300


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def total(text, name):
    """The sum of a metric's series."""
    rows = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.M)
    return sum(map(float, rows))


def until(what, seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"not in time: {what}")


def ready(port, workers):
    listed = json.loads(get(port, "/workers"))["workers"]
    return sum(it["state"] == "ready" for it in listed) == workers


class Cluster:
    def __init__(self, options, nodes, extra, folder, incumbent=None):
        self.nodes, self.workers, self.running, self.is_ours = nodes, options.workers, [], not incumbent
        speed = options.speed
        pace = [f"--prefill-rate={int(options.prefill_rate * speed)}", f"--token-delay={max(1, round(15 / speed))}ms", "--prefill-base=1ms"]
        self.start([options.smg, "sim-worker", f"--port={WORKERS}", f"--workers={self.workers}", "--threads=2",
                    "--max-model-len=1000000", f"--kv-blocks={options.kv_blocks}", *pace], f"{folder}/workers.log")
        if incumbent:
            self.incumbents(incumbent, nodes, folder)
            return
        seeds = ",".join(f"127.0.0.1:{MESH + n}" for n in range(nodes))
        for n in range(nodes):
            mine = [f"http://127.0.0.1:{WORKERS + w}" for w in range(self.workers) if w % nodes == n]
            mesh = ["--ha-mesh", f"--seeds={seeds}", "--mesh-host=127.0.0.1", f"--mesh-port={MESH + n}"] if nodes > 1 else []
            self.start([options.smg, f"--port={CLIENTS + n}", f"--prometheus-port={METRICS + n}", f"--data-dir={folder}/node-{n}",
                        "--threads=1", *mesh, *(["--worker-urls", *mine] if mine else []), *extra], f"{folder}/node-{n}.log")
        try:
            for n in range(nodes):
                until(f"node {n} knows all workers", 30, lambda: ready(CLIENTS + n, self.workers))
        except TimeoutError as late:
            words = "; ".join(it.last_words() for it in self.running)
            self.stop()
            raise SystemExit(f"{late}: {words}")

    def incumbents(self, program, nodes, folder):
        """Gateways that each know all workers and nothing of each other, as they are deployed."""
        urls = [f"http://127.0.0.1:{WORKERS + w}" for w in range(self.workers)]
        for n in range(nodes):
            self.start([program, "launch", "--host", "127.0.0.1", "--port", str(CLIENTS + n), "--prometheus-port", str(METRICS + n),
                        "--policy", "cache_aware", "--worker-urls", *urls], f"{folder}/incumbent-{n}.log")
        for n in range(nodes):
            until(f"gateway {n} serves", 60, lambda: chat(CLIENTS + n, "ready?", timeout=2)[0] == 200)

    def start(self, command, log):
        self.running.append(Process(command, log))

    def scrape(self):
        hits = queries = 0.0
        for w in range(self.workers):
            text = get(WORKERS + w, "/metrics")
            hits += total(text, "vllm:prefix_cache_hits_total")
            queries += total(text, "vllm:prefix_cache_queries_total")
        if not self.is_ours:
            return hits, queries, dict.fromkeys(("local", "remote", "unknown", "missed"), 0), 0
        texts = [get(METRICS + n, "/metrics") for n in range(self.nodes)]
        probes = {kind: sum(probe(text, kind) for text in texts) for kind in ("local", "remote", "unknown", "missed")}
        sent = sum(total(text, "smg_mesh_sent_bytes_total") for text in texts)
        return hits, queries, probes, sent

    def stop(self):
        for process in reversed(self.running):
            process.stop()


def probe(text, kind):
    row = re.search(rf'^smg_ledger_probes_total{{result="{kind}"}} ([0-9.e+-]+)$', text, re.M)
    return float(row.group(1)) if row else 0.0


def replay(options, trace, nodes, extra, incumbent=None):
    folder = tempfile.mkdtemp(prefix="smg-replay-")
    cluster = None
    try:
        cluster = Cluster(options, nodes, extra, folder, incumbent)
        urls = [f"http://127.0.0.1:{CLIENTS + n}" for n in range(nodes)]
        began = time.monotonic()
        # As many connections to each node, so that whichever is free is a node at random.
        run = subprocess.run([options.smg, "bench", "--url", *urls, f"--trace={trace}", f"--speed={options.speed}", "--stream",
                              f"--requests={options.requests}", f"--connections={64 * 8}", "--json", "--timeout=5m"],
                             stdout=subprocess.PIPE, check=True, text=True)
        seconds = time.monotonic() - began
        hits, queries, probes, sent = cluster.scrape()
    finally:
        if cluster:
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    report = json.loads(run.stdout)
    asked = sum(probes.values())
    return {
        "hit": hits / max(queries, 1), "ttft": report["first_token_us"]["mean"] / 1e6, "ttft99": report["first_token_us"]["p99"] / 1e6,
        "late99": report["late_us"]["p99"] / 1e6, "failed": report["requests"] - report["ok"], "requests": report["requests"],
        "fallback": (probes["unknown"] + probes["missed"]) / max(asked, 1), "remote": probes["remote"] / max(asked, 1),
        "mesh_kb_s": sent / seconds / nodes / 1000,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smg")
    parser.add_argument("traces", nargs="+")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--speed", type=float, default=10)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 3, 8])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--prefill-rate", type=float, default=14000, help="tokens a second of a worker, before --speed")
    parser.add_argument("--kv-blocks", type=int, default=65536, help="of 16 tokens: a cache of a million by default")
    parser.add_argument("--incumbent", help="the program of PyPI `smg`: measures that instead")
    options = parser.parse_args()
    print(f"{options.requests} requests, {options.speed:g} times as fast as recorded, {options.workers} workers of {options.kv_blocks * 16:,} tokens\n")
    print("| trace | nodes | mode | hit rate | of 1 node | mean TTFT s | p99 | failed | probes remote | fell back | mesh KB/s a node | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for trace in options.traces:
        if not os.path.exists(trace):
            sys.exit(f"NOT RUN: there is no trace at {trace}")
        one = None
        for nodes in options.nodes:
            modes = [("shared", [], None), ("not shared", ["--disable-placement-sharing"], None)][: 1 if nodes == 1 else 2]
            if options.incumbent:
                modes = [("SMG 1.13", [], options.incumbent)]
            for mode, extra, incumbent in modes:
                row = replay(options, trace, nodes, extra, incumbent)
                one = one or row["hit"]
                void = nodes >= 3 and mode == "shared" and (row["fallback"] > 0.01 or row["remote"] <= 0.5)
                print(f"| {os.path.basename(trace).split('_')[0]} | {nodes} | {mode} | {row['hit']:.4f} | {row['hit'] / one:.3f} | {row['ttft']:.3f} | {row['ttft99']:.3f} | "
                      f"{row['failed']} of {row['requests']} | {row['remote']:.2f} | {row['fallback']:.4f} | {row['mesh_kb_s']:.1f} | {'VOID' if void else ''} |", flush=True)


if __name__ == "__main__":
    main()
