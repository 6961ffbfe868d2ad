#!/usr/bin/env bash
# Runs the program in $1 with PostgreSQL and Redis at hand: installs them where they are missing (Debian and its relatives), and says where they are.
# The program starts them itself, on loopback, in folders that go with it, and not as root. Everything after $1 is for the program.
set -euo pipefail
find_postgres() { find /usr/lib/postgresql /usr/pgsql-* /usr/local/pgsql /opt/homebrew/opt -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1; }
missing=()
[ -n "$(find_postgres)" ] || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
if [ ${#missing[@]} -ne 0 ]; then
  command -v apt-get >/dev/null || { echo "please install (this is not a Debian): ${missing[*]}" >&2; exit 1; }
  sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "as root, please run: apt-get install ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
  fi
  echo "installing: ${missing[*]}" >&2
  "${sudo[@]}" apt-get update -qq >&2
  # Nothing of theirs is to run by itself.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi
SMG_POSTGRES_BIN="$(dirname "$(find_postgres)")" exec "$@"
