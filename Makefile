# Every target makes its own environment in .venv and installs what it needs, once; nothing else is required than
# Python 3.11 or newer and a connection to a package index. `make test PYTHON=/path/to/python` picks the interpreter,
# VENV=folder another place for the environment.

PYTHON ?=
VENV ?= .venv
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3 python3.14)
PIP := $(VENV)/bin/python -m pip install -qq --disable-pip-version-check

.PHONY: quickstart test test-slow versions bench wheel clean

quickstart: $(VENV)/ready ## train, evaluate and compare on generated data
	@$(VENV)/bin/mobjrec train configs/quickstart.yaml

# A worker a core, each with whole files, so that what a file compiles serves all of its tests.
test: $(VENV)/ready-dev ## the fast tests
	@$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/ready-dev ## the long ones
	@$(VENV)/bin/python -m pytest -m slow

versions: ## the fast tests on the oldest and newest versions that are allowed
	@.ci/versions

bench: $(VENV)/ready ## print the tables of what was measured on real data
	@$(VENV)/bin/python benchmarks/ladder.py ranklens --render && $(VENV)/bin/python benchmarks/ladder.py ml-100k --render

wheel: $(VENV)/ready-dev
	@$(VENV)/bin/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@found=; for python in $(PYTHONS); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  found=$$python; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  echo "Making $(VENV) with $$("$$python" --version)."; \
	  "$$python" -m venv $(VENV) && exit 0; \
	  rm -rf $(VENV); \
	done; \
	if [ -n "$$found" ]; then \
	  echo "$$found cannot make virtual environments: install the venv module (on Debian and Ubuntu the package python3-venv), then run make again." >&2; \
	else \
	  echo "mobjrec needs Python 3.11 or newer; none of these is one: $(PYTHONS). Install it, or run make PYTHON=/path/to/python." >&2; \
	fi; exit 1

$(VENV)/ready: pyproject.toml setup.py | $(VENV)/bin/python
	@echo "Installing mobjrec and what it needs into $(VENV): one to three minutes and 1.2 GB, once."
	@$(PIP) -e .
	@touch $@

$(VENV)/ready-dev: pyproject.toml setup.py | $(VENV)/bin/python
	@echo "Installing mobjrec, what it needs and the test tools into $(VENV): one to three minutes and 1.2 GB, once."
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/ready
