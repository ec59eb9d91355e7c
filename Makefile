# make install | demo | test | test-all | check | docs | clean | help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
PYTEST_ARGS ?=
# Tests start whole federations of processes; more workers than this makes them wait for each other.
PYTEST_WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); if [ $$n -gt 4 ]; then echo 4; else echo $$n; fi)
TORCH := torch==2.13.0

.PHONY: help install demo test test-all check docs format lock browser postgresql pacs walls clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 12

install: $(VENV)/.installed  ## make .venv with everything in it

# torch comes first and by its exact version: asked for in passing, an index may choose gigabytes of CUDA.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; name one: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make environments. On Debian or Ubuntu, as root: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '$(TORCH)'
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

demo: install  ## a hub and three hospitals on this machine; DEMO_ARGS="--exit" ends after the study
	$(BIN)/wardround demo $(DEMO_ARGS)

check: install  ## ruff, formatting, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check browser postgresql pacs  ## check, then all tests that need neither minutes nor shared data
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup -m 'not slow and not shared' $(PYTEST_ARGS)

test-all: install browser postgresql pacs walls  ## the slow tests, and those on the development data where it is there; as root
	$(BIN)/python -m pytest -m 'slow or shared' $(PYTEST_ARGS)

docs: install  ## check that every link and every command in the documents exists
	$(BIN)/python -m pytest -q tests/docs $(PYTEST_ARGS)

format: install  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: install  ## write constraints.txt anew from what is installed
	scripts/lock $(BIN)/python

browser: $(VENV)/.browser

$(VENV)/.browser: scripts/install-packages | $(VENV)/.installed
	scripts/install-packages "the browser tests" chromium=chromium chromedriver=chromium-driver
	@touch $@

postgresql: $(VENV)/.postgresql

$(VENV)/.postgresql: scripts/install-packages | $(VENV)/.installed
	scripts/install-packages "the tests on PostgreSQL" '/usr/lib/postgresql/*/bin/initdb=postgresql' setpriv=util-linux
	@touch $@

pacs: $(VENV)/.pacs

$(VENV)/.pacs: scripts/install-packages Makefile | $(VENV)/.installed
	scripts/install-packages "the tests with a PACS and modalities" storescu=dcmtk /usr/sbin/Orthanc=orthanc \
		'/usr/share/orthanc/plugins/libOrthancDicomWeb.so*=orthanc-dicomweb'
	@touch $@

walls: $(VENV)/.walls

$(VENV)/.walls: scripts/install-packages Makefile | $(VENV)/.installed
	scripts/install-packages "the tests of walls, networks, disks and clocks" ip=iproute2 tc=iproute2 ss=iproute2 \
		unshare=util-linux nsenter=util-linux setpriv=util-linux mount=mount \
		'/usr/lib/*/faketime/libfaketimeMT.so.1=libfaketime'
	@touch $@

clean:  ## remove .venv, the demo's folder and all caches
	rm -rf $(VENV) .wardround build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
