# Each target sets up what it needs on a bare machine; `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench chaos fmt clean setup services

BIN := .venv/bin
PY := $(BIN)/python
# Options for pytest: make test ARGS="-k idempotency -x"
ARGS :=

help: ## lists the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: setup ## shows the product at work: on RabbitMQ if one answers, else in memory
	@$(PY) examples/demo/demo.py

test: setup services ## all tests, on a real RabbitMQ and Redis, with coverage
	@$(BIN)/coverage erase
	@status=0; \
	AUTOSELL_RMQ_REQUIRE_SERVICES=1 $(BIN)/coverage run -m pytest -m 'not chaos' $(ARGS) || status=$$?; \
	$(BIN)/coverage combine --quiet || true; \
	$(BIN)/coverage report || true; \
	exit $$status

check: setup ## format, lint, imports, types, dependencies, spelling, tests without services
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/pyright --warnings
	$(BIN)/deptry autosell_rmq integrations
	$(BIN)/codespell
	$(BIN)/pytest -q $(wildcard tests/unit tests/contract) $(ARGS)

bench: ## nothing yet: the benchmarks come with the work on speed
	@echo "make bench: not yet; the benchmarks come with the work on speed"

chaos: ## nothing yet: the chaos tests come with the work on recovery
	@echo "make chaos: not yet; the chaos tests come with the work on recovery"

fmt: setup ## formats the code and mends what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## removes caches, coverage and builds; keeps .venv
	rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .*_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

setup: ## makes .venv (quick when there is nothing to do)
	@scripts/setup.sh

services: setup ## brings up RabbitMQ and Redis for the tests
	@$(PY) scripts/services.py rabbitmq redis amqp-tools
