"""What limits cost a request: the same load on one node by two tenants, one with four limits that are never reached and one with none, in turns.

    limited.py SMG [--rounds N] [--seconds N] [--limits N] [--load WORD]

The node is a cluster of one with the mesh on. It is one process all the while: two equal ones were apart by 8 % in closed loops and 30 % with one connection. CPU is the
gateway's, per thousand requests. Medians count, and ratios of medians; `--limits 0` shows how far apart two equal sides are. Limits are not
set and taken away in turns: one that is gone for half a minute is nobody's for some windows once it is back. `--keys N` instead fills a node with limits until it
refuses one, and tells its memory.
"""

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

from processes import Process
from replay import get, total, until

PORT, MESH, METRICS, WORKERS = 22000, 22100, 22200, 22300
COUNT = 4
UNITS = 1 << 31
ADMIN = "sk-canary-admin-5e1f"
LIMITS = [{"what": what, "per": per} for what in ("requests", "tokens") for per in ("second", "minute")]
LOADS = [
    ("1 KB, closed loop", ["--connections=64", "--prompt-size=1KiB"]),
    ("1 KB, one connection", ["--connections=1", "--prompt-size=1KiB"]),
    ("1 KB streamed, closed loop", ["--connections=64", "--prompt-size=1KiB", "--stream"]),
    ("32 KB, closed loop", ["--connections=64", "--prompt-size=32KiB", "--shared-prefix=16KiB"]),
]


class Admin:
    """Calls to the admin API over one connection."""

    def __init__(self, port):
        self.port, self.connection = port, http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def call(self, method, path, body=None):
        head = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
        self.connection.request(method, path, None if body is None else json.dumps(body), head)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    def must(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer


class Gateway:
    """One node that is a cluster, and the keys of two tenants: without limits, and with."""

    def __init__(self, smg, folder):
        urls = [f"http://127.0.0.1:{WORKERS + w}" for w in range(COUNT)]
        command = [smg, f"--port={PORT}", f"--prometheus-port={METRICS}", f"--data-dir={folder}/node", "--threads=1",
                   "--ha-mesh", "--mesh-host=127.0.0.1", f"--mesh-port={MESH}", "--bootstrap-expect=1",
                   f"--api-key=ops:ops:admin:{ADMIN}", "--worker-urls", *urls]
        self.process = Process(command, f"{folder}/node.log")
        self.admin = Admin(PORT)
        until("all workers are ready", 30, lambda: self.workers() == COUNT)
        for tenant in ("free", "team"):
            self.admin.must("POST", "/tenants", {"name": tenant})
        self.keys = [self.admin.must("POST", "/keys", {"name": it, "tenant": it})["key"] for it in ("free", "team")]

    def limit(self, limits):
        if limits:
            self.admin.must("PATCH", "/tenants/team", {"limits": [{**it, "limit": UNITS} for it in limits]})
            until("it holds all of each", 30, lambda: self.holds(len(limits)))

    def workers(self):
        try:
            listed = self.admin.must("GET", "/workers")["workers"]
        except (OSError, http.client.HTTPException):
            self.admin = Admin(PORT)
            return 0
        return sum(it["state"] == "ready" for it in listed)

    def holds(self, count):
        limits = self.admin.must("GET", "/tenants/team")["limits"]
        return len(limits) == count and all((it.get("here") or {}).get("share") == UNITS for it in limits)

    def taken(self):
        return total(get(METRICS, "/metrics"), "smg_limits_takes_total")


def load(smg, gateway, key, options, seconds, seed):
    before = gateway.process.cpu()
    command = [smg, "bench", "--json", f"--url=http://127.0.0.1:{PORT}", f"--key={key}", f"--duration={seconds}s", f"--seed={seed}", *options]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    assert report["ok"] == report["requests"], report["errors"]
    used = (gateway.process.cpu() - before) / report["ok"] * 1000
    return used, report["latency_us"]["p50"], report["latency_us"]["p99"], report["requests_per_second"]


def compare(options, folder):
    gateway, limits = Gateway(options.smg, folder), LIMITS[:options.limits]
    try:
        print(f"load average at the start: {os.getloadavg()[0]:.2f}")
        gateway.limit(limits)
        loads = [it for it in LOADS if options.load in it[0]]
        rows = {(name, is_limited): [] for name, _ in loads for is_limited in (False, True)}
        for turn in range(options.rounds):
            # Who is first takes turns too.
            for is_limited in (turn % 2 == 0, turn % 2 == 1):
                before = gateway.taken()
                for name, flags in loads:
                    rows[name, is_limited].append(load(options.smg, gateway, gateway.keys[is_limited], flags, options.seconds, turn * 2 + is_limited))
                assert (gateway.taken() > before) == (is_limited and bool(limits)), "limits are on where they should not be, or off"
        print("| load | CPU-s per 1,000: off | on | ratio | p50 us off | on | ratio | p99 us off | on | ratio | requests/s off | on | ratio |")
        print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
        for name, _ in loads:
            off, on = ([statistics.median(it[n] for it in rows[name, which]) for n in range(4)] for which in (False, True))
            cells = [f"{off[0]:.4f} | {on[0]:.4f} | {on[0] / off[0]:.3f}"]
            cells += [f"{off[n]:.0f} | {on[n]:.0f} | {on[n] / off[n]:.3f}" for n in (1, 2, 3)]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print(f"load average at the end: {os.getloadavg()[0]:.2f}")
    finally:
        gateway.process.stop()


def fill(options, folder):
    """Limits until one is refused: each tenant has four."""
    gateway = Gateway(options.smg, folder)
    try:
        before, began, refused, edits = gateway.process.memory()[1], time.monotonic(), None, 0
        for number in range(options.keys // len(LIMITS)):
            status, answer = gateway.admin.call("POST", "/tenants", {"name": f"t{number}"})
            if status < 300:
                limits = [{**it, "limit": 1000} for it in LIMITS]
                status, answer = gateway.admin.call("PATCH", f"/tenants/t{number}", {"limits": limits})
            if status >= 300:
                refused = (number, status, answer)
                break
            edits += 1
        print(f"{edits} tenants with {edits * len(LIMITS)} limits after {time.monotonic() - began:.0f} s; refused: {refused}")
        known = lambda: total(get(METRICS, "/metrics"), "smg_limits_known")
        last, end = -1, time.monotonic() + options.settle
        while time.monotonic() < end and last != known():
            last = known()
            time.sleep(10)
        text = get(METRICS, "/metrics")
        wanted = ("smg_limits_known", "smg_limits_unusable", "smg_limits_ignored_total", "smg_limits_proposals_total", "smg_process_resident")
        print("\n".join(line for line in text.splitlines() if line.startswith(wanted)))
        peak, now = gateway.process.memory()
        print(f"RSS before {before:.1f} MB, now {now:.1f} MB, peak {peak:.1f} MB; per limit that is known {(now - before) * 1e3 / max(known(), 1):.2f} KB")
        cpu = gateway.process.cpu()
        time.sleep(20)
        print(f"idle with them: {(gateway.process.cpu() - cpu) / 0.2:.1f} % of a core")
    finally:
        gateway.process.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smg")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--limits", type=int, default=len(LIMITS), help="how many limits the tenant has; 0 shows how far two equal nodes are apart")
    parser.add_argument("--load", default="", help="a word of the loads that are wanted")
    parser.add_argument("--keys", type=int, default=0, help="fill a node with so many limits instead")
    parser.add_argument("--settle", type=int, default=300, help="seconds to wait at most until all are known")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="smg-limited-")
    worker = [options.smg, "sim-worker", f"--port={WORKERS}", f"--workers={COUNT}", "--kv-blocks=0"]
    try:
        with Process(worker, f"{folder}/worker.log"):
            (fill if options.keys else compare)(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
