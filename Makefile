# make demo    a fresh machine to report.html          make test    everything CI runs
# make docs    the documentation site in site/         make bench   every performance promise
# make claims  evidence of every claim to results/      make clean   remove what was built
# make new name=npo room=objectives/unlearn            make stubs   refresh the .pyi files after adding a method
#
# PYTHON=python3.12 picks the interpreter, VENV=path the environment, WORKERS=4 the test processes.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu installs the small CPU build of torch on Linux.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
REPORT ?= report.html
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(if $(CI),--quiet)
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
LINTED := src tests benchmarks docs tools

.PHONY: help demo test lint docs bench claims new stubs clean

help:
	@sed -n '1,7s/^# \{0,1\}//p' Makefile

# torch goes first and under the constraint: resolved freely it may come with gigabytes of other CUDA libraries.
$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Plumbline needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "could not create $(VENV); on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "[1/2] installing torch into $(VENV) (once; a few minutes on a slow line)"
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt torch
	@echo "[2/2] installing plumbline and what it needs into $(VENV)"
	@$(PIP) -c constraints.txt -e .
	@touch $@

$(DEV): $(CORE)
	@echo "installing the tools of make test into $(VENV)"
	@$(PIP) -c constraints.txt -e ".[dev,docs,ray,peers]"
	@touch $@

$(DOCS): $(CORE)
	@echo "installing the tools of make docs into $(VENV)"
	@$(PIP) -c constraints.txt -e ".[docs]"
	@touch $@

demo: $(CORE)
	@echo "comparing zoo:base with zoo:chat"
	@$(BIN)/plumbline diff zoo:base zoo:chat -o "$(REPORT)"
	@$(BIN)/python -c 'import pathlib, sys; print("report:", pathlib.Path(sys.argv[1]).resolve().as_uri())' "$(REPORT)"

lint: $(DEV)
	@echo "ruff" && $(BIN)/ruff check $(LINTED) && $(BIN)/ruff format --check $(LINTED)
	@echo "mypy" && $(BIN)/mypy
	@echo "import contracts" && $(BIN)/lint-imports --no-logo
	@echo "stubs" && $(BIN)/python -m plumbline.checks.stubs --check

# One thread a worker: two workers with two threads each on two cores are slower than one.
test: lint
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10 -m "not slow" $(ARGS)

docs: $(DOCS)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

bench: $(DEV)
	@$(BIN)/python tools/bench.py $(ARGS)

claims: $(DEV)
	@$(BIN)/python tools/record_claims.py $(ARGS)

new:
	@$(PYTHON) tools/new_method.py name="$(name)" room="$(room)" kind="$(kind)"
	@if test -x $(BIN)/python; then PYTHONPATH=src $(BIN)/python -m plumbline.checks.stubs; fi

stubs: $(CORE)
	@$(BIN)/python -m plumbline.checks.stubs

clean:
	@rm -rf build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	@find src tests tools docs -name __pycache__ -type d -prune -exec rm -rf {} +
