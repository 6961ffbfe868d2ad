"""What the mesh costs a request: the same load on three nodes that know nothing of each other and on three that are a cluster, in turns.

    meshed.py SMG [--rounds N] [--seconds N]

CPU is that of all three, per thousand requests, what they say to each other and to nobody in particular included. Ratios of medians count.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile

from processes import Process
from replay import get, ready, until

CLIENTS, MESH, METRICS, WORKERS = 21000, 21100, 21200, 21300
COUNT = 4
NODES = 3
RATE = 400
LOADS = [("1 KB", ["--prompt-size=1KiB"]), ("32 KB", ["--prompt-size=32KiB", "--shared-prefix=16KiB"]), ("1 KB streamed", ["--prompt-size=1KiB", "--stream"])]


def nodes(smg, is_cluster, folder):
    seeds = ",".join(f"127.0.0.1:{MESH + n}" for n in range(NODES))
    mesh = lambda n: ["--ha-mesh", f"--seeds={seeds}", "--mesh-host=127.0.0.1", f"--mesh-port={MESH + n}"] if is_cluster else []
    urls = [f"http://127.0.0.1:{WORKERS + w}" for w in range(COUNT)]
    started = [
        Process([smg, f"--port={CLIENTS + n}", f"--prometheus-port={METRICS + n}", f"--data-dir={folder}/node-{n}", "--threads=1",
                 "--worker-urls", *urls, *mesh(n)], f"{folder}/node-{n}.log")
        for n in range(NODES)
    ]
    for n in range(NODES):
        until("all workers are ready", 30, lambda: ready(CLIENTS + n, COUNT))
        until("it has joined", 30, lambda: get(CLIENTS + n, "/readiness"))
    return started


def run(options, is_cluster, load):
    folder = tempfile.mkdtemp(prefix="smg-meshed-")
    started = nodes(options.smg, is_cluster, folder)
    try:
        before = sum(it.cpu() for it in started)
        benches = [
            subprocess.Popen([options.smg, "bench", "--url", f"http://127.0.0.1:{CLIENTS + n}", f"--rate={options.rate}", "--connections=64",
                              f"--duration={options.seconds}s", "--json", *load], stdout=subprocess.PIPE, text=True)
            for n in range(NODES)
        ]
        reports = [json.loads(bench.communicate()[0]) for bench in benches]
        used, done = sum(it.cpu() for it in started) - before, sum(it["ok"] for it in reports)
        mean = lambda what: statistics.mean(it["latency_us"][what] for it in reports)
        return used / done * 1000, mean("p50"), mean("p99")
    finally:
        for process in started:
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smg")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rate", type=int, default=RATE, help="requests a second at each node")
    options = parser.parse_args()
    log = tempfile.NamedTemporaryFile(prefix="smg-meshed-")
    with Process([options.smg, "sim-worker", f"--port={WORKERS}", f"--workers={COUNT}", "--kv-blocks=0"], log.name):
        print(f"| load, {options.rate} a second at each node | CPU-s per 1,000 alone | as a cluster | ratio | p50 us alone | as a cluster | p99 us alone | as a cluster |")
        print("|---|---|---|---|---|---|---|---|")
        for name, load in LOADS:
            rows = {False: [], True: []}
            for _ in range(options.rounds):
                for is_cluster in rows:
                    rows[is_cluster].append(run(options, is_cluster, load))
            alone, three = ([statistics.median(it[n] for it in rows[which]) for n in range(3)] for which in rows)
            print(f"| {name} | {alone[0]:.4f} | {three[0]:.4f} | {three[0] / alone[0]:.2f} | {alone[1]:.0f} | {three[1]:.0f} | {alone[2]:.0f} | {three[2]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
