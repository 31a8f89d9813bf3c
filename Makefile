# `make` lists what there is. Every target works in a fresh clone: what it needs, it makes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKSPACE ?= demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

PIP_TOOLS := pip-tools==7.6.2
# Everything that pyproject.toml names but the `gpu` extra, whose packages need a CUDA toolchain.
LOCK_EXTRAS := --extra azure --extra dev --extra keyring --extra notebooks --extra postgres
# PyTorch decides which build an install is (CPU or CUDA), so it is pinned by hand.
LOCK_TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help setup demo app test check quick lint format docs pages notebooks screenshots lock bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv from requirements.lock (PYTHON=python3.12 picks the interpreter)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "opadpo needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Name another one: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# Compiling every module takes as long as unpacking them all; Python compiles those that are used.
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## the whole method on the toy world, in minutes (WORKSPACE=demo)
	$(BIN)/opadpo demo --workspace $(WORKSPACE)

app: setup ## open the app on a workspace (WORKSPACE=demo)
	$(BIN)/opadpo app $(WORKSPACE)

test: setup ## every test
	$(BIN)/python -m pytest

check: setup ## lint, types and the quick tests, side by side: before every commit
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint quick

quick: setup ## the quick tests
	$(BIN)/python -m pytest -p no:nbmake -m "not slow and not browser"

lint: setup ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: pages ## build the site into site/, with every link checked; then open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

pages: setup ## write the pages that are made from the code (docs/recipes.md, parts of docs/reviewing.md, jobs.md, comparing.md)
	$(BIN)/python -m opadpo.recipe.docs > docs/recipes.md.new
	mv docs/recipes.md.new docs/recipes.md
	$(BIN)/python -m app.docs

notebooks: setup ## run every notebook and keep it with its outputs
	$(BIN)/python tests/run_notebooks.py

screenshots: setup ## take the pictures of the app in docs/images (needs Chromium)
	$(BIN)/python tests/screenshots.py

lock: ## make requirements.lock from pyproject.toml again; UPGRADE=1 takes the newest versions
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet $(PIP_TOOLS)
	cp requirements.lock build/lock/requirements.txt 2>/dev/null || true
	build/lock/bin/pip-compile --quiet $(LOCK_EXTRAS) $(if $(UPGRADE),--upgrade) --upgrade-package $(LOCK_TORCH) \
	  --strip-extras --allow-unsafe --annotation-style line --no-header --no-emit-options \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --output-file build/lock/requirements.txt pyproject.toml
	{ echo "# Every package of the environment, pinned; \`make lock\` made this from pyproject.toml with"; \
	  echo "# $(PIP_TOOLS) on Python 3.11 and the extras azure, dev, keyring, notebooks and postgres. Do not edit."; \
	  echo "# The libraries that a CUDA build of torch asks for are left to pip: a CPU build has none."; \
	  sed -E -e '/^nvidia-ml-py==/!{/^(nvidia-|cuda-|triton==)/d}' -e 's/^([^ ]+==[^ +]+)\+[^ ]+/\1/' -e '/^(#.*)?$$/d' \
	    build/lock/requirements.txt; } > build/lock/requirements.lock
	mv build/lock/requirements.lock requirements.lock

bench: setup ## every benchmark, one after another
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## delete what can be made again, .venv and workspaces excepted
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find opadpo app tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
