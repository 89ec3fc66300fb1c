# Needs make and Python 3.11 or later, nothing else: `make demo` and `make test` set up .venv from the lock files.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Stamp files say up to where the environment is set up.
INSTALLED := $(VENV)/.installed
TEST_TOOLS := $(VENV)/.test-tools

SGLANG_VENV := $(VENV)-sglang
SGLANG := $(SGLANG_VENV)/.installed
ROUTER_VENV := $(VENV)-sglang-router

LOCK := $(VENV)-lock/bin
LOCK_NOTE := \# Exact versions, written by make lock.
NOT_LOCKED := --all --exclude pip --exclude wheel --exclude simroute

.DEFAULT_GOAL := help
.PHONY: help demo test test-sglang lint format validate policies-compared router-shares bench profiles lengths docs lock clean

help: ## List what can be made.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(INSTALLED) ## Compare routing policies on a simulated fleet: tables here, a run folder in results/.
	$(BIN)/simroute sim --scenario quickstart

test: lint ## Lint, then run all tests.
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-sglang: $(TEST_TOOLS) $(SGLANG) ## Run the tests against a real SGLang 0.5.23 on the CPU; installs it first, 3 GB.
	SIMROUTE_SGLANG=$(CURDIR)/$(SGLANG_VENV) $(BIN)/python -m pytest -m sglang tests/sglang

lint: $(TEST_TOOLS) ## Check style, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(TEST_TOOLS) ## Format the code and apply the linter's safe fixes.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

validate: $(INSTALLED) $(SGLANG) ## Hold the simulator against four real SGLang servers on the CPU; installs SGLang first, about 40 min.
	$(BIN)/python benchmarks/sglang/validate.py --sglang $(SGLANG_VENV)

bench: $(INSTALLED) ## Measure the simulator's speed and memory, and what a policy's decision costs.
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/decision_cost.py

policies-compared: $(INSTALLED) ## Compare all policies on five scenarios, for results/policies; needs SIMROUTE_DATA, 25 min.
	$(BIN)/python benchmarks/comparison/run.py

router-shares: $(INSTALLED) ## Compare shares with sglang-router 0.3.2, for results/sglang-router-shares; installs it, 25 min.
	$(PYTHON) -m venv $(ROUTER_VENV)
	$(ROUTER_VENV)/bin/pip install --quiet sglang-router==0.3.2
	$(BIN)/python benchmarks/router/shares.py --sglang-router $(ROUTER_VENV)/bin/python

profiles: $(INSTALLED) ## Fit the bundled profiles anew; needs SIMROUTE_DATA.
	$(BIN)/python -m calibrate.grid --data "$${SIMROUTE_DATA:?set it to the folder that holds profiles/}"

lengths: $(INSTALLED) ## Derive the bundled length tables anew; needs SIMROUTE_DATA.
	$(BIN)/python -m simcore.workload.derive_lengths

docs: $(INSTALLED) ## Write the generated parts of README.md and docs/ anew.
	$(BIN)/python docs/generate.py

lock: ## Write the lock files anew from pyproject.toml; with Python 3.11, the oldest that is supported.
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(LOCK)/pip install --quiet "setuptools>=77" .
	{ echo "$(LOCK_NOTE)"; $(LOCK)/pip freeze $(NOT_LOCKED); } > requirements.lock
	$(LOCK)/pip install --quiet ".[test]"
	{ echo "$(LOCK_NOTE)"; $(LOCK)/pip freeze $(NOT_LOCKED); } > requirements-test.lock
	rm -rf $(VENV)-lock

clean: ## Remove the environment, caches and build outputs; results/ stays.
	rm -rf $(VENV) $(SGLANG_VENV) $(ROUTER_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable, so that edits take effect at once. setuptools comes from the lock as well, hence no build isolation.
$(INSTALLED): pyproject.toml requirements.lock requirements-test.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "simroute needs Python 3.11 or later; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(TEST_TOOLS): $(INSTALLED)
	$(PIP) install -r requirements-test.lock
	@touch $@

$(SGLANG): $(wildcard tests/sglang/*.sh tests/sglang/*.txt tests/sglang/make_model.py tests/sglang/patch_torchvision.py)
	PYTHON=$(PYTHON) tests/sglang/install.sh $(SGLANG_VENV)
	@touch $@
