# `make demo` and `make test` need Python 3.10 to 3.13 with venv, and nothing else.
# uv is used where it is found, pip otherwise. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(shell command -v uv 2>/dev/null)
# The number of test processes: most of the time is Python's, TensorFlow's tracing above all.
WORKERS ?= 2
# Set to have Chromium installed by apt for the tests of the report page (needs root).
BROWSER ?=

.PHONY: help setup demo docs test test-slow test-all lint clean

help:
	@echo "make demo       train, attack, export and query a hardened model on embedded data"
	@echo "make docs       build the documentation into site/; a broken link is an error"
	@echo "make test       lint, types, import rules, doctests and the default tests"
	@echo "make test-slow  the tests that take minutes: kills, properties, fuzzing, a soak, the demo"
	@echo "make test-all   both"
	@echo "make clean      remove the environment and what the demo wrote"

setup: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else "keras_robust needs Python 3.10 to 3.13; $(PYTHON) is %d.%d. Choose one with: make PYTHON=python3.12" % v)'
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[test]'
else
	$(PYTHON) -m venv $(VENV)
# The pip of Python 3.10 does not find a set of versions; a new one takes a minute.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
endif
	@touch $@

demo: setup
	$(BIN)/python -m trainers.demo --output_dir=runs/demo

# Reads the package without importing it. The variable silences an advertisement of the theme.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# A file stays in one process: its tests share trained models and traces.
test: lint
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --doctest-modules tests keras_robust trainers serving -m "not slow" --ignore=tests/serving/server
# Servers under load need the processors for themselves.
	$(BIN)/python -m pytest tests/serving/server -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest tests -m slow

test-all: test test-slow

clean:
	rm -rf $(VENV) runs/demo site
