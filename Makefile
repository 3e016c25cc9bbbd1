# Everything a developer types. Needs Python 3.11 or newer and a writable folder; no root, no other software.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := config orchestration tasks parallelizer tests
FOLDER ?=
ARGS ?=
DURATION ?= 120
JOBS ?= 2
SEED ?=
export FOLDER

.DEFAULT_GOAL := help
.PHONY: help demo demo-links test test-unit test-integration test-cluster test-browser test-stress test-rabbitmq test-chaos chaos bench budget screenshots lint format lock venv clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.12 (which Python), VENV=folder (where its packages go), JOBS=2 (test files at a time), ARGS='-k name' (for pytest)"

demo: $(READY) ## Run a real workflow, live: audit a folder (FOLDER=… for your own)
	@$(BIN)/python examples/folder-audit/demo.py

demo-links: $(READY) ## Find the broken links of the installed Python manual (FOLDER=… for other HTML pages)
	@$(BIN)/python examples/link-check/demo.py

test: $(READY) ## Run unit, integration and cluster tests, and the benchmark in its smallest size
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile tests/unit tests/integration tests/cluster tests/browser tests/performance $(wildcard tests/docs) $(ARGS)

test-unit: $(READY) ## Run the tests that need no server
	@$(BIN)/python -m pytest tests/unit $(ARGS)

test-integration: $(READY) ## Run the tests that need Redis and PostgreSQL (started by themselves)
	@$(BIN)/python -m pytest tests/integration $(ARGS)

test-cluster: $(READY) ## Run the tests with real worker processes
	@$(BIN)/python -m pytest tests/cluster $(ARGS)

test-browser: $(READY) ## Run the tests of the pages in Chromium (Debian: apt-get install chromium)
	@$(BIN)/python -m pytest tests/browser -rs $(ARGS)

test-stress: $(READY) ## Run the long tests: a hundred killed processes, five hundred scenarios of limits
	@$(BIN)/python -m pytest tests/stress $(ARGS)

test-rabbitmq: $(READY) ## Run the tests with workers on RabbitMQ (BROKER_URL=amqp://…; without, on a server of its own)
	@env -u BROKER_URL TEST_BROKER_URL='$(or $(BROKER_URL),own)' $(BIN)/python -m pytest tests/cluster tests/stress/test_kills.py -rs -m 'long or not long' $(ARGS)

test-chaos: $(READY) ## Try each fault alone, with real services and workers under load (ARGS="-m long": the slow ones)
	@$(BIN)/python -m pytest tests/chaos $(ARGS)

chaos: $(READY) ## Break services and workers for DURATION seconds, then audit what was promised (SEED=… to repeat)
	@$(BIN)/python -m tests.chaos.campaign --duration $(DURATION) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(READY) ## Measure speed and memory beside plain Celery: a table, JSON and a chart (ARGS=--quick: small)
	@$(BIN)/python -m tests.performance.bench $(ARGS)

screenshots: $(READY) ## Take the pictures of the documentation anew, with Chromium
	@$(BIN)/python -m tests.browser.screenshots

budget: $(READY) ## Measure where the microseconds of an item and of a step go
	@$(BIN)/python -m tests.performance.budget $(ARGS)

lint: $(READY) ## Check style, types and the layers of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(SOURCES)
	@$(BIN)/lint-imports

format: $(READY) ## Rewrite the code in the project's style
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: ## Choose the newest allowed versions anew and write requirements.lock
	@$(PYTHON) -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install -qq --disable-pip-version-check uv
	@echo 'setuptools>=77' | $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url pyproject.toml - --output-file requirements.lock
	@rm -rf $(VENV)-lock

venv: $(READY) ## Make the virtual environment only

clean: ## Remove the virtual environment and everything made by tools; data folders stay
	@rm -rf $(VENV) $(VENV)-lock .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	@find $(SOURCES) examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew whenever the locked versions or the project's own metadata change.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "This Python has no venv module; install it (Debian and Ubuntu: apt install python3-venv) and try again." >&2; exit 1; }
	@echo "Making $(VENV) (once; about half a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --no-deps --no-build-isolation -e .
	@touch $@
