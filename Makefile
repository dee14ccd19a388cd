# inkbatch: the front door. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV    ?= .venv
# The first Python 3.11 or 3.12 that starts (a name on the PATH may be a shim that does not).
FITS    := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON  ?= $(shell for name in python3.12 python3.11 python3 python; do \
             $$name -c '$(FITS)' 2>/dev/null && { echo $$name; break; }; done)
BIN     := $(VENV)/bin
RUN     := $(BIN)/inkbatch

SEGMENT ?=
ROOT    ?= root
SOURCE  ?=
BUNDLE  ?= demo
CATALOG ?=
SHARD   ?=
ARGS    ?=
PREPARE_ARGS ?=
JOBS    ?= 2

COMMON  = $(if $(ROOT),--root '$(ROOT)') $(if $(CATALOG),--catalog '$(CATALOG)') $(if $(SHARD),--shard '$(SHARD)')

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  settings: SEGMENT= ROOT= SOURCE= BUNDLE= CATALOG= SHARD=i/n PREPARE_ARGS='…' ARGS='…'   (see README.md)"

# ---- set-up ---------------------------------------------------------------------------------------------------------

$(BIN)/uv:
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(FITS)' || \
	  { echo "inkbatch needs Python 3.11 or 3.12 and found none that starts; set PYTHON=/path/to/python3.12"; exit 64; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.runtime: $(BIN)/uv requirements.lock pyproject.toml
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: setup
setup: $(VENV)/.runtime ## Install what the jobs need into .venv

# ---- jobs -----------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.runtime ## Read planted Greek letters on real papyrus: the main job on shipped data
	@$(MAKE) --no-print-directory infer SEGMENT=demo

.PHONY: prepare
prepare: $(VENV)/.runtime need-segment ## Layers of SEGMENT -> surface.zarr and mask.zarr under ROOT
	$(RUN) prepare '$(SEGMENT)' $(COMMON) $(if $(SOURCE),--source '$(SOURCE)') $(PREPARE_ARGS) $(ARGS)

.PHONY: infer
infer: $(VENV)/.runtime need-segment ## SEGMENT and BUNDLE -> an ink map under ROOT (prepares first, unless SHARD is set)
	$(if $(SHARD),,$(RUN) prepare '$(SEGMENT)' $(COMMON) $(if $(SOURCE),--source '$(SOURCE)') $(PREPARE_ARGS))
	$(RUN) infer '$(SEGMENT)' $(COMMON) --bundle '$(BUNDLE)' $(ARGS)

.PHONY: build-dataset
build-dataset: $(VENV)/.runtime ## Labelled segments -> a dataset (ARGS='NAME --config my-dataset.yaml')
	$(RUN) build-dataset --root '$(ROOT)' $(if $(SHARD),--shard '$(SHARD)') $(ARGS)

.PHONY: train
train: $(VENV)/.runtime ## A dataset -> a bundle (ARGS='--config my-run.yaml')
	$(RUN) train --root '$(ROOT)' $(if $(SHARD),--shard '$(SHARD)') $(ARGS)

.PHONY: plan
plan: $(VENV)/.runtime need-segment ## What infer would do to SEGMENT, and what it would cost
	$(RUN) infer '$(SEGMENT)' $(COMMON) --bundle '$(BUNDLE)' --dry-run $(ARGS)

.PHONY: probe
probe: $(VENV)/.runtime need-segment ## Which depth order and layers BUNDLE wants on SEGMENT (docs/trust.md)
	$(RUN) probe '$(SEGMENT)' --root '$(ROOT)' $(if $(SHARD),--shard '$(SHARD)') --bundle '$(BUNDLE)' $(ARGS)

.PHONY: export
export: $(VENV)/.runtime need-segment ## Ink map of SEGMENT -> TIFF, PNG, JPG or NPY (ARGS='--to map.png')
	$(RUN) export '$(SEGMENT)' --root '$(ROOT)' $(ARGS)

.PHONY: need-segment
need-segment:
	@test -n '$(SEGMENT)' || { echo "which segment? for example: make infer SEGMENT=demo (inkbatch segments lists them)"; exit 64; }

# ---- workshop -------------------------------------------------------------------------------------------------------

.PHONY: test
test: lint $(VENV)/.dev ## All checks and tests but the slow ones
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow'

.PHONY: test-slow
test-slow: $(VENV)/.dev ## The slow tests: large published networks, compiled models, benchmarks
	$(BIN)/python -m pytest -m slow

.PHONY: lint
lint: $(VENV)/.dev ## Style, types and room boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(VENV)/.dev ## Speed and memory, each figure beside its floor
	$(BIN)/python -m benchmarks.run $(ARGS)

.PHONY: demo-data
demo-data: $(VENV)/.dev ## Train the shipped demo bundle anew (about five minutes on two cores)
	$(BIN)/python scripts/train_demo_bundle.py $(ARGS)

.PHONY: trust-pictures
trust-pictures: $(VENV)/.runtime ## Draw the pictures of docs/trust.md anew, from ROOT after the commands of that page
	$(BIN)/python scripts/make_trust_pictures.py '$(ROOT)' docs/images

.PHONY: lock
lock: $(BIN)/uv ## Resolve the locked versions anew
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --upgrade pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --upgrade --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

.PHONY: clean
clean: ## Remove .venv and caches; ROOT stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
