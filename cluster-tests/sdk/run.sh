#!/usr/bin/env bash
# What needs Python: `run.sh sdk` (the SDK suite on simulated workers and real llama.cpp), `run.sh engines` (on real vLLM and SGLang,
# and the simulated worker against vLLM), `run.sh lab` (llama.cpp servers behind a gateway). The gateway is named by SMG_BIN.
# What is needed is installed under ~/.cache/smg, once; what is started is stopped.
# More arguments go to pytest: `run.sh sdk -k stream`. SDK_BACKENDS=sim chooses backends, SDK_EMBED=0 leaves out vLLM's embedding server.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${SMG_CACHE:-$HOME/.cache/smg}"
mode="${1:-sdk}"; shift || true
: "${SMG_BIN:?names the gateway to test}"
export SMG_BIN PYTHONDONTWRITEBYTECODE=1
mkdir -p "$cache/venvs" "$cache/engines"

find_uv() {
  uv="$(command -v uv || true)"
  [ -n "$uv" ] && return
  uv="$cache/venvs/uv/bin/uv"
  [ -x "$uv" ] || { python3 -m venv "$cache/venvs/uv" && "$cache/venvs/uv/bin/pip" install -q uv; }
}

# once HOME COMMAND: runs the command unless it succeeded before for the same pins.
once() {
  local stamp="$1/.smg-stamp" sum; shift
  sum="$(cat "$here/requirements.txt" "$here/engines.sh" | sha256sum | cut -d' ' -f1)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return
  find_uv; "$@"; echo "$sum" > "$stamp"
}
install_sdk() {
  "$uv" venv -q --clear --python python3 "$cache/venvs/sdk"
  "$uv" pip install -q --python "$cache/venvs/sdk/bin/python" -r "$here/requirements.txt"
}
. "$here/engines.sh"

# One installation at a time, also when two targets run.
exec 9>"$cache/venvs/.lock"; flock 9
once "$cache/venvs/sdk" install_sdk
case "$mode" in
  lab) flock -u 9; exec "$cache/venvs/sdk/bin/python" "$here/lab.py" "$@" ;;
  sdk) backends="${SDK_BACKENDS:-sim,llama.cpp}" minutes=15 ;;
  engines)
    backends="${SDK_BACKENDS:-vllm,sglang}" minutes=60
    began=$SECONDS
    case "$backends" in *vllm*) once "$cache/engines/vllm" install_vllm ;; esac
    case "$backends" in *sglang*) once "$cache/engines/sgl" install_sglang ;; esac
    echo "engines installed after $((SECONDS - began)) s ($(du -sh "$cache/engines" | cut -f1) in $cache/engines)" ;;
  *) echo "usage: run.sh sdk|engines|lab [pytest arguments]" >&2; exit 2 ;;
esac
flock -u 9

# Each runs as a child that is told to end when this is, or when its time is over.
child=
trap '[ -n "$child" ] && kill "$child" 2>/dev/null; wait' EXIT
trap 'exit 130' INT TERM
status=0
run() {
  timeout --kill-after=60 "${minutes}m" "$cache/venvs/sdk/bin/python" "$@" & child=$!
  wait "$child" || { status=$?; [ "$status" -ne 124 ] || echo "not done after $minutes minutes: $*" >&2; }
  child=
}
cd "$here"
run -m pytest -q -rs --backends "$backends" "$@"
if [ "$mode" = engines ] && [[ "$backends" == *vllm* ]] && [ $# = 0 ]; then run sim_vs_real.py; fi
exit "$status"
