"""llama.cpp's own HTTP server out of the xllamacpp wheel: `llama_server.py GGUF PORT [ALIAS]`; an alias with "embed" makes it serve embeddings."""

import signal
import sys

import xllamacpp

gguf, port, alias = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "tiny"
params = xllamacpp.CommonParams()
params.model.path = gguf
params.model_alias = {alias}
params.hostnames = ["127.0.0.1"]
params.port = port
# Four slots of 32768 tokens: a generation long enough to be still running when its client leaves.
params.n_ctx = 4 * 32768
params.n_parallel = 4
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.endpoint_metrics = params.endpoint_slots = params.endpoint_props = True
params.use_jinja = True
if "embed" in alias:
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(params)
print("listening", server.listening_address, flush=True)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
