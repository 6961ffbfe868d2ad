#!/usr/bin/env bash
# The comparison of `make bench`: installs the peers and nginx under ~/.cache/smg, once, and runs compare.py with the
# binary named by SMG_BIN. QUICK=1 is one short round. More arguments go to compare.py: `run.sh --only ours,nginx`.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${SMG_CACHE:-$HOME/.cache/smg}"
: "${SMG_BIN:?names the gateway to measure}"
out="${CARGO_TARGET_DIR:-$cache/target}/bench/compare.json"
mkdir -p "$cache/venvs"
export PYTHONDONTWRITEBYTECODE=1

# Peer, version, the oldest Python it takes.
peers=("vllm-router 0.1.17 3.11" "sglang-router 0.3.2 3.11" "smg 0.4.0 3.12" "smg 1.13.0 3.11")

find_uv() {
  uv="$(command -v uv || true)"
  [ -n "$uv" ] && return
  uv="$cache/venvs/uv/bin/uv"
  [ -x "$uv" ] || { python3 -m venv "$cache/venvs/uv" && "$cache/venvs/uv/bin/pip" install -q uv; }
}

# A Python that pyenv keeps is not on the path until it is chosen.
find_python() {
  local kept
  kept="$(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1.*/bin/python$1" | sort -V | tail -1 || true)"
  echo "${kept:-$1}"
}

# A peer that cannot be installed is shown as not measured; the others go on.
install_peer() {
  local name="$1" version="$2" home="$cache/venvs/peer-$1-$2"
  [ "$(cat "$home/.smg-stamp" 2>/dev/null)" = "$version" ] && return
  find_uv
  if "$uv" venv -q --clear --python "$(find_python "$3")" "$home" \
    && "$uv" pip install -q --python "$home/bin/python" "$name==$version"; then
    echo "$version" > "$home/.smg-stamp"
  else
    echo "cannot install $name $version" >&2
  fi
}

# Debian's package, unpacked into the cache: nothing is started, nothing needs root.
find_nginx() {
  nginx="$(command -v nginx || true)"
  [ -n "$nginx" ] && return
  nginx="$cache/nginx/usr/sbin/nginx"
  [ -x "$nginx" ] && return
  local download; download="$(mktemp -d)"
  (cd "$download" && apt-get download -q nginx >/dev/null 2>&1 && dpkg -x nginx_*.deb "$cache/nginx") \
    || echo "cannot install nginx" >&2
  rm -rf "$download"
}

exec 9>"$cache/venvs/.lock"; flock 9
for peer in "${peers[@]}"; do read -r name version python <<<"$peer"; install_peer "$name" "$version" "$python"; done
find_nginx
flock -u 9

child=
trap '[ -n "$child" ] && kill "$child" 2>/dev/null; wait' EXIT
trap 'exit 130' INT TERM
quick=(); [ -z "${QUICK:-}" ] || quick=(--quick)
python3 "$here/compare.py" --smg "$SMG_BIN" --nginx "$nginx" --venvs "$cache/venvs" --out "$out" ${quick[@]+"${quick[@]}"} "$@" & child=$!
wait "$child"; status=$?; child=
exit "$status"
