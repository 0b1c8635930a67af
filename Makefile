# One door to everything. `make` alone lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
UV_VERSION := 0.9
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PYTHON := .venv/bin/python
STAMP := .venv/.installed
# Two test processes keep two cores busy; more wait for each other's brokers.
TEST_PROCESSES ?= 2
# uv compiles nothing when it installs. Each process would compile torch, whisperx and us anew if it might not keep it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo model fuzz test test-unit chaos campaign kills outage gpu lint format servers image demo-models clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv from the lock file (uv is fetched from PyPI when it is not there)

$(STAMP): pyproject.toml uv.lock
	@command -v uv >/dev/null 2>&1 || test -x .uv/bin/uv || { python3.11 -m venv .uv && .uv/bin/pip install --quiet "uv>=$(UV_VERSION)"; }
	@echo "Installing the locked packages into .venv (about 7 GB, most of it torch with CUDA) ..."
	@quiet=; test -t 2 || quiet=--quiet; $(UV) sync --frozen $$quiet --extra speech --extra demo
	@touch $@

demo: $(STAMP) ## Transcribe a conversation with everything embedded: no server, no network
	$(PYTHON) -m consumer transcribe demo/recordings/conversation-90s.flac --chunk-length 30

test: $(STAMP) ## Run all tests; those that need a server that cannot be had here are skipped with a reason
	@status=0; $(PYTHON) -m pytest -m "not alone" -n $(TEST_PROCESSES) --dist loadfile || status=$$?; \
	$(PYTHON) -m pytest -m alone || status=$$?; exit $$status

test-unit: $(STAMP) ## Run the fast tests only
	$(PYTHON) -m pytest tests/unit -m "not models and not servers"

model: $(STAMP) ## Loop, coordinator and functions on the fakes, ten thousand sequences with faults; ARGS="--seed 7"
	$(PYTHON) -m tests.model $(ARGS)

fuzz: $(STAMP) ## Ten thousand spoiled recordings and as many job events, watched with strace; ARGS="media --seed 7 --count 500"
	$(PYTHON) -m tests.fuzz $(ARGS)

chaos: $(STAMP) ## Real servers under faults, all promises checked; ARGS="--seed 7 --protocol consumer --brokers 3" and more
	$(PYTHON) -m tests.chaos $(ARGS)

campaign: $(STAMP) ## Chaos runs over seeds, protocols and brokers until 3,000 faults are done (about two hours)
	$(PYTHON) -m tests.chaos.campaign $(ARGS)

kills: $(STAMP) ## The real WhisperX chain: ten minutes on three workers, ten of them killed (about ten minutes)
	WHISPERX_TEST_KILLS=10 $(PYTHON) -m pytest -s tests/acceptance/test_cluster.py -k kill_after_kill

outage: $(STAMP) ## Store and broker away for five minutes each, on both group protocols (about half an hour)
	WHISPERX_TEST_OUTAGE_S=300 $(PYTHON) -m pytest -s tests/integration/test_dependency_away.py

gpu: $(STAMP) ## The tests that need a GPU: against the CPU, a full card, a lost context (about two minutes)
	$(PYTHON) -m pytest tests/gpu $(ARGS)

lint: $(STAMP) ## Format check, lint, strict types, import contracts, generated files
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) -m consumer.contracts check

format: $(STAMP) ## Format the code
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

servers: $(STAMP) ## Get Kafka, MinIO and the other test servers, as plain processes
	$(PYTHON) -m tests.servers.install

image: ## Build the container image (docker or podman; buildah bud works too)
	docker build --build-arg REVISION=$$(git rev-parse HEAD) -t whisperx-consumer:0.1.0 .

demo-models: $(STAMP) ## Rebuild the demo models from nothing (about two hours on two cores; needs espeak-ng and flite)
	$(PYTHON) -m demo.training $(or $(WORKDIR),.cache/demo-training)

clean: ## Remove what make made
	rm -rf .venv .uv .cache .mypy_cache .ruff_cache .pytest_cache demo-output
