# Every target says what it is for; `make help` lists them.
SHELL := bash
.DEFAULT_GOAL := help
CACHE ?= $(HOME)/.cache/smg
export CARGO_TARGET_DIR ?= $(CACHE)/target
DEBUG_BIN := $(CARGO_TARGET_DIR)/debug/smg
RELEASE_BIN := $(CARGO_TARGET_DIR)/release/smg
# RocksDB is built once for all profiles (.ci/rocksdb). The assignment stands alone: `export` would hide a failure.
ENV = set -e; lib="$$(SMG_CACHE="$(CACHE)" .ci/rocksdb)"; export ROCKSDB_LIB_DIR="$$lib" ROCKSDB_STATIC=1;
TEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo nextest run || echo test)

ENGINE ?= sim
LAB_sim = exec "$(RELEASE_BIN)" lab --nodes "$(or $(NODES),3)"
LAB_llama.cpp = SMG_BIN="$(RELEASE_BIN)" exec bash cluster-tests/sdk/run.sh lab

.PHONY: help setup release lab test image test-compose test-cluster report-cluster chaos jepsen soak report-limits verify fix bless bench replay bench-mesh bench-limits test-sdk test-engines test-backends measure fuzz test-upgrade

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what the build needs, and build RocksDB once
	@.ci/setup
	@SMG_CACHE="$(CACHE)" .ci/rocksdb >/dev/null

release: setup ## build the binary people run
	@$(ENV) cargo build --locked --release --bin smg

lab: release ## three nodes on :30000, :30010, :30020 and four simulated workers; NODES=1; ENGINE=llama.cpp: one node, four real llama.cpp servers
	@$(or $(LAB_$(ENGINE)),$(error ENGINE is sim or llama.cpp))

test: setup ## all tests, those with real processes included
	@$(ENV) cargo build --locked --workspace --all-targets; SMG_BIN="$(DEBUG_BIN)" cargo $(TEST) --locked --workspace

image: release ## the Docker image smg:local, from this machine's binary, without a registry
	@SMG_BIN="$(RELEASE_BIN)" .ci/image

test-compose: setup ## docker-compose.yml: a node is cut off and comes back, one is killed; starts an installed Docker engine if none runs
	@$(ENV) cargo build --locked --bin smg; SMG_BIN="$(DEBUG_BIN)" bash cluster-tests/compose/run.sh

test-cluster: setup ## whole clusters in network namespaces: killed, cut, stopped, lied to; ONLY=word chooses, SEED=number repeats. Needs root
	@$(ENV) cargo build --locked --workspace --all-targets; SMG_BIN="$(DEBUG_BIN)" "$(CARGO_TARGET_DIR)/debug/cluster" $(ONLY)

test-upgrade: setup ## nodes of the revision in cluster-tests/old-revision are replaced one by one under load, back, and again; builds it once. Needs root
	@$(ENV) old="$$(SMG_CACHE="$(CACHE)" .ci/old)"; cargo build --locked --workspace --all-targets; \
	OLD_BIN="$$old" SMG_BIN="$(DEBUG_BIN)" "$(CARGO_TARGET_DIR)/debug/cluster" p10_an_upgrade

# Rounds are kept here, whoever made them and when: what is there already counts.
ROUNDS ?= $(CACHE)/rounds
export ROUNDS
PROOF_DIR := $(CARGO_TARGET_DIR)/proof
PROOF := cargo build --locked --profile proof -p smg -p cluster-tests --bin smg --bin cluster
chaos: setup ## rounds of faults under load, each judged by what clients saw: N=20 of each scenario, MINUTES=60 at most, LIVES=3 clusters at a time, ONLY=names, SEED. Goes on where it stopped; LIFE=seed is one life once more. Needs root
	@$(ENV) $(PROOF); SMG_BIN="$(PROOF_DIR)/smg" "$(PROOF_DIR)/cluster" --rounds $(ONLY)

jepsen: setup ## whether the rounds would notice: checkers on planted histories, then processes that break one rule each. N=3 lives for each bug in each of its scenarios, LIVES=3, ONLY=bug; LIFE=seed is one life once more. Needs root
	@$(ENV) cargo $(TEST) --locked -p jepsen; cargo build --locked --profile proof --features planted --bin smg; cp "$(PROOF_DIR)/smg" "$(PROOF_DIR)/smg-planted"; \
	$(PROOF); SMG_BIN="$(PROOF_DIR)/smg-planted" "$(PROOF_DIR)/cluster" --score $(ONLY)

soak: setup ## the same processes for HOURS=1 (or MINUTES) through faults that end none of them, and whether they grow. Needs root
	@$(ENV) $(PROOF); SMG_BIN="$(PROOF_DIR)/smg" "$(PROOF_DIR)/cluster" --soak

report-cluster: release ## what a cluster takes and costs, in rows for docs/reports/cluster.md; ONLY=word chooses. Needs root and an idle machine
	@$(ENV) cargo build --locked --workspace --all-targets; SMG_BIN="$(RELEASE_BIN)" "$(CARGO_TARGET_DIR)/debug/cluster" --report $(ONLY)

report-limits: setup ## limits in figures, in rows for docs/reports/limits.md: PART=skewed (two hours; PART=table shows how far), latency, memory. An idle machine
	@$(ENV) exec cargo bench --locked -p cluster-tests --bench limits -- $(or $(PART),skewed)

bench-limits: release ## what limits cost a request: a tenant with limits and without, in turns; KEYS=number fills a node with limits instead
	@python3 cluster-tests/bench/limited.py "$(RELEASE_BIN)" $(if $(KEYS),--keys $(KEYS))

# Runs of the areas by themselves, and of all of them together. Only our own code is optimised: that is what the runs spend their time in.
SEED ?= 0
N ?= 2000
SIM := SMG_SIM_SEED=$(SEED) SMG_SIM_SEEDS=$(N) SMG_SIM_LONG=$(LONG) cargo test --locked --lib \
	--config profile.dev.package.smg.opt-level=2 --config profile.dev.package.smg.debug=false -- --nocapture
sim: setup ## simulation: N=2000 seeds from SEED=0 on; LONG=thousand for a thousand nodes
	@$(ENV) $(SIM) sim:: membership::tests ledger::tests limits::tests prefix_log::core::tests --skip real:: --skip sim::routing

sim-routing: LONG := conversation,natural,agents,chats,large
sim-routing: setup ## routing in simulation: recorded traces (../shared/traces), short chats, a hundred gateways
	@$(ENV) $(SIM) --test-threads=1 sim::routing

# Rounds of every target, each with other cases, until the time is over. What fails is kept in proptest-regressions/ and tried first from then on.
MINUTES ?= 5
fuzz: setup ## damaged bytes for everything that reads bytes; MINUTES=5; ONLY=word chooses, as in ONLY=raft::frame::tests::fuzz_
	@$(ENV) cargo test --locked --workspace --lib --no-run; end=$$((SECONDS + $(MINUTES) * 60)); round=0; \
	while [ $$SECONDS -lt $$end ]; do round=$$((round + 1)); echo "round $$round"; \
	SMG_FUZZ_CASES=$$((round == 1 ? 2000 : 10000)) cargo test --locked --workspace --lib --quiet -- $(or $(ONLY),fuzz_); done

verify: setup ## what a reviewer runs: format, lints, tests, docs; changes nothing
	@cargo fmt --all --check
	@$(ENV) cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(MAKE) --no-print-directory test
	@$(ENV) RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

fix: setup ## format, and apply what clippy can
	@cargo fmt --all
	@$(ENV) cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bless: setup ## rewrite the golden files; review the diff as a change of the product
	@$(ENV) cargo build --workspace --all-targets; UPDATE_EXPECT=1 SMG_BIN="$(DEBUG_BIN)" cargo $(TEST) --workspace

bench: release ## the gateway against its peers and nginx, one interleaved run; QUICK=1 is one short round
	@SMG_BIN="$(RELEASE_BIN)" SMG_CACHE="$(CACHE)" bash cluster-tests/bench/run.sh

replay: release ## real traces through 1, 3 and 8 real nodes: what sharing keeps of the cache hits. TRACES=files; an idle machine
	@python3 cluster-tests/bench/replay.py "$(RELEASE_BIN)" $(or $(TRACES),../shared/traces/mooncake_conversation_trace.jsonl) --speed 20

bench-mesh: release ## what the mesh costs a request: three lone nodes and a cluster of three, in turns
	@python3 cluster-tests/bench/meshed.py "$(RELEASE_BIN)"

test-sdk: setup ## the official openai SDK, direct and through smg: simulated workers and real llama.cpp
	@$(ENV) cargo build --locked --bin smg; SMG_BIN="$(DEBUG_BIN)" bash cluster-tests/sdk/run.sh sdk

test-engines: setup ## the same with real vLLM and SGLang, installed and started by the target; the simulated worker against vLLM
	@$(ENV) cargo build --locked --bin smg; SMG_BIN="$(DEBUG_BIN)" bash cluster-tests/sdk/run.sh engines

test-backends: setup ## history on real PostgreSQL and Redis, installed and started by the target; ONLY=word chooses, BENCH=1 takes figures with an optimised build
	@$(ENV) cargo build --locked $(if $(BENCH),--release) -p cluster-tests --bin backends; \
	bash cluster-tests/backends/run.sh "$(CARGO_TARGET_DIR)/$(if $(BENCH),release,debug)/backends" $(if $(BENCH),bench,$(ONLY))

measure: ## the tree in numbers, against the house's limits
	@python3 cluster-tests/measure.py src
