"""`make lab ENGINE=llama.cpp`: four real llama.cpp servers with the tiny model behind a gateway on :30000, until ctrl-C."""

import os
import subprocess
import sys

import backends
import processes

PORT, METRICS = int(os.environ.get("LAB_PORT", "30000")), int(os.environ.get("LAB_METRICS_PORT", "29000"))
WELCOME = """gateway      http://127.0.0.1:{port}/v1
workers      {workers}
metrics      http://127.0.0.1:{metrics}/metrics
worker logs  {logs}
try          curl -N http://127.0.0.1:{port}/v1/chat/completions -H 'content-type: application/json' -d \\
             '{{"model":"tiny","stream":true,"temperature":0,"messages":[{{"role":"user","content":"Tell me a story."}}]}}'
             it also knows: "Say hello.", "Count to ten.", "What is 2+2?", "Say it in unicode."
"""


def main() -> int:
    lab = backends.LlamaCpp()
    lab.start_chat(4)
    command = [os.environ["SMG_BIN"], "--port", str(PORT), "--prometheus-port", str(METRICS), "--worker-urls", *lab.chat_urls, *sys.argv[1:]]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SMG_")}
    gateway = subprocess.Popen(command, env=inherited)
    try:
        if not processes.wait_for(f"http://127.0.0.1:{PORT}/readiness", 30, lambda: gateway.poll() is not None):
            return gateway.wait() or 1
        print(WELCOME.format(port=PORT, metrics=METRICS, workers="\n             ".join(lab.chat_urls), logs=processes.LOGS), flush=True)
        return gateway.wait()
    except KeyboardInterrupt:
        # ctrl-C went to the gateway as well, a signal to this process did not.
        gateway.terminate()
        return gateway.wait(30)
    finally:
        lab.stop()


if __name__ == "__main__":
    sys.exit(main())
