# Each target sets up what it needs on a bare machine; `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-core test-django check bench bench-full chaos fmt clean setup services

BIN := .venv/bin
PY := $(BIN)/python
# Options for pytest: make test ARGS="-k idempotency -x"
ARGS :=

DATABASES := sqlite postgres mariadb
# Above all bounds of the tests themselves: what hangs shows where, on all its threads, and ends.
WITHIN := timeout --verbose --signal=ABRT --kill-after=30
# Where that many fail, something is broken that each test waits for.
ENOUGH := --maxfail=15
# pytest's status where ARGS choose no test of a run: no failure.
NONE_CHOSEN := $(if $(ARGS),5,0)

help: ## lists the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: setup ## shows the product at work: on RabbitMQ if one answers, else in memory
	@$(PY) examples/demo/demo.py

# Two lanes, one for each core of a small machine: the tests wait more than they work.
test: setup services ## all tests, on real services, Django's on three databases, with coverage
	@$(BIN)/coverage erase
	@status=0; \
	$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-core test-django || status=1; \
	$(BIN)/coverage combine --quiet || true; \
	$(BIN)/coverage report || true; \
	exit $$status

test-core:
	@AUTOSELL_RMQ_REQUIRE_SERVICES=1 $(WITHIN) 2400 $(BIN)/coverage run -m pytest -m 'not chaos' $(ENOUGH) $(ARGS) || [[ $$? == $(NONE_CHOSEN) ]]

test-django:
	@status=0; export AUTOSELL_RMQ_REQUIRE_SERVICES=1; \
	for database in $(DATABASES); do \
	  echo "Django on $$database"; \
	  some="not chaos $$([[ $$database == sqlite ]] || echo and not any_database)"; \
	  RMQ_TEST_DB=$$database $(WITHIN) 1000 $(BIN)/coverage run -m pytest tests/django -m "$$some" $(ENOUGH) $(ARGS) \
	    || [[ $$? == $(NONE_CHOSEN) ]] || status=1; \
	done; \
	exit $$status

check: setup ## format, lint, imports, types, dependencies, spelling, tests without services
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/pyright --warnings
	$(BIN)/deptry autosell_rmq integrations
	$(BIN)/codespell
	$(BIN)/pytest -q $(wildcard tests/unit tests/contract) $(ARGS) || [[ $$? == $(NONE_CHOSEN) ]]
	RMQ_TEST_DB=sqlite $(BIN)/pytest -q tests/django -m 'not acceptance and not chaos' $(ARGS) || [[ $$? == $(NONE_CHOSEN) ]]

# Options: make bench ARGS="--only consume rpc --rounds 3"
bench: setup ## measures beside other clients what the numbers to reach are about: 3 minutes
	@$(PY) scripts/services.py rabbitmq redis postgres
	@$(PY) -m benchmarks $(ARGS)

bench-full: setup ## the same with every client, and how cost grows, into docs/benchmarks.md: 15 minutes
	@$(PY) scripts/services.py rabbitmq redis postgres
	@$(PY) -m benchmarks --full --docs $(ARGS)

# Options: make chaos ARGS="-k cluster"; CHAOS_SOAK=60, seconds, for a shorter soak than ten minutes. Into the docs:
# .venv/bin/python -m tests.chaos.report build/chaos/chaos.json
chaos: setup ## breaks brokers, networks and processes on purpose, and prints what came of it: 45 minutes
	@$(PY) scripts/services.py rabbitmq redis postgres
	@AUTOSELL_RMQ_REQUIRE_SERVICES=1 CHAOS_REPORT=build/chaos $(BIN)/pytest tests/chaos --session-timeout=7200 $(ARGS)

fmt: setup ## formats the code and mends what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## removes caches, coverage and builds; keeps .venv
	rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .*_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

setup: ## makes .venv (quick when there is nothing to do)
	@scripts/setup.sh

services: setup ## brings up RabbitMQ, Redis, PostgreSQL and MariaDB for the tests
	@$(PY) scripts/services.py rabbitmq redis postgres mariadb amqp-tools asyncapi-schema
