# Two commands are enough: `make demo` shows the product, `make test` proves it.
# Both make their own environment in .venv and say what they do.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
BIN := .venv/bin
EXAMPLES ?= 1000

# How many loads `make kill` kills.
N ?= 1000

.PHONY: help demo demo-service test kill model load check lint bench bench-compare lock bench-lock clean

help:  ## Show this.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/product: requirements.txt pyproject.toml
	@scripts/environment.sh "$(PYTHON)" requirements.txt
	@touch $@

.venv/dev: requirements-dev.txt pyproject.toml
	@scripts/environment.sh "$(PYTHON)" requirements-dev.txt
	@touch $@ .venv/product

demo: .venv/product  ## Set up, land files, load them, land more, load again, show the table (about a minute).
	@$(BIN)/python scripts/demo.py

demo-service: .venv/product  ## Set up, start Prefect and the API, create, schedule, trigger, show the rows, stop (two minutes).
	@$(BIN)/python scripts/demo_service.py

test: .venv/dev  ## Set up everything the tests need, and run them.
	@scripts/test-servers.sh
	@scripts/postgres.sh
	@scripts/strace.sh
	@echo "Running the tests; they start and stop their own servers: an S3 store with an Iceberg REST catalog,"
	@echo "emulators of Azure Blob Storage and Google Cloud Storage, and PostgreSQL."
	@$(BIN)/python -m tests.second_look -n 2 --dist loadgroup --durations=25 $(ARGS)

model: .venv/dev  ## Hold the product against its model in EXAMPLES other orders of events; SEED plays them again.
	@seed=$(or $(SEED),$$RANDOM$$RANDOM); echo "make model EXAMPLES=$(EXAMPLES) SEED=$$seed"; \
		MODEL_EXAMPLES=$(EXAMPLES) $(BIN)/pytest -n 0 -q tests/model --hypothesis-seed=$$seed $(ARGS)

kill: .venv/dev  ## Kill N=1000 loads at random moments [SEED=…], and prove that every row is in once.
	@scripts/postgres.sh
	@$(BIN)/python -m tests.crash.kill --kills $(N) $(if $(SEED),--seed $(SEED)) $(if $(DEFECT),--defect $(DEFECT)) $(ARGS)

load: .venv/dev  ## Put the service under load, on SQLite and on PostgreSQL (20 minutes); SCALE=0.1 WORLDS=sqlite
	@scripts/postgres.sh
	@$(BIN)/python -m tests.load $(if $(SCALE),--scale $(SCALE)) $(if $(WORLDS),--worlds $(WORLDS)) $(ARGS)

lint: .venv/dev  ## Check style, types and the import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## What CI runs.

# CASES="gz csv" (or all), RUNS=5, SCALE=0.01 and RESUME=1 say what is measured, and how.
MEASURE = $(if $(CASES),--cases "$(CASES)") $(if $(RUNS),--runs $(RUNS)) $(if $(SCALE),--scale $(SCALE)) \
	$(if $(RESUME),--resume)

bench: .venv/dev  ## Measure the product beside others and the floor (half an hour); CASES=… RUNS=… SCALE=…
	@$(BIN)/python -m bench run $(MEASURE)

bench-compare: .venv/dev  ## Measure this tree beside the commit REF; CASES=… RUNS=…
	@$(BIN)/python -m bench compare $(if $(REF),"$(REF)") $(MEASURE)

lock: .venv/dev  ## Compile the two lock files from pyproject.toml.
	$(BIN)/uv pip compile --quiet --universal --no-strip-extras --generate-hashes --python-version 3.11 \
		--custom-compile-command 'make lock' --extra postgres --extra server pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --no-strip-extras --generate-hashes --python-version 3.11 \
		--custom-compile-command 'make lock' --extra postgres --extra server --group dev -c requirements.txt pyproject.toml \
		-o requirements-dev.txt
	$(BIN)/python scripts/plain_pins.py requirements.txt requirements-dev.txt

bench-lock: .venv/dev  ## Compile the requirements of the peers that are measured.
	@for peer in duckdb pyarrow polars dlt floor; do \
		$(BIN)/uv pip compile --quiet --python-version 3.11 --custom-compile-command 'make bench-lock' \
			bench/peers/$$peer.in -o bench/peers/$$peer.txt; done

clean:  ## Remove the environment, the test servers, what the demo made and what was measured.
	rm -rf .venv .tools .bench demo demo-service
