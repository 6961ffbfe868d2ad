"""`make lab ENGINE=llama.cpp`: what it prints can be pasted, and ctrl-C leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys

import pytest

import processes


@pytest.fixture
def lab(request, tmp_path):
    """A lab in a terminal of its own, once it has said where to look; with what it said."""
    if "llama.cpp" not in request.config.getoption("--backends"):
        pytest.skip("not among the backends")
    ports = {"LAB_PORT": str(processes.free_port()), "LAB_METRICS_PORT": str(processes.free_port())}
    command = [sys.executable, str(processes.HERE / "lab.py"), "--host", "127.0.0.1"]
    child = subprocess.Popen(command, env={**os.environ, **ports}, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    said = ""
    while "it also knows" not in said:
        line = child.stdout.readline()
        assert line, f"it ended: {said}"
        said += line
    yield child, said
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def test_lab(lab):
    child, said = lab
    command = re.search(r"^try +(curl .*?\n.*)$", said, re.M)[1]
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True).stdout
    assert answer.count("data: {") > 20, answer[:500]
    assert answer.rstrip().endswith("data: [DONE]")
    workers = re.findall(r"http://127\.0\.0\.1:\d+$", said, re.M)
    assert len(workers) == 4 and all(processes.get(f"{it}/health")[0] == 200 for it in workers)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(40) == 0
    assert all(processes.get(f"{it}/health")[0] == 0 for it in workers)
