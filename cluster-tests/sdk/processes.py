"""Processes that the suite starts: a free port, a log, ready or a reason, and stopped by the process group it made.

Nothing is ever stopped by name. What was started is stopped at exit too, also when the suite is told to end.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
LOGS = Path(tempfile.mkdtemp(prefix="smg-sdk-"))
_running: list["Process"] = []


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str, timeout: float = 5) -> tuple[int, str]:
    """Status and body; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""


def wait_for(url: str, seconds: float, is_over) -> bool:
    """Waits until `url` answers 200, or it `is_over`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not is_over():
        if get(url)[0] == 200:
            return True
        time.sleep(0.05)
    return False


class Process:
    """One started program with its children."""

    def __init__(self, name: str, command: list[str], env: dict[str, str] | None = None):
        self.name = name
        self.log = LOGS / f"{name}.log"
        # The gateway reads SMG_*, and refuses what it does not know: what is started gets only what it is given.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SMG_")}
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                ["nice", "-n", "5", *command],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**inherited, **(env or {})}, start_new_session=True,
            )
        _running.append(self)

    def wait_ready(self, url: str, seconds: float) -> "Process":
        """Waits until `url` answers 200."""
        if wait_for(url, seconds, lambda: self.child.poll() is not None):
            return self
        state = f"ended with {self.child.returncode}" if self.child.returncode is not None else f"is not ready after {seconds} s ({url})"
        raise RuntimeError(f"{self.name} {state}:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """Ends it and its children: politely, then not."""
        if self in _running:
            _running.remove(self)
        for how, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            try:
                os.killpg(self.child.pid, how)
            except ProcessLookupError:
                break
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            if how == signal.SIGTERM:
                continue  # children of the group may outlive their parent
        self.child.poll()


@atexit.register
def stop_all() -> None:
    """Stops whatever is left."""
    for process in list(reversed(_running)):
        process.stop()


def forget_logs() -> None:
    """Removes what was written, when nobody will want to read it."""
    atexit.register(shutil.rmtree, LOGS, ignore_errors=True)


def _end(signum, _frame):
    signal.signal(signum, signal.SIG_IGN)  # who asks twice must not disturb the ending
    raise KeyboardInterrupt  # pytest takes any other exception for a failed test, and goes on


signal.signal(signal.SIGTERM, _end)
