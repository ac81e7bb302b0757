# Everything a person or CI runs here. `make` alone shows the list.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help setup test check node crash vm bench demo docs lock

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## packages, .venv with pinned libraries, the mounts tests need; quick when nothing changed
	@PYTHON="$(PYTHON)" scripts/setup.sh

test: setup ## all checks and all tests that this machine can run
	@$(MAKE) --no-print-directory check
	$(PYTEST) -m "not vm"

check: ## format, lint, types, import contracts, spelling, shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell README.md CONTRIBUTING.md Makefile docs src tests scripts
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; else echo "shellcheck is not installed: skipped"; fi

node: setup ## only the tests with real runtimes, monitors, networks and registries (root)
	$(PYTEST) -m node

crash: setup ## only the tests that kill the daemon
	$(PYTEST) tests/crash

vm: setup ## the tests that want systemd, cgroup v2, AppArmor or quotas, in a virtual machine; TESTS=tests/vm/FILE for one (root)
	$(BIN)/python tests/vm/machine test $(TESTS)

bench: ## the table of docs/performance.md: ours against containerd, interleaved (root)
	@PYTHON="$(PYTHON)" scripts/setup.sh --bench
	$(BIN)/python scripts/bench.py

demo: setup ## pull an image and run a pod with two containers on a private socket, then clean up (root)
	$(BIN)/python scripts/demo.py

docs: ## write the generated pages again
	$(BIN)/python -m criollo.config.reference > docs/configuration.md

lock: ## pin the newest allowed versions in requirements/ (needs the package index)
	scripts/lock.sh
