# `make` lists the targets. What a target is for stands behind its name, after ##.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CP := tests/control-plane/cp.sh
# What the policies in admission/ are made for: the same names as in the examples.
ADMISSION := cargo run --quiet --locked -- admission --namespace agentid-system --config examples/configuration.yaml --image example.com/agentid
# The same for placeholders, in whose place the chart puts its values.
CHART_ADMISSION := cargo run --quiet --locked -- admission --namespace namespace.placeholder --config charts/placeholders.yaml --image image.placeholder
HELM = "$$(tests/chart/setup.sh)"

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
check: ## formatting, lints, unit tests, alerts, generated files, dependencies: what needs no control plane
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked --quiet
	cargo test --lib --locked
	cargo test --test alerts --locked
	cargo run --quiet --locked -- crds --check crds
	cargo run --quiet --locked -- crds --check charts/agentid/files/crds
	$(ADMISSION) --check admission
	$(CHART_ADMISSION) --check charts/agentid/files/admission
	$(HELM) lint charts/agentid --strict --quiet --values tests/chart/values/minimal.yaml
	$(HELM) lint charts/agentid --strict --quiet --values tests/chart/values/everything.yaml
	scripts/deny.sh

.PHONY: crds
crds: ## generate crds/ anew, and the chart's copy
	cargo run --quiet --locked -- crds --output-dir crds
	cargo run --quiet --locked -- crds --output-dir charts/agentid/files/crds

.PHONY: admission
admission: ## generate admission/ anew, and the chart's policies
	$(ADMISSION) --output-dir admission
	$(CHART_ADMISSION) --output-dir charts/agentid/files/admission

.PHONY: chart
chart: ## package the Helm chart in target/chart/
	$(HELM) package charts/agentid --destination target/chart

.PHONY: up
up: ## start a Kubernetes control plane on this machine (the first time it is built: about 7 minutes)
	@$(CP) up

.PHONY: down
down: ## stop that control plane and remove its state
	@$(CP) down

.PHONY: node-up
node-up: ## start a control plane and a real node of it, which runs pods: as root (see tests/node/README.md)
	@tests/node/node.sh up

.PHONY: node-down
node-down: ## stop both and remove their state
	@tests/node/node.sh down

.PHONY: image
image: ## build the image as an OCI archive, target/image/agentid.tar, without a daemon (IMAGE=<name>:<tag>)
	@scripts/image.sh $(if $(IMAGE),--name $(IMAGE))

.PHONY: fuzz
fuzz: ## fuzz what reads tokens and status lists (30 s a target; FUZZ_SECONDS=<n>)
	@scripts/fuzz.sh

.PHONY: bench
bench: ## measure speed and memory on a control plane (all: about 25 minutes; ONLY=<figure>: one)
	@cargo bench --quiet --bench agentid -- $(ONLY)

.PHONY: chaos
chaos: ## break everything while 20,000 events happen, and check the end (10 minutes; SEED=<n>, CHAOS_EVENTS=<n>, CHAOS_MINUTES=<n>)
	@cargo test --quiet --locked --test chaos -- the_whole_run --exact --ignored --nocapture
