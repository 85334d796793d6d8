# `make` lists the targets. What a target is for stands behind its name, after ##.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CP := tests/control-plane/cp.sh

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: ## start a Kubernetes control plane on this machine (the first time it is built: about 7 minutes)
	@$(CP) up

.PHONY: down
down: ## stop that control plane and remove its state
	@$(CP) down
