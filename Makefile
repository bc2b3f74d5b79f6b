# Every target works alone on a fresh machine with Python >= 3.11, pip and make: it creates .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What the wrappers of mmearth's verbs work on; ARGS adds further options, e.g. make collect ARGS='--workers 32'.
LOCATIONS ?= locations.parquet
N ?= 100000
STORE ?= store.zarr
OUT ?= runs/default
MODEL ?= atto
PORT ?= 8017
# What processes elsewhere are told: a URL as it is, a path in full. Containers mount the folder of the first path.
placed = $(if $(findstring ://,$(1)),$(1),$(abspath $(1)))
MOUNTED = $(dir $(abspath $(firstword $(foreach place,$(STORE) $(LOCATIONS) $(OUT),$(if $(findstring ://,$(place)),,$(place))))))
EARTH := $(if $(EMULATOR),--emulator $(EMULATOR),$(if $(PROJECT),--project $(PROJECT)))

export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# Slots that were taken when the server was stopped are given back once their leases, kept on disk, have run out.
export PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE := prefect.server.concurrency.lease_storage.filesystem

.PHONY: setup demo test lint e2e ablation bench bench-loader bench-collection bench-conversion sample collect finalize pretrain evaluate report ui deploy emulator
.DEFAULT_GOAL := setup

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmearth needs Python >= 3.11; name one with make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

setup: $(INSTALLED)  ## .venv with everything, pinned by constraints.txt

demo: $(INSTALLED)  ## The whole chain on an emulated Earth, without an account
	@$(BIN)/python -m flows.demo $(ARGS)

test: $(INSTALLED)  ## Unit and integration tests
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(INSTALLED)  ## ruff, mypy --strict, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/online
	$(BIN)/lint-imports

e2e: $(INSTALLED)  ## Slow checks of the whole: the demo, kill -9, a browser
	$(BIN)/python -m pytest tests/e2e

ablation: $(INSTALLED)  ## Which pretext tasks pay, on an emulated Earth; 53 minutes on 2 cores
	@PYTHONPATH=. $(BIN)/python benchmarks/ablation.py $(ARGS)

bench: $(INSTALLED)  ## Figures of the plan and of a training step, each beside its baseline; ECOREGIONS names a vector file
	$(BIN)/python benchmarks/location_plan.py $(ECOREGIONS)
	$(BIN)/python benchmarks/encoder.py $(ARGS)

bench-loader: $(INSTALLED)  ## Rates, sizes and memory of the loader beside the published way and memory maps
	$(BIN)/python benchmarks/loader.py $(ARGS)

bench-collection: $(INSTALLED)  ## Slots busy, requests and CPU per tile
	PYTHONPATH=. $(BIN)/python benchmarks/collection.py $(ARGS)

bench-conversion: $(INSTALLED)  ## Rates, CPU and memory of each direction of convert, and of statistics, beside the plain way
	$(BIN)/python benchmarks/conversion.py $(ARGS)

sample: $(INSTALLED)  ## N locations into LOCATIONS, from PROJECT or EMULATOR
	$(BIN)/mmearth sample --locations $(N) --out $(LOCATIONS) $(EARTH) $(ARGS)

collect: $(INSTALLED)  ## LOCATIONS into STORE, from PROJECT or EMULATOR
	$(BIN)/mmearth collect --locations $(LOCATIONS) --store $(STORE) $(EARTH) $(ARGS)

finalize: $(INSTALLED)  ## Tables and statistics of STORE
	$(BIN)/mmearth finalize --store $(STORE) $(ARGS)

pretrain: $(INSTALLED)  ## MODEL on STORE into OUT, carrying on where it stopped
	$(BIN)/mmearth pretrain --store $(STORE) --out $(OUT) --model $(MODEL) --resume $(ARGS)

evaluate: $(INSTALLED)  ## Probes of the encoder in OUT on STORE
	$(BIN)/mmearth evaluate --checkpoint $(OUT) --store $(STORE) $(ARGS)

report: $(INSTALLED)  ## One page about STORE and the run in OUT
	$(BIN)/mmearth report --store $(STORE) --run $(OUT) --out report.html $(ARGS)

ui: $(INSTALLED)  ## A Prefect server with its page at http://127.0.0.1:4200
	$(BIN)/prefect server start

deploy: $(INSTALLED)  ## What runs by itself (flows/prefect.yaml) to the server at PREFECT_API_URL, with its work pools
	$(BIN)/prefect work-pool create --overwrite --type process mmearth-collect
	$(BIN)/prefect work-pool create --overwrite --type docker mmearth-docker
	$(BIN)/prefect work-pool create --overwrite --type process mmearth-gpu
	MMEARTH_LOCATIONS=$(call placed,$(LOCATIONS)) MMEARTH_STORE=$(call placed,$(STORE)) MMEARTH_RUN=$(abspath $(OUT)) \
	MMEARTH_PROJECT=$(PROJECT) MMEARTH_EMULATOR=$(EMULATOR) MMEARTH_CREDENTIALS=$(HOME)/.config/earthengine \
	MMEARTH_VOLUME=$(MOUNTED):$(MOUNTED) \
	$(BIN)/prefect --no-prompt deploy --all --prefect-file flows/prefect.yaml

emulator: $(INSTALLED)  ## An Earth Engine at http://127.0.0.1:PORT to run against offline
	$(BIN)/mmearth emulator --port $(PORT) $(ARGS)
