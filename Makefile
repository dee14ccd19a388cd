# inkbatch: the front door. `make help` lists the targets.
#
# Targets call the command line and add nothing to it but set-up. A line "##@ NAME" begins a section of the help.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV    ?= .venv
# The first Python from 3.11 to 3.14 that starts (a name on the PATH may be a shim that does not) and can make an
# environment (Debian and Ubuntu ship that part as python3-venv). 3.14 is the newest that every locked wheel has.
FITS    := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON  ?= $(shell for name in python3.12 python3.13 python3.11 python3.14 python3 python; do \
             $$name -c '$(FITS)' 2>/dev/null && { echo $$name; break; }; done)
BIN     := $(VENV)/bin
RUN     := $(BIN)/inkbatch

SEGMENT ?=
ROOT    ?= root
SOURCE  ?=
BUNDLE  ?= demo
CATALOG ?=
SHARD   ?=
ENGINE  ?= local
SHARDS  ?=
NAME    ?=
CONFIG  ?=
TO      ?= pulled
OPTIONS ?=
MACHINE ?=
ARGS    ?=
PREPARE_ARGS ?=
JOBS    ?= 2
IMAGE   ?= inkbatch:latest
FLAVOUR ?= auto
BASE_IMAGE ?=
STACK   ?= inkbatch
PARAMS  ?=
DELETE_DATA ?=
PRESET  ?=
CRON    ?=

# Jobs get these as one word; in the environment no quote of theirs meets the shell again.
export ARGS PREPARE_ARGS

# The stack's own tool; credentials and region come from the usual AWS environment.
STACK_TOOL = PYTHONPATH=. $(BIN)/python infra/aws/stack.py --stack '$(STACK)'

# What `inkbatch run` takes: it does the jobs here, or hands them to ENGINE. OPTIONS are settings of the engine,
# key=value (see engines.yaml in docs/launching.md).
JOBS_OF = --root '$(ROOT)' $(if $(CATALOG),--catalog '$(CATALOG)') $(if $(SOURCE),--source '$(SOURCE)') \
          $(if $(CONFIG),--config '$(CONFIG)') $(if $(NAME),--name '$(NAME)') \
          --prepare-args="$$PREPARE_ARGS" --args="$$ARGS"
WHERE   = --engine '$(ENGINE)' $(if $(SHARDS),--shards '$(SHARDS)') $(if $(SHARD),--shard '$(SHARD)') \
          $(foreach option,$(OPTIONS),--option '$(option)') \
          $(if $(filter slurm,$(ENGINE)),$(if $(findstring program=,$(OPTIONS)),,--option 'program=[$(abspath $(RUN))]'))

# Locks hold for every Python from 3.11 on and name no index: hashes say which files are meant.
LOCK = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
       --no-annotate

# ---- set-up ---------------------------------------------------------------------------------------------------------

$(BIN)/uv:
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(FITS)' || \
	  { echo "python: expected 3.11 to 3.14 with venv, got none that starts; set PYTHON=/path/to/python3.13," \
	    "or on Debian and Ubuntu: apt-get install python3-venv"; exit 64; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.runtime: $(BIN)/uv requirements/runtime.lock pyproject.toml
	@flavour=$$($(BIN)/python scripts/torch_flavour.py '$(FLAVOUR)'); lock=requirements/runtime.lock; \
	if [ "$$flavour" != locked ]; then \
	  lock="requirements/runtime-$$flavour.lock"; export UV_TORCH_BACKEND="$$flavour"; \
	  [ -f "$$lock" ] || $(MAKE) --no-print-directory lock-flavour FLAVOUR="$$flavour"; \
	fi; \
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r "$$lock"; \
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps -e .; \
	echo "$$flavour" > $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.lock
	@touch $@

$(VENV)/.docs: $(VENV)/.dev requirements/docs.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r requirements/docs.lock
	@touch $@

.PHONY: need-segment
need-segment:
	@test -n '$(SEGMENT)' || { echo "which segment? for example: make infer SEGMENT=demo (inkbatch segments lists them)"; exit 64; }

##@ Start here

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {gsub(/\$$\$$/, "$$"); printf "  make %-18s %s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)
	@echo
	@echo "Settings: SEGMENT= ROOT= SOURCE= BUNDLE= CATALOG= MACHINE= PREPARE_ARGS='…' ARGS='--name \"a b\"'   (README.md)"
	@echo "Engines:  ENGINE=local|docker|slurm|aws-batch|kubernetes|skypilot SHARDS=n OPTIONS='key=value …'   (docs/launching.md)"

.PHONY: demo
demo: $(VENV)/.runtime ## Read planted Greek letters on real papyrus: the main job on shipped data
	@$(MAKE) --no-print-directory infer SEGMENT=demo

# Hundreds of processes would compile all that they import where the environment forbids to keep bytecode.
test test-slow: export PYTHONDONTWRITEBYTECODE =

.PHONY: test
test: lint $(VENV)/.dev ## Style, types, import rules, then all tests but the slow ones (12 minutes on two cores)
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow and not many_seeds and not browser and not slurm and not image'

.PHONY: view
view: $(VENV)/.runtime need-segment ## View SEGMENT and its predictions in the browser (ARGS='--port 9000')
	@$(RUN) view '$(SEGMENT)' --root '$(ROOT)' $(ARGS)

.PHONY: label
label: $(VENV)/.runtime need-segment ## Paint ink labels of SEGMENT in the browser (ARGS='--version v002')
	@$(RUN) view '$(SEGMENT)' --root '$(ROOT)' --edit $(ARGS)

##@ Read a segment

.PHONY: plan
plan: $(VENV)/.runtime need-segment ## What prepare and infer would do to SEGMENT, and what it would cost
	$(RUN) run prepare,infer '$(SEGMENT)' --bundle '$(BUNDLE)' --dry-run $(JOBS_OF)

.PHONY: prepare
prepare: $(VENV)/.runtime need-segment ## Copy the layers of SEGMENT into surface.zarr, and make mask.zarr
	$(RUN) run prepare '$(SEGMENT)' $(WHERE) $(JOBS_OF)

.PHONY: infer
infer: $(VENV)/.runtime need-segment ## SEGMENT and BUNDLE -> a prediction under ROOT (prepares first)
	$(RUN) run prepare,infer '$(SEGMENT)' --bundle '$(BUNDLE)' $(WHERE) $(JOBS_OF)

.PHONY: preflight
preflight: $(VENV)/.runtime need-segment ## What is wrong with the layers of SEGMENT, tile by tile, before a GPU is paid (docs/trust.md)
	$(RUN) run preflight '$(SEGMENT)' $(WHERE) $(JOBS_OF)

.PHONY: probe
probe: $(VENV)/.runtime need-segment ## Find the depth order and layers that suit BUNDLE on SEGMENT (docs/trust.md)
	$(RUN) run probe '$(SEGMENT)' --bundle '$(BUNDLE)' $(WHERE) $(JOBS_OF)

.PHONY: sweep
sweep: $(VENV)/.runtime need-segment ## Search SEGMENT with BUNDLE='A B …': depths, directions, nulls (docs/search.md; prepares first)
	$(RUN) run prepare,sweep '$(SEGMENT)' $(foreach bundle,$(BUNDLE),--bundle '$(bundle)') $(WHERE) $(JOBS_OF)

.PHONY: ensemble
ensemble: $(VENV)/.runtime need-segment ## Predictions of SEGMENT -> one (ARGS='--prediction A --prediction B --method mean')
	$(RUN) run ensemble '$(SEGMENT)' $(WHERE) $(JOBS_OF)

.PHONY: evaluate
evaluate: $(VENV)/.runtime need-segment ## A prediction of SEGMENT against its ink labels (ARGS='--name A --versus B')
	$(RUN) run evaluate '$(SEGMENT)' $(WHERE) $(JOBS_OF)

.PHONY: export
export: $(VENV)/.runtime need-segment ## A prediction of SEGMENT -> TIFF, PNG, JPG or NPY (ARGS='--to map.png')
	$(RUN) export '$(SEGMENT)' --root '$(ROOT)' $(ARGS)

.PHONY: report
report: $(VENV)/.runtime need-segment ## The report pages of SEGMENT's finished runs, made again (NAME=one-prediction)
	$(RUN) report '$(SEGMENT)' --root '$(ROOT)' $(if $(NAME),--name '$(NAME)') $(ARGS)

##@ Train a network

.PHONY: build-dataset
build-dataset: $(VENV)/.runtime ## Labelled segments -> a dataset (NAME=my-dataset CONFIG=my-dataset.yaml)
	$(RUN) run build-dataset $(if $(NAME),'$(NAME)') $(WHERE) $(JOBS_OF)

.PHONY: train
train: $(VENV)/.runtime ## A dataset -> a bundle (NAME=my-run CONFIG=my-run.yaml)
	$(RUN) run train $(if $(NAME),'$(NAME)') $(WHERE) $(JOBS_OF)

.PHONY: round
round: $(VENV)/.runtime ## The next round of labelling: train, predict, score, propose (NAME=letters CONFIG=my-rounds.yaml; docs/rounds.md)
	$(RUN) run round $(if $(NAME),'$(NAME)') $(WHERE) $(JOBS_OF)

.PHONY: rounds-demo
rounds-demo: $(VENV)/.runtime ## Two rounds on phantoms with a scripted labeller, scored by the truth (two minutes; ARGS='--rounds 3 --compare')
	$(BIN)/python scripts/rounds_demo.py --root '$(ROOT)/rounds-demo' $(ARGS)

.PHONY: demo-train
demo-train: $(VENV)/.runtime ## Train the demo bundle again on phantoms and compare it with the shipped one (minutes)
	$(BIN)/python scripts/demo_train.py --root '$(ROOT)' $(ARGS)

.PHONY: ablations
ablations: $(VENV)/.runtime ## Train phantoms with and without each augmentation and loss, three seeds (half an hour; goes on where it stopped)
	$(BIN)/python scripts/ablate_training.py $(ARGS)

.PHONY: instances-demo
instances-demo: $(VENV)/.runtime ## Part the grains of made thin sections in several ways, each scored against known outlines (a minute)
	$(BIN)/python scripts/instances_demo.py --root '$(ROOT)' $(ARGS)

.PHONY: train-grains-unet
train-grains-unet: $(VENV)/.runtime ## Train the first pass of instances-demo again, on made thin sections (minutes)
	$(BIN)/python scripts/instances_demo.py --root '$(ROOT)' --only-sections
	$(BIN)/inkbatch build-dataset --root '$(ROOT)' --config jobs/demo/grains-dataset.yaml --set images.folder='$(ROOT)/grains'
	$(BIN)/inkbatch train --root '$(ROOT)' --config jobs/demo/grains-train.yaml

.PHONY: train-grains-sam2
train-grains-sam2: $(VENV)/.runtime ## Train the small SAM 2 of instances-demo again, on made thin sections (50 minutes of one core)
	mkdir -p '$(ROOT)'
	$(BIN)/python scripts/train_tiny_sam.py --out '$(ROOT)/grains-sam2' --state '$(ROOT)/grains-sam2.pt' $(ARGS)

##@ Other machines

.PHONY: doctor
doctor: $(VENV)/.runtime ## Check the machine that ENGINE gives: the first job to send anywhere
	$(RUN) run doctor $(if $(NAME),'$(NAME)') $(WHERE) $(JOBS_OF)

.PHONY: estimate
estimate: $(VENV)/.runtime ## Tiles, seconds and money of infer for SEGMENT (or the catalog) on a MACHINE=g6.xlarge
	$(RUN) estimate $(if $(SEGMENT),'$(SEGMENT)',--all) --bundle '$(BUNDLE)' --root '$(ROOT)' \
	  $(if $(CATALOG),--catalog '$(CATALOG)') $(if $(MACHINE),--machine '$(MACHINE)') $(ARGS)

.PHONY: status
status: $(VENV)/.runtime ## How far SEGMENT (or a dataset, a training) is, and what its engine says; without SEGMENT all launches
	$(RUN) status $(if $(SEGMENT),'$(SEGMENT)') --root '$(ROOT)' $(ARGS)

.PHONY: logs
logs: $(VENV)/.runtime need-segment ## Last lines of a task of SEGMENT's newest launch (ARGS='--job infer --shard 3')
	$(RUN) logs '$(SEGMENT)' --root '$(ROOT)' $(ARGS)

.PHONY: cancel
cancel: $(VENV)/.runtime need-segment ## End SEGMENT's newest launch; what is stored is kept
	$(RUN) cancel '$(SEGMENT)' --root '$(ROOT)' $(ARGS)

.PHONY: pull
pull: $(VENV)/.runtime need-segment ## Bring SEGMENT's finished predictions from ROOT into TO (pulled)
	$(RUN) pull '$(SEGMENT)' --root '$(ROOT)' --to '$(TO)' $(if $(NAME),--name '$(NAME)') $(ARGS)

##@ An AWS account of your own

.PHONY: infra-deploy
infra-deploy: $(VENV)/.runtime ## Make or change the AWS stack: STACK=inkbatch PARAMS='BudgetEmail=me@example.org …'
	$(STACK_TOOL) deploy $(PARAMS)

.PHONY: infra-diff
infra-diff: $(VENV)/.runtime ## Say what infra-deploy would change, and change nothing
	$(STACK_TOOL) diff $(PARAMS)

.PHONY: infra-output
infra-output: $(VENV)/.runtime ## One output of the stack: export ROOT=$$(make -s infra-output NAME=Root)
	@$(STACK_TOOL) output '$(NAME)'

.PHONY: infra-destroy
infra-destroy: $(VENV)/.runtime ## Remove the stack; the bucket and its data stay, unless DELETE_DATA=BUCKET spells it out
	$(STACK_TOOL) destroy $(if $(DELETE_DATA),--delete-data '$(DELETE_DATA)')

.PHONY: schedule-train
schedule-train: $(VENV)/.runtime ## Train by the clock in AWS: PRESET=my-run.yaml CRON='0 3 ? * SUN *' NAME=weekly
	@test -n '$(PRESET)' && test -n '$(CRON)' || { $(RUN) schedule list --stack '$(STACK)'; \
	  echo "to make one: make schedule-train PRESET=my-run.yaml CRON='0 3 ? * SUN *' NAME=weekly"; exit 64; }
	$(RUN) schedule train '$(or $(NAME),$(basename $(notdir $(PRESET))))' --preset '$(PRESET)' --cron '$(CRON)' --stack '$(STACK)'

.PHONY: schedule-catalog
schedule-catalog: $(VENV)/.runtime ## Read a whole catalog by the clock: CATALOG=segments.yaml BUNDLE=… CRON='…' NAME=nightly
	$(RUN) schedule catalog '$(or $(NAME),nightly)' --catalog '$(CATALOG)' --bundle '$(BUNDLE)' --cron '$(CRON)' --stack '$(STACK)'

.PHONY: schedules
schedules: $(VENV)/.runtime ## List the schedules of the stack
	$(RUN) schedule list --stack '$(STACK)'

.PHONY: schedule-remove
schedule-remove: $(VENV)/.runtime ## Remove the schedule NAME; what it made stays
	$(RUN) schedule remove '$(NAME)' --stack '$(STACK)'

##@ The image

.PHONY: image
image: ## Build the image (docker, else buildah on a Debian base): IMAGE=inkbatch:latest FLAVOUR=locked BASE_IMAGE=…
	IMAGE='$(IMAGE)' FLAVOUR='$(FLAVOUR:auto=locked)' BASE_IMAGE='$(BASE_IMAGE)' docker/build.sh

.PHONY: image-test
image-test: image $(VENV)/.dev ## Run the demo job in the image: non-root, read-only, killed and resumed (docker or podman)
	IMAGE='$(IMAGE)' docker/image-test.sh $(BIN)/python $(ARGS)

.PHONY: image-push
image-push: $(VENV)/.runtime ## Push IMAGE to the stack's repository (with docker)
	to=$$($(STACK_TOOL) log-in); docker tag '$(IMAGE)' "$$to:latest"; docker push "$$to:latest"

.PHONY: lock-flavour
lock-flavour: $(BIN)/uv ## Lock another CUDA flavour of torch for the image: FLAVOUR=cu126 (or cpu, cu128, …)
	cp requirements/runtime.lock 'requirements/runtime-$(FLAVOUR).lock'
	$(LOCK) --torch-backend '$(FLAVOUR)' pyproject.toml -o 'requirements/runtime-$(FLAVOUR).lock'

##@ Development: set-up and checks

.PHONY: setup
setup: ## Install what the jobs need into .venv, with torch for this machine's driver (or FLAVOUR=cu126, cpu, …)
	@[ '$(FLAVOUR)' = auto ] || [ "$$(cat '$(VENV)/.runtime' 2>/dev/null)" = '$(FLAVOUR)' ] || rm -f '$(VENV)/.runtime'
	@$(MAKE) --no-print-directory '$(VENV)/.runtime'

.PHONY: lint
lint: $(VENV)/.dev ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint infra/aws/inkbatch.yaml

.PHONY: test-slow
test-slow: $(VENV)/.dev ## The slow tests: large published networks, compiled models, benchmarks
	$(BIN)/python -m pytest -m 'slow and not slurm and not many_seeds'

.PHONY: test-pythons
test-pythons: $(VENV)/.runtime ## The demo with the oldest and the newest Python of this machine (a minute)
	$(BIN)/python scripts/smoke_pythons.py

.PHONY: test-probe
test-probe: $(VENV)/.dev ## The verdicts of probe (80 phantoms) and preflight (360 tiles) of known truth (15 minutes alone)
	$(BIN)/python -m pytest -s -m many_seeds -o faulthandler_timeout=7200

.PHONY: test-sweep
test-sweep: $(VENV)/.dev ## Sweep 98 segments of known truth, and say what was found (20 minutes on two cores; goes on where it stopped)
	$(BIN)/python scripts/prove_sweep.py $(ARGS)

.PHONY: test-fuzz
test-fuzz: $(VENV)/.dev ## Every reader with 5,000 mutated inputs, then minutes of a coverage-guided fuzzer (ARGS='--minutes 10')
	$(BIN)/python scripts/fuzz.py $(ARGS)

.PHONY: test-kill
test-kill: $(VENV)/.dev ## Kill every job at every kind of write, on a disk and on S3, and compare (ARGS='--kills 1000 --minutes 20')
	$(BIN)/python scripts/kill_jobs.py $(ARGS)

.PHONY: test-storage
test-storage: $(VENV)/.dev ## Every job on S3 behind a faulty proxy, compared byte by byte (ARGS='--trials 300 --minutes 20')
	$(BIN)/python scripts/spoil_storage.py $(ARGS)

.PHONY: test-view-load
test-view-load: $(VENV)/.dev ## The viewer beside slow and with many clients: seconds per answer, memory (ARGS='--clients 500')
	$(BIN)/python scripts/view_load.py $(ARGS)

.PHONY: test-slurm
test-slurm: $(VENV)/.dev ## Arrays on a real one-node Slurm, which is installed (Debian, root) and started for it
	scripts/slurm_node.sh $(BIN)/python -m pytest -m slurm -o faulthandler_timeout=1800

.PHONY: test-browser
test-browser: $(VENV)/.dev ## Viewer, report pages and Neuroglancer links in a headless Chromium (Debian: apt-get install chromium)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet -r requirements/neuroglancer.in
	$(BIN)/python -m pytest -m browser

.PHONY: infra-lint
infra-lint: $(VENV)/.dev ## cfn-lint and checkov (in an environment of its own) on the template
	$(BIN)/cfn-lint infra/aws/inkbatch.yaml
	$(BIN)/uv tool run --from 'checkov==3.3.30' checkov --framework cloudformation --skip-download --compact --quiet \
	  -f infra/aws/inkbatch.yaml

.PHONY: bench
bench: $(VENV)/.dev ## Speed and memory, each figure beside its floor
	$(BIN)/python -m benchmarks.run $(ARGS)

.PHONY: gpu-check
gpu-check: $(VENV)/.runtime ## All that only a GPU can tell, in eight minutes (ARGS='--device cpu --quick' rehearses it)
	$(BIN)/python -m benchmarks.gpu_check --out build/gpu-check.jsonl $(ARGS)

.PHONY: gpu-pack
gpu-pack: $(VENV)/.dev ## gpu-check for a machine without network: build/inkbatch-gpu.tar.xz (ARGS='--there pip-list.txt')
	$(BIN)/python -m benchmarks.gpu_pack $(ARGS)

##@ Development: documentation and releases

.PHONY: docs
docs: $(VENV)/.docs ## The documentation as a site with search: build/docs/index.html; a broken link fails
	$(BIN)/python -m sphinx -b html -c docs -E -q -W --keep-going . build/docs
	@echo "site: build/docs/index.html"

.PHONY: screenshots
screenshots: $(VENV)/.dev ## Pictures of the real pages for README and docs (needs Chromium)
	$(BIN)/python scripts/screenshots.py $(ARGS)

.PHONY: trust-pictures
trust-pictures: $(VENV)/.runtime ## Draw the pictures of docs/trust.md again, from ROOT after the commands of that page
	$(BIN)/python scripts/make_trust_pictures.py '$(ROOT)' docs/images

.PHONY: rounds-pictures
rounds-pictures: $(VENV)/.dev ## Draw the pictures of docs/rounds.md again, from ROOT after make rounds-demo (needs Chromium)
	$(BIN)/python scripts/make_round_pictures.py '$(ROOT)/rounds-demo/seed-0' docs/images

.PHONY: wheel
wheel: $(BIN)/uv ## Build the wheel into dist/, with the locked build tools
	rm -f dist/*.whl
	$(BIN)/uv build --quiet --wheel --out-dir dist --build-constraints requirements/build.lock --require-hashes

.PHONY: test-wheel
test-wheel: wheel ## Install the wheel beside the locked packages, in an environment of its own, and print its help
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/wheel
	$(BIN)/uv pip install --quiet --python build/wheel --require-hashes -r requirements/runtime.lock
	$(BIN)/uv pip install --quiet --python build/wheel --no-deps dist/*.whl
	cd build && wheel/bin/inkbatch --version && wheel/bin/inkbatch presets > /dev/null && \
	  wheel/bin/inkbatch prepare demo --root wheel/root --dry-run > /dev/null

.PHONY: lock
lock: $(BIN)/uv ## Resolve the locked versions again
	$(LOCK) --upgrade pyproject.toml -o requirements/runtime.lock
	$(LOCK) --upgrade --group dev pyproject.toml -c requirements/runtime.lock -o requirements/dev.lock
	$(LOCK) --upgrade requirements/build.in -o requirements/build.lock
	$(LOCK) --upgrade --group pyproject.toml:docs -c requirements/dev.lock -o requirements/docs.lock

.PHONY: distclean
distclean: ## Remove .venv, what was built, and caches; ROOT stays (inkbatch clean cleans a prediction)
	rm -rf $(VENV) .venv-pythons build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
