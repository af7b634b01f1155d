# `make` lists what there is. Everything is installed into .venv by the first target that needs it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help install demo test check faults storm docs bench images format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "Curfew needs Python 3.11 with venv: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Curfew needs Python 3.11 or later: rm -r $(VENV), then make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV) (pinned in constraints.txt)"
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: $(READY) ## make the virtual environment

demo: $(READY) ## one night of rate plan changes, end to end, on the embedded Kafka
	@$(BIN)/curfew demo

test: $(READY) ## all tests but the long fault storms
	@$(BIN)/pytest -n 2 -m 'not faults'

check: $(READY) ## ruff, ruff format, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

faults: $(READY) ## every fail point, and random kill -9 storms (about 40 minutes)
	@$(BIN)/pytest -m 'faults and not long'

storm: $(READY) ## a night of 20,000 changes under kill -9, on SQLite and PostgreSQL (a quarter of an hour)
	@$(BIN)/pytest -m long

docs: $(READY) ## docs/events.md, docs/settings.md and docs/asyncapi.yaml, from the code, the manifest and the schemas
	@$(BIN)/python -m agents.asyncapi docs

bench: $(READY) ## throughput and recovery against peers in the same run
	@$(BIN)/curfew bench stream
	@$(BIN)/curfew bench tables

BASE ?= python:3.11-slim-bookworm
BUILD := docker build $(BUILD_OPTIONS) --build-arg BASE=$(BASE)
images: ## our image, and those of docker/local where none can be pulled: BASE=... BUILD_OPTIONS='--network host'
	$(BUILD) -f docker/Dockerfile -t curfew .
	@set -e; for one in kafka registry postgres prometheus mail; do \
	  $(BUILD) --target $$one -t curfew-$$one docker/local; \
	done

format: $(READY) ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove the virtual environment, caches and local data
	rm -rf $(VENV) .curfew .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
