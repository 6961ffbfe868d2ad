"""What the mesh costs a request: the same load on a node that is alone and on one of three, in turns.

    meshed.py SMG [--rounds N] [--seconds N]

CPU is the loaded node's own, per thousand requests; the other two nodes idle beside it and answer its questions. Ratios of medians count.
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
LOADS = [("1 KB", ["--prompt-size=1KiB"]), ("32 KB", ["--prompt-size=32KiB", "--shared-prefix=16KiB"]), ("1 KB streamed", ["--prompt-size=1KiB", "--stream"])]


def nodes(smg, count, folder):
    seeds = ",".join(f"127.0.0.1:{MESH + n}" for n in range(count))
    mesh = lambda n: ["--ha-mesh", f"--seeds={seeds}", "--mesh-host=127.0.0.1", f"--mesh-port={MESH + n}"] if count > 1 else []
    urls = [f"http://127.0.0.1:{WORKERS + w}" for w in range(COUNT)]
    started = [
        Process([smg, f"--port={CLIENTS + n}", f"--prometheus-port={METRICS + n}", f"--data-dir={folder}/node-{count}-{n}", "--threads=1",
                 "--worker-urls", *urls, *mesh(n)], f"{folder}/node-{count}-{n}.log")
        for n in range(count)
    ]
    for n in range(count):
        until("all workers are ready", 30, lambda: ready(CLIENTS + n, COUNT))
    until("it has joined", 30, lambda: get(CLIENTS, "/readiness"))
    return started


def run(options, count, load):
    folder = tempfile.mkdtemp(prefix="smg-meshed-")
    started = nodes(options.smg, count, folder)
    try:
        before = started[0].cpu()
        bench = subprocess.run([options.smg, "bench", "--url", f"http://127.0.0.1:{CLIENTS}", "--rate=400", "--connections=64",
                                f"--duration={options.seconds}s", "--json", *load], stdout=subprocess.PIPE, check=True, text=True)
        report, used = json.loads(bench.stdout), started[0].cpu() - before
        return used / report["ok"] * 1000, report["latency_us"]["p50"], report["latency_us"]["p99"]
    finally:
        for process in started:
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smg")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    options = parser.parse_args()
    log = tempfile.NamedTemporaryFile(prefix="smg-meshed-")
    with Process([options.smg, "sim-worker", f"--port={WORKERS}", f"--workers={COUNT}", "--kv-blocks=0"], log.name):
        print("| load, 400 a second | CPU-s per 1,000 alone | of three | ratio | p50 us alone | of three | p99 us alone | of three |")
        print("|---|---|---|---|---|---|---|---|")
        for name, load in LOADS:
            rows = {1: [], 3: []}
            for _ in range(options.rounds):
                for count in rows:
                    rows[count].append(run(options, count, load))
            alone, three = ([statistics.median(it[n] for it in rows[count]) for n in range(3)] for count in (1, 3))
            print(f"| {name} | {alone[0]:.4f} | {three[0]:.4f} | {three[0] / alone[0]:.2f} | {alone[1]:.0f} | {three[1]:.0f} | {alone[2]:.0f} | {three[2]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
