# Everything a user or CI runs. Needs Python 3.11 or later and make, nothing else.
#
#   make demo     run the main job offline on real cells; results in demo-output/
#   make lab      open the same notebook in JupyterLab
#   make test     all tests                 (ARGS="-k words" for some, PY=python3.12 for another Python)
#   make check    format, lint, types, import contracts, documentation
#   make bench    every figure, as a Markdown table
#   make soak     the tests that run for long
#   make docs     the documentation, in docs/_build/html
#   make clean    remove what these targets made

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# PY given: an environment of its own, so that several versions live side by side.
ifdef PY
VENV ?= .venv-$(notdir $(PY))
else
VENV ?= .venv
endif
BIN := $(VENV)/bin
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo lab test check bench soak docs constraints clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.has-demo
	"$(BIN)/ovagent" demo --out demo-output

lab: $(VENV)/.has-lab
	"$(BIN)/python" -m jupyterlab notebooks/quickstart.ipynb $(ARGS)

test: $(VENV)/.has-test
	@"$(BIN)/python" -m tests.compile_ahead
	"$(BIN)/python" -m pytest -n 2 --dist loadfile -m "not soak and not live" \
	    --cov --cov-report=term:skip-covered \
	    $(if $(ARGS),$(ARGS),--cov-fail-under=80)

soak: $(VENV)/.has-test
	@"$(BIN)/python" -m tests.compile_ahead
	@"$(BIN)/python" -m pytest -m soak $(ARGS) || { code=$$?; \
	    if [ $$code = 5 ]; then echo "There is no soak test yet."; else exit $$code; fi; }

check: $(VENV)/.has-dev
	"$(BIN)/python" -m ruff format --check .
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m mypy
	"$(BIN)/lint-imports" --no-logo
	$(MAKE) --no-print-directory docs

docs: $(VENV)/.has-dev
	"$(BIN)/python" -m sphinx -W -n --keep-going -q -b html docs docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

bench: $(VENV)/.has-test
	"$(BIN)/python" -m benchmarks $(ARGS)

# One file for all Python versions: names, versions and markers, nothing else.
constraints: $(VENV)/.has-uv
	printf 'hatchling\npip\nuv\n' | "$(BIN)/uv" pip compile --quiet --universal --upgrade \
	    --python-version 3.11 --all-extras --no-annotate --no-header --no-emit-index-url \
	    --no-emit-find-links pyproject.toml - --output-file constraints.txt

clean:
	rm -rf .venv .venv-* .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
	    .coverage .coverage.* .hypothesis build dist docs/_build demo-output bench-output

# -- environments --------------------------------------------------------------------------
# .has-NAME: the environment holds the package with that extra, at the versions constraints.txt
# names. uv is fast; pip follows where it cannot reach what pip is configured to use.

$(VENV)/.has-uv: constraints.txt
	@python="$$(bash tools/find-python "$(PY)")"; \
	    echo "Making $(VENV) with $$python"; \
	    "$$python" -m venv "$(VENV)"
	@"$(BIN)/python" -m pip install --quiet --constraint constraints.txt uv 2>/dev/null || \
	    echo "uv cannot be had; pip does its work, slower."
	@touch "$@"

$(VENV)/.has-%: $(VENV)/.has-uv pyproject.toml constraints.txt
	@echo "Installing the package with [$*] into $(VENV)"
	@"$(BIN)/python" -m uv pip install --quiet --python "$(BIN)/python" \
	        --constraint constraints.txt --editable ".[$*]" || { \
	    echo "uv could not; trying pip, which takes a minute or two."; \
	    "$(BIN)/python" -m pip install --quiet --constraint constraints.txt --editable ".[$*]"; }
	@touch "$@"
