"""The same two hundred requests to a simulated worker and to the real vLLM: every difference is listed, and justified or a failure.

`SMG_BIN=... python sim_vs_real.py`; with VLLM_URL a running vLLM is asked (its model `tiny`, blocks of 32 tokens), else one is started.
Compared are status, media type, framing and form of the answer, `usage` and `cached_tokens`, what moved on `/metrics` and, for clients
that leave, how soon the worker is idle. Prompts of token ids must give the same numbers; texts are counted by each worker's own
tokenizer, so there each worker is held to its own `/tokenize` and to the rules of its cache.
"""

import os
import sys
import time

import backends
from versus import corpus
from versus import judge
from versus.justified import JUSTIFIED
from versus.observed import Worker


def start_simulated() -> str:
    """A simulated worker like the real one of the suite: its model's name, context, blocks and room."""
    return backends.Simulated().start_simulated("versus", [
        "--models", "tiny", "--task", "generate", "--max-model-len", "8192", "--block-size", str(corpus.BLOCK), "--kv-blocks", "32768",
        "--max-num-seqs", "16", "--token-delay", "5ms"])


def start_real() -> str:
    return os.environ.get("VLLM_URL") or backends.Vllm().one_chat("vllm")


def main() -> int:
    sim, real = Worker(start_simulated()), Worker(start_real())
    ledger, began, asked, alike = judge.Ledger(), time.monotonic(), corpus.requests(), 0
    ours, theirs = sim.meters.families(), real.meters.families()
    ledger.enter("families", judge.families(ours, theirs))
    shared = ours.keys() & theirs.keys()
    for ask in asked:
        found = judge.differences(ask, sim.observe(ask), real.observe(ask), shared)
        ledger.enter(ask.name, found)
        alike += not found
    print(f"simulated worker against vLLM: {len(asked)} requests in {time.monotonic() - began:.0f} s; {alike} without any difference")
    for pattern, lines in ledger.used.items():
        print(f"  justified: {JUSTIFIED[pattern]}")
        for line in lines:
            print(f"    {line[:150]}")
    for line in ledger.unjustified:
        print(f"  NOT JUSTIFIED: {line}")
    for pattern in ledger.unused():
        print(f"  NOT NEEDED ANY MORE: {pattern}")
    return 1 if ledger.unjustified or ledger.unused() else 0


if __name__ == "__main__":
    sys.exit(main())
