# Every target does its own set-up. Try `make help`.
PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
BNPY_VENV := .venv-bnpy
PY := $(VENV)/bin/python
BENCH_PY := $(BENCH_VENV)/bin/python
TORCH_VERSION := 2.13.0
TORCH ?= auto# auto | cpu | gpu
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
WHEELS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
MEMBERS := $(wildcard shared/*) $(wildcard packages/*)
ARGS ?=
export UV_PYTHON_DOWNLOADS ?= never
export UV_SYSTEM_CERTS ?= 1
# Small nets are slower on several threads, and much slower on cores that others use.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup test faults lint learn bench micro dist lock lock-check clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A file's tests stay in one process: some of them share what is costly to build. Files are taken in their order, so that
# tests/, where a single test may take minutes, comes first and not when there is nothing left to do beside it.
test: $(VENV)/.stamp ## Set up, then run every test, in two processes
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/.stamp $(BENCH_VENV)/.stamp ## Set up, then train the methods beside their peers and write a report
	$(PY) -m benchmarks $(ARGS)

micro: $(BENCH_VENV)/.stamp $(BNPY_VENV)/.stamp ## Set up, then time our parts against the peers', in turns
	$(BENCH_PY) -m benchmarks.micro $(ARGS)

learn: $(VENV)/.stamp ## Set up, then re-measure mpn's learning claims (6 minutes); prismatic's: ARGS='--tier prismatic' (hours)
	$(PY) -m benchmarks --tier learn $(ARGS)

faults: $(VENV)/.stamp ## Set up, then the crash tests at full count (hours)
	QUINTET_KILLS=200 QUINTET_SIGNALS=50 QUINTET_LONG_STEPS=1000000 QUINTET_LONG_UPDATES=100000 \
		$(PY) -m pytest --timeout 14400 tests/test_faults.py $(ARGS)

lint: $(VENV)/.stamp ## Set up, then style, types and layering
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy shared/*/src packages/*/src
	$(VENV)/bin/lint-imports

setup: $(VENV)/.stamp ## Only set up: .venv with all packages, editable
	@echo "Ready: source $(VENV)/bin/activate"

dist: $(VENV)/.stamp ## Build a wheel of each package into dist/
	$(UV) build --quiet --all-packages --wheel --out-dir dist
	@ls dist/*.whl

lock: | $(UV) ## Resolve again and write locks/*.txt
	$(UV) lock
	@$(MAKE) --no-print-directory export-locks DIR=locks

lock-check: | $(UV) ## Resolve from nothing and compare with locks/
	rm -f uv.lock && $(UV) lock
	@mkdir -p .tools/locks && $(MAKE) --no-print-directory export-locks DIR=.tools/locks
	diff -r locks .tools/locks && echo "locks/ is what pyproject.toml resolves to"

clean: ## Remove environments, caches and build products (never your runs)
	rm -rf $(VENV) $(BENCH_VENV) $(BNPY_VENV) .tools dist build uv.lock .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- locks ----------------------------------------------------------------------------------------------------------
# torch and the GPU libraries it drags in are in a file of their own: a CPU-only wheel may stand in for all of them.
GPU_STACK = $$($(UV) export --frozen --all-packages --no-default-groups --no-hashes --no-header --no-annotate \
	--no-emit-workspace | sed -n 's/^\(torch\|triton\|nvidia-[a-z0-9-]*\|cuda-[a-z0-9-]*\)==.*/\1/p')
EXPORT = $(UV) export --quiet --frozen --all-packages --no-header --no-annotate --no-emit-workspace
.PHONY: export-locks
export-locks:
	@stack="$(GPU_STACK)"; cut=$$(printf -- '--no-emit-package %s ' $$stack); \
	$(EXPORT) --no-default-groups $$cut > $(DIR)/base.txt; \
	$(EXPORT) --extra render --extra tb --extra video --extra dmc --extra robotics --extra metaworld $$cut > $(DIR)/dev.txt; \
	$(EXPORT) --extra render --extra tb --extra video --extra dmc --extra robotics --extra metaworld --group bench $$cut > $(DIR)/bench.txt; \
	$(EXPORT) --only-group bnpy > $(DIR)/bnpy.txt; \
	$(EXPORT) --all-extras $$cut > $(DIR)/full.txt; \
	pattern=$$(printf '%s|' $$stack | sed 's/|$$//'); \
	$(EXPORT) --no-default-groups | awk -v p="^($$pattern)==" '/^[a-z]/ {keep = ($$0 ~ p)} keep' > $(DIR)/torch.txt
	@wc -l $(DIR)/*.txt | tail -1

# --- environments ---------------------------------------------------------------------------------------------------
.tools/bin/uv:
	@echo "No uv on the path: fetching it into .tools/"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools 'uv>=0.13,<0.14'

.PHONY: python-is-new-enough
python-is-new-enough:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	sys.exit(None if (3, 11) <= v < (3, 14) else "Quintet needs Python 3.11 to 3.13, $(PYTHON) is %d.%d: run make PYTHON=python3.11 ..." % v)'

# A stamp depends on locks and project files; the environment is made anew, never patched: changing versions in place
# can leave parts of the old ones behind (mujoco 4 -> 3.3 does, and then no longer imports).
define make_venv
	@echo "Setting up $(1) from locks/$(2).txt (once; a minute or two on a slow line)"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(1)
	@$(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python --no-deps --require-hashes -r locks/$(2).txt
	@if [ "$(TORCH)" != gpu ] && [ -n "$(WHEELS)" ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
	  $(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python --no-deps --no-index --find-links "$(WHEELS)" 'torch==$(TORCH_VERSION)' 2>/dev/null; \
	then echo "torch $(TORCH_VERSION): the CPU wheel from your wheel folder"; \
	else echo "torch $(TORCH_VERSION): the locked build"; \
	  $(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python --no-deps --require-hashes -r locks/torch.txt; fi
	@$(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python --no-deps $(addprefix -e ./,$(MEMBERS))
	@touch $(1)/.stamp
endef

PROJECT_FILES := pyproject.toml $(MEMBERS:=/pyproject.toml)

$(VENV)/.stamp: locks/dev.txt locks/torch.txt $(PROJECT_FILES) | python-is-new-enough $(UV)
	$(call make_venv,$(VENV),dev)

$(BENCH_VENV)/.stamp: locks/bench.txt locks/torch.txt $(PROJECT_FILES) | python-is-new-enough $(UV)
	$(call make_venv,$(BENCH_VENV),bench)

# Built from source: without a C compiler, or on Python 3.12 and newer, the comparisons with bnpy say so and are left out.
$(BNPY_VENV)/.stamp: locks/bnpy.txt | python-is-new-enough $(UV)
	@echo "Setting up $(BNPY_VENV): a peer that is built from source (a minute)"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(BNPY_VENV)
	@$(UV) pip install --quiet --compile-bytecode --python $(BNPY_VENV)/bin/python --no-deps --require-hashes -r locks/bnpy.txt \
	  || echo "bnpy could not be built here: its comparisons will be left out"
	@touch $@
