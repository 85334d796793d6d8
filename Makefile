# `make` lists the targets. What a target is for stands behind its name, after ##.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CP := tests/control-plane/cp.sh
# What the policies in admission/ are made for: the same names as in the examples.
ADMISSION := cargo run --quiet --locked -- admission --namespace agentid-system --config examples/configuration.yaml --image example.com/agentid

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## start a control plane and show, step by step, what agentid does; leaves nothing behind
	@scripts/demo.sh

.PHONY: test
test: ## run all tests, those on a real control plane among them
	@scripts/test.sh

.PHONY: check
check: ## formatting, lints, unit tests, generated files, dependencies: what needs no control plane
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo test --lib --locked
	cargo run --quiet --locked -- crds --check crds
	$(ADMISSION) --check admission
	scripts/deny.sh

.PHONY: crds
crds: ## generate crds/ anew
	cargo run --quiet --locked -- crds --output-dir crds

.PHONY: admission
admission: ## generate admission/ anew
	$(ADMISSION) --output-dir admission

.PHONY: up
up: ## start a Kubernetes control plane on this machine (the first time it is built: about 7 minutes)
	@$(CP) up

.PHONY: down
down: ## stop that control plane and remove its state
	@$(CP) down

.PHONY: fuzz
fuzz: ## fuzz what reads tokens and status lists (30 s a target; FUZZ_SECONDS=<n>)
	@scripts/fuzz.sh

.PHONY: bench
bench: ## measure speed and memory on a control plane (all: about 20 minutes; ONLY=<figure>: one)
	@cargo bench --quiet --bench agentid -- $(ONLY)

.PHONY: chaos
chaos: ## break everything while 20,000 events happen, and check the end (10 minutes; SEED=<n>, CHAOS_EVENTS=<n>, CHAOS_MINUTES=<n>)
	@cargo test --quiet --locked --test chaos -- the_whole_run --exact --ignored --nocapture
