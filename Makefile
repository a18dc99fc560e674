# The project's commands. `make help` lists them.

SHELL := bash
.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help demo test simulate chaos upgrade format lint proto bench bulk fmt release-proto

help: ## What there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## Build, start everything embedded, run one request of each kind and a bulk erasure, prove it by SQL, verify a certificate offline
	bash deploy/demo/run.sh

# For the tests' own cargo as well: what is built by another compiler is built again.
test: export RUSTC_WORKSPACE_WRAPPER = clippy-driver
test: format proto ## Formatting, lints, contract, and all tests on real servers that it starts itself
	tests/build.sh
	QUITTANCE_TEST_FSYNC=off tests/with-servers.sh tests/all.sh

simulate: ## Seeds of the simulation: SEEDS=10000 FROM=0; or one again, told step by step: REPLAY=…
	$(CARGO) build --workspace
	target/debug/quittance-simulation $(if $(REPLAY),--replay '$(REPLAY)',--seeds $(or $(SEEDS),10000) --from $(or $(FROM),0))

chaos: ## Faults for real, by processes: MINUTES=30 SEED=… STORE=postgres (three servers) or sqlite (one)
	$(CARGO) build --workspace
	tests/with-servers.sh target/debug/chaos --minutes $(or $(MINUTES),30) --store $(or $(STORE),postgres) $(if $(SEED),--seed $(SEED))

upgrade: ## An earlier build beside this one on one store: FROM=…, a commit; without it, the one before the newest migration
	FROM='$(FROM)' bash tests/upgrade.sh

format:
	$(CARGO) fmt --all --check

lint: format ## Formatting and clippy, warnings denied
	$(CARGO) clippy --workspace --all-targets -- -D warnings

proto: ## Lint the contract and compare it with the released one
	bash proto/check.sh

bench: ## Workload W1 against hand-written SQL, into target/bench/w1.json and a table
	$(CARGO) build --release --workspace
	tests/with-servers.sh target/release/bench

bulk: ## A million erasures of one customer by one stream, cut by a SIGKILL, and single requests beside it: target/bench/bulk.json
	$(CARGO) build --release --workspace
	tests/with-servers.sh target/release/bench --only bulk

fmt: ## Format code and contract
	$(CARGO) fmt --all
	bash proto/check.sh --write

release-proto: ## Take today's contract as the released one (what is broken after this is refused)
	bash proto/check.sh --release
