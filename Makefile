# Everything a newcomer needs is two commands: `make up` and `make test`.
# On the machine: Python >= 3.11, make and a compiler. All else is locked in uv.lock.

.DEFAULT_GOAL := help
.PHONY: help install up test check fix docs bench bench-table clean
MAKEFLAGS += --no-print-directory

bin := .venv/bin
sync := ./scripts/uv sync --frozen --all-extras --group weights
# `make up ARGS="--port 9000"`, `make test ARGS="tests/test_wire_sse.py -k crlf"`
ARGS ?=

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Offline first: where everything is already there, no network is asked for.
install: ## put what is locked into .venv
	@$(sync) --offline --quiet 2>/dev/null || $(sync)

up: install ## install, then start everything on this machine: gateway, console, model
	@exec $(bin)/forebay up $(ARGS)

test: check ## install, then run every check and every test
	@$(bin)/pytest $(ARGS)

check: install ## lint, format, types, layers, lock (no tests)
	@$(bin)/ruff check --quiet
	@$(bin)/ruff format --check --quiet
	@$(bin)/mypy
	@$(bin)/lint-imports --no-logo
	@./scripts/uv lock --check --offline --quiet
	@$(bin)/python scripts/check_wheels.py

fix: ## let ruff repair what it can, and format
	@$(bin)/ruff check --fix
	@$(bin)/ruff format

docs: install ## make the generated parts of docs/ anew
	@$(bin)/python scripts/reference.py

bench: install ## what a request costs: CPU per operation, beside nginx (docs/benchmarks.md)
	@$(bin)/python -m forebay.testbed.overhead $(ARGS)

bench-table: install ## with and without Forebay: latency, cost, success over 10,000 requests
	@$(bin)/forebay bench $(ARGS)

clean: ## remove the environments and every cache; your data stays
	@rm -rf .venv .venv-tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
