#!/usr/bin/env bash
# `make test-compose`: docker-compose.yml as people run it, from an image of this machine's binary (SMG_BIN). Asks each node for its members, its
# workers and twenty answers: before, while and after one node is cut off the network, and when one is killed. Works with Compose v1 and v2.
# An engine that runs is used. One that is only installed is started in a network namespace of its own and ended again (needs root).
# Where neither can be, it says NOT RUN and fails, unless ALLOW_REDUCED=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${SMG_BIN:?names the binary}"
began=$SECONDS
not_run() {
  echo "test-compose: NOT RUN: $1" >&2
  [ "${ALLOW_REDUCED:-0}" = 1 ] && exit 0
  exit 1
}
say() { printf '%4ds  %s\n' $((SECONDS - began)) "$*"; }
fail() { say "FAILED: $*"; exit 1; }

work=$(mktemp -d)
namespace= engine=
export COMPOSE_PROJECT_NAME="smgtest$$" SMG_IMAGE=smg:test SMG_NET="${SMG_NET:-10.89.99}"
# Ports of the host are somebody else's: the engine chooses.
for n in 1 2 3; do export "SMG_PUBLISH_$n=127.0.0.1:" "SMG_PUBLISH_METRICS_$n=127.0.0.1:"; done

end() {
  status=$?
  trap - EXIT
  if [ "$status" -ne 0 ] && [ -f "$work/up" ]; then compose logs --no-color --tail 15 2>/dev/null | cut -c1-300 >&2 || true; fi
  [ ! -f "$work/up" ] || compose down -v -t 3 >/dev/null 2>&1 || true
  if [ -n "$engine" ]; then kill "$engine" 2>/dev/null; wait "$engine" 2>/dev/null || true; fi
  for place in $(mount | awk -v work="$work/" 'index($3, work) == 1 {print $3}' | sort -r); do umount "$place" 2>/dev/null || true; done
  [ -z "$namespace" ] || ip netns del "$namespace" || true
  rm -rf "$work" 2>/dev/null || true
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM

start_engine() {
  command -v dockerd >/dev/null || not_run "no Docker engine runs here and none is installed"
  [ "$(id -u)" = 0 ] || not_run "the installed Docker engine does not run, and only root may start it"
  namespace="smg-compose-$$"
  ip netns add "$namespace" 2>/dev/null || { namespace=; not_run "the engine needs a network namespace of its own, which cannot be made here"; }
  ip -n "$namespace" link set lo up
  # `ip netns exec` would hide /sys/fs/cgroup from it.
  nsenter --net="/run/netns/$namespace" dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
    -H "unix://$work/engine.sock" --bip 10.89.98.1/24 >"$work/engine.log" 2>&1 &
  engine=$!
  export DOCKER_HOST="unix://$work/engine.sock"
  for _ in $(seq 150); do
    docker info >/dev/null 2>&1 && return
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.2
  done
  tail -n 5 "$work/engine.log" >&2
  not_run "the installed Docker engine does not start here"
}

command -v docker >/dev/null || not_run "there is no docker on this machine"
if docker compose version >/dev/null 2>&1; then compose() { docker compose "$@"; }
elif command -v docker-compose >/dev/null; then compose() { docker-compose "$@"; }
else not_run "there is neither \`docker compose\` nor docker-compose"; fi
docker info >/dev/null 2>&1 || start_engine
say "engine $(docker version --format '{{.Server.Version}}'), compose $(compose version --short), ${engine:+started for this}"
.ci/image | tail -n 1

container() { compose ps -q "$1"; }
smg() { node=$1; shift; docker exec "$(container "$node")" smg "$@"; }
# sees NODE: what it thinks of node-1, node-2 and node-3.
sees() { smg "$1" members --json | python3 -c 'import json, sys; m = sorted(json.load(sys.stdin)["members"], key=lambda it: it["addr"]); print(*[it["state"] for it in m])'; }
available() { smg "$1" workers --json | python3 -c 'import json, sys; print(sum(w["is_healthy"] for w in json.load(sys.stdin)["workers"]))'; }
# answers NODE: of twenty requests, how many failed.
answers() { smg "$1" bench --requests 20 --connections 2 --stream --json | python3 -c 'import json, sys; r = json.load(sys.stdin); print(r["requests"] - r["ok"])'; }
until_is() { # until_is WHAT EXPECTED COMMAND...
  what=$1 expected=$2; shift 2
  deadline=$((SECONDS + 30))
  while [ $SECONDS -lt $deadline ]; do
    got=$("$@" 2>&1) || true
    [ "$got" = "$expected" ] && { say "$what: $expected"; return; }
    sleep 0.25
  done
  fail "$what: expected $expected, it is: $got"
}
# all_see NODES STATES: these nodes see that, can use all four workers, and answer.
all_see() {
  for node in $1; do
    until_is "$node sees" "$2" sees "$node"
    until_is "workers that $node can use" 4 available "$node"
    until_is "requests of 20 that failed at $node" 0 answers "$node"
  done
}

touch "$work/up"
compose up -d >"$work/compose.log" 2>&1 || { cat "$work/compose.log" >&2; fail "it does not come up"; }
say "three nodes and four workers are up"
all_see "node-1 node-2 node-3" "alive alive alive"
for node in node-1 node-2 node-3; do
  until_is "health check of $node" healthy docker inspect -f '{{.State.Health.Status}}' "$(container "$node")"
done

network="${COMPOSE_PROJECT_NAME}_mesh"
docker network disconnect "$network" "$(container node-3)"
say "node-3 is cut off"
all_see "node-1 node-2" "alive alive down"
until_is "node-3 sees" "down down alive" sees node-3
docker network connect --ip "$SMG_NET.13" "$network" "$(container node-3)"
say "node-3 is back"
all_see "node-1 node-2 node-3" "alive alive alive"

docker kill -s KILL "$(container node-2)" >/dev/null
say "node-2 is killed"
all_see "node-1 node-3" "alive down alive"
docker start "$(docker ps -aq --filter "label=com.docker.compose.service=node-2" --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")" >/dev/null
all_see "node-1 node-2 node-3" "alive alive alive"
compose stop -t 20 >/dev/null 2>&1
codes=$(docker inspect -f '{{.State.ExitCode}}' $(docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME") | sort | uniq -c | xargs)
[ "$codes" = "7 0" ] || fail "told to stop, all end with code 0, these did: $codes"
say "passed: all seven ended with code 0"
