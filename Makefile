# `make` alone tells them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

# Where HOME cannot be written, caches go into the checkout.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export XDG_CACHE_HOME := $(CURDIR)/.cache
endif

# Without bytecode each of a gateway's processes would compile all that it imports, again at every start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo up check test test-kafka bench soak simulate mutants chaos chaos-long

help: ## Print this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed ## Make .venv from the lock file, development tools included

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/pip install -q uv
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

demo: install ## Send 24 payments through a fresh gateway and check what came of them
	@$(BIN)/kifiya demo

up: install ## Run everything until Ctrl-C and print the URLs
	@$(BIN)/kifiya up

check: install ## Lint, format, import directions, declared dependencies, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/mypy

# Tests that watch time run after the others, alone; the last line counts both runs.
define run-tests
@mkdir -p .cache && { $(BIN)/python -m pytest -q -n $(1) --dist worksteal --no-loadscope-reorder -m "$(2) and not alone" $(3) \
  && $(BIN)/python -m pytest -q -m "$(2) and alone" $(3); } | tee .cache/tests.log
@awk '/^[0-9]+ passed/ {n += $$1} END {print n " passed"}' .cache/tests.log
endef

test: check ## Lint, types, import contracts, unit, integration and end-to-end tests
	$(call run-tests,4,not long and not soak,tests)

# Java's second compiler would take the cores from the gateway for longer than the broker lives.
test-kafka chaos chaos-long: export JAVA_TOOL_OPTIONS += -XX:TieredStopAtLevel=1

test-kafka: export TEST_STACK = apache
test-kafka: install ## Integration, end-to-end and kill -9 tests on Apache Kafka (Java 17, Maven)
	$(call run-tests,3,(kafka or e2e or long),tests/integration tests/e2e)

bench: install ## Speed and memory, as ratios against a limit or a peer in the same run
	@$(BIN)/python -m ops.bench

soak: install ## Ten thousand made-up requests against OpenAPI, and queue places and times against the calls that came
	$(BIN)/python -m pytest -q -m soak tests/integration

simulate: install ## Ten thousand lives of the gateway in virtual time, with crashes, pauses and losses
	@$(BIN)/kifiya chaos simulate --seeds 10000
	@$(BIN)/kifiya chaos simulate --fallback --seeds 100

mutants: install ## Deliberate defects of the product, one at a time in a copy of it: the tests see each
	@$(BIN)/python -m ops.chaos.mutants

chaos: install ## Attack a gateway of real processes on Apache Kafka, kill each role at each failpoint, print the ledger
	@$(BIN)/kifiya chaos run --jobs 2 failpoints fallback storm provider services network cluster clocks

chaos-long: install ## The same at length: every action at every failpoint, ten lanes, more faults
	@$(BIN)/kifiya chaos run --alone 1 --jobs 2 long failpoints-pause failpoints-raise failpoints fallback storm \
	  provider services network roles cluster clocks
