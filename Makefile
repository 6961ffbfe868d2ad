# Every target says what it is for; `make help` lists them.
SHELL := bash
CACHE ?= $(HOME)/.cache/smg
export CARGO_TARGET_DIR ?= $(CACHE)/target
# RocksDB is built once for all profiles; see .ci/rocksdb.
WITH_ROCKSDB = export ROCKSDB_LIB_DIR="$$(.ci/rocksdb)" ROCKSDB_STATIC=1;
NEXTEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo nextest run || echo test)

.PHONY: help setup lab test verify fix bless measure
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what the build needs and build RocksDB once
	@.ci/setup && .ci/rocksdb >/dev/null

lab: setup ## release build, then a gateway on :30000 in front of four simulated workers
	@$(WITH_ROCKSDB) cargo build --locked --release && exec $(CARGO_TARGET_DIR)/release/smg lab

test: setup ## all tests
	@$(WITH_ROCKSDB) cargo build --locked --workspace --all-targets && cargo $(NEXTEST) --locked --workspace

verify: setup ## what a reviewer runs: format, lints, tests; changes nothing
	@$(WITH_ROCKSDB) cargo fmt --all --check && cargo clippy --locked --workspace --all-targets -- -D warnings && cargo $(NEXTEST) --locked --workspace

fix: setup ## format and apply what clippy can
	@$(WITH_ROCKSDB) cargo fmt --all && cargo clippy --workspace --all-targets --fix --allow-dirty

bless: setup ## rewrite the golden files; read the diff
	@$(WITH_ROCKSDB) UPDATE_EXPECT=1 cargo $(NEXTEST) --workspace

measure: ## the tree in numbers
	@python3 cluster-tests/measure.py src
