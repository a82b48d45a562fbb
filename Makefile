# Each target does all its own set-up: a virtual environment in the checkout, what is needed from pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test check test-all format clean
help:
	@echo "make demo      one aiohttp session per event loop, over several loops and threads, before your eyes"
	@echo "make test      the whole test suite, typing tests included"
	@echo "make check     lint, format, strict types, packaging"
	@echo "make test-all  the suite on each of Python 3.11, 3.12 and 3.13 that is found here"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

test: $(VENV)/installed
	$(BIN)/python -m pytest

check: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m pytest --quiet typing_tests/test_checkers.py
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

test-all:
	sh .ci/each-python $(MAKE) test

format: $(VENV)/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .venv-* dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
