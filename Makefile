# Two commands are enough: `make demo` shows the product, `make test` proves it.
# Both make their own environment in .venv and say what they do.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
BIN := .venv/bin

.PHONY: help demo test check lint lock clean

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

test: .venv/dev  ## Set up everything the tests need, and run them.
	@scripts/test-servers.sh
	@scripts/postgres.sh
	@echo "Running the tests; they start and stop their own servers: an S3 store with an Iceberg REST catalog,"
	@echo "emulators of Azure Blob Storage and Google Cloud Storage, and PostgreSQL."
	@$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

lint: .venv/dev  ## Check style, types and the import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## What CI runs.

lock: .venv/dev  ## Compile the two lock files from pyproject.toml.
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command 'make lock' --extra postgres pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command 'make lock' --extra postgres --group dev -c requirements.txt pyproject.toml \
		-o requirements-dev.txt

clean:  ## Remove the environment, the test servers and what the demo made.
	rm -rf .venv .tools demo
