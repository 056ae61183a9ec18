# make demo | test | test-fast | lint | format. The environment is made on the first call.
PYTHON ?= python3.11
VENV ?= .venv
DEMO_OUT ?= gmmas-demo
# Two workers keep two cores busy: a good part of the tests is tracing and compiling on one thread.
TEST_ARGS ?= -n 2 --dist loadfile

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Modules are compiled when first imported: all of them at once takes half a minute. They must be
# kept then: without, each process that a test starts spends a quarter of a minute compiling TensorFlow.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := install -q --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.runtime  ## Synthetic patients -> training -> evaluation -> report, on this machine
	$(BIN)/gmmas demo --out $(DEMO_OUT)

test: $(VENV)/.dev  ## The whole test suite
	$(BIN)/python -m pytest $(TEST_ARGS)

test-fast: $(VENV)/.dev  ## The tests but the slow ones and those that start processes
	$(BIN)/python -m pytest $(TEST_ARGS) -m "not slow and not multiprocess"

lint: $(VENV)/.dev  ## Formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## Format in place and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# The stamps are empty files: what is installed is redone when the dependencies change.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is not. Name one: make PYTHON=/path/to/python"; \
	  exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.runtime: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) $(INSTALL) hatchling editables setuptools wheel
	$(PIP) $(INSTALL) --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) $(INSTALL) --no-build-isolation -e '.[dev]'
	touch $@
