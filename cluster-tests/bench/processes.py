"""Processes under measurement: started, awaited, accounted from /proc, stopped."""

import http.client
import json
import os
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 10


class Process:
    """A child and its children. Its output goes to a file, whose end tells why it failed."""

    def __init__(self, command, log, env=None):
        self.command, self.log = command, log
        self.began = time.monotonic()
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **(env or {})},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, how)
                self.child.wait(STOP_SECONDS)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.child.wait()

    def family(self):
        """The child and all that descend from it."""
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            fields = stat(int(pid))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(pid))
        found, todo = [], [self.child.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += parents.get(pid, [])
        return found

    def cpu(self):
        """CPU-seconds used so far."""
        fields = filter(None, map(stat, self.family()))
        return sum(int(it[11]) + int(it[12]) for it in fields) / TICKS

    def memory(self):
        """Resident megabytes: the most so far, and now."""
        peak = now = 0
        for pid in self.family():
            try:
                with open(f"/proc/{pid}/status") as file:
                    status = dict(line.split(":", 1) for line in file if ":" in line)
            except OSError:
                continue
            peak += int(status.get("VmHWM", "0 kB").split()[0])
            now += int(status.get("VmRSS", "0 kB").split()[0])
        return peak / 1024, now / 1024

    def last_words(self):
        with open(self.log, errors="replace") as file:
            return " | ".join(file.read().splitlines()[-3:])[-300:]


def stat(pid):
    """Fields of /proc/PID/stat from the state on; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def chat(port, text, stream=False, max_tokens=8, timeout=10):
    """One chat request. The status, and the message or the texts of the stream."""
    body = {"model": "sim-model", "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
    if stream:
        body["stream"] = True
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        return response.status, answer
    if not stream:
        answer = json.loads(answer)
        return 200, (answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"])
    data = [line[6:] for line in answer.splitlines() if line.startswith("data: ")]
    if not data or data[-1] != "[DONE]":
        return 200, "the stream did not end with [DONE]"
    choices = [choice for it in data[:-1] for choice in json.loads(it)["choices"]]
    return 200, [choice["delta"].get("content", "") for choice in choices]


def await_ready(process, port, seconds):
    """Seconds from start to the first answered request; None when there was none in time."""
    while time.monotonic() - process.began < seconds and process.child.poll() is None:
        try:
            if chat(port, "ready?", timeout=2)[0] == 200:
                return time.monotonic() - process.began
        except (OSError, http.client.HTTPException, ValueError):
            pass
        time.sleep(0.005)
    return None
