# Everything a person or CI types. It needs Linux, Python 3.11, make, a network, and 2.3 GB of disk with a CPU build of torch.
#
#   TORCH      the torch build, as a pip requirement; the default is the one the tests run with
#   PIP_FLAGS  further pip options
#   ROWS       of `make mutants`: only these rows of docs/correctness.md, as 13,14
#
# A plain `torch` brings CUDA (gigabytes); for another build name it, and its index in PIP_FLAGS.

PYTHON ?= python3.11
TORCH ?= torch==2.13.0
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL = -m pip install --disable-pip-version-check --progress-bar off $(PIP_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help env quickstart test test-slurm test-browser lint format docs reference mutants pocket smollm2 constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## Make .venv with every extra, at the pinned versions

# torch goes first, so that nothing else can choose its build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	sed '/^torch==/d' constraints.txt > $(VENV)/constraints.txt
	echo '$(TORCH)' >> $(VENV)/constraints.txt
	$(BIN)/python $(PIP_INSTALL) --constraint $(VENV)/constraints.txt '$(TORCH)'
	$(BIN)/python $(PIP_INSTALL) --constraint $(VENV)/constraints.txt --editable '.[all]'
	touch $@

quickstart: env ## Train the pocket team on the Factbook and show what it learned (minutes on 2 cores)
	$(BIN)/mgrpo fit --config configs/quickstart.yaml

test: env ## Run the tests, without slow ones and those of SLURM, GlusterFS and the browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slurm: env ## With MGRPO_TEST_SLURM=1: run roles on a real SLURM of two nodes (Debian, as root)
	$(BIN)/python -m pytest tests/cluster

test-browser: env ## With MGRPO_TEST_BROWSER=1: the viewer in a headless Chromium (Debian, as root where it is missing)
	$(BIN)/python $(PIP_INSTALL) --constraint $(VENV)/constraints.txt playwright==1.65.2
	MGRPO_SCREENSHOTS=$${MGRPO_SCREENSHOTS:-build/screenshots} $(BIN)/python -m pytest tests/viewer/test_browser.py

lint: env ## Check style, spelling, types and the order of rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

format: env ## Apply ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env ## Build the documentation site, strictly, into build/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs

reference: env ## Write the tables of docs/team_file.md from the code
	$(BIN)/python docs/team_file_reference.py

mutants: env ## Put each known bug back into a copy and require its test to fail
	$(BIN)/python tests/mutants/run.py --jobs 2 $(if $(ROWS),--rows $(ROWS))

pocket: env ## Build the embedded model and its adapters from nothing but the world (half an hour on 2 cores)
	$(BIN)/python -m benchmarks.pocket.build
	$(BIN)/mgrpo fit --config configs/quickstart.yaml --config configs/warm_start.yaml \
	  --config configs/pocket/imperfect.yaml --run.name pocket
	rm -rf mgrpo_lightning/pocket/adapters
	cp -r runs/pocket/adapters mgrpo_lightning/pocket/adapters

smollm2: env ## Train SmolLM2-135M on the Factbook, one seed after the other, resumable (hours on 2 cores)
	$(BIN)/python -m benchmarks.paper.smollm2_model
	$(BIN)/python -m benchmarks.paper.smollm2 --seeds 0 1

constraints: ## Resolve anew in a scratch environment and rewrite constraints.txt
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/python $(PIP_INSTALL) '$(TORCH)'
	echo '$(TORCH)' > build/constraints/torch.txt
	build/constraints/bin/python $(PIP_INSTALL) --constraint build/constraints/torch.txt '.[all]'
	{ sed -n '/^#/p' constraints.txt; \
	  build/constraints/bin/python -m pip freeze --all --exclude mgrpo-lightning --exclude pip \
	  | sed 's/^\(torch==[^+]*\)+.*/\1/'; } > build/constraints/pins.txt
	mv build/constraints/pins.txt constraints.txt

clean: ## Remove the environment, builds and caches (never runs/)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
