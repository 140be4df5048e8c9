# make study | test | ui | check, each with all the set-up it needs; make help lists them.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

# Programs that the packages bring and call by name (ninja for DeepSpeed) come with them.
BIN     = $(if $(filter /%,$(VENV)),$(VENV),$(CURDIR)/$(VENV))/bin
RUN     = PATH="$(BIN):$$PATH" "$(BIN)/python"
STAMP   = $(VENV)/.installed
TESTS   = $(VENV)/.installed-for-tests
OLDEST  = $(VENV)/oldest

CONSTRAINTS ?= constraints.txt

.DEFAULT_GOAL := help
.PHONY: help study test test-oldest ui check audit constraints clean

study: $(STAMP) ## run the study: does tuning only LayerNorm match LoRA? (ARGS="--seed 1")
	@$(RUN) -m study.launch --space layernorm_vs_lora $(ARGS)

# One test process a core, each with one thread: the rest would fight over cores. A file's tests stay
# together, since they share studies; tests/conftest.py says in which order files go.
test: $(TESTS) ## run the tests (ARGS='-m "not by_hand"': the slow ones too, as CI does)
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 \
	  --dist loadfile --no-loadscope-reorder -m "not (slow or by_hand)" $(ARGS)

# In an environment of its own, of 7 GB where torch brings CUDA's libraries with it. With torch 2.6,
# importing bitsandbytes starts processes that would compile for it: none are needed.
test-oldest: $(OLDEST)/constraints.txt ## run the quick tests with the oldest packages that are allowed
	@TORCHINDUCTOR_COMPILE_THREADS=1 $(MAKE) --no-print-directory test VENV=$(OLDEST) CONSTRAINTS=$< \
	  ARGS='-m "not (long or slow or by_hand)" tests/trainables tests/study $(ARGS)'

ui: $(STAMP) ## open MLflow on the studies
	@$(RUN) -m study.ui $(ARGS)

check: $(STAMP) ## style, security rules, types and which code imports which
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m mypy
	$(RUN) -m pytest -q tests/test_doors.py

audit: ## look up the pinned packages in a database of vulnerabilities (pip-audit; needs the web)
	@$(PYTHON) -m venv --clear $(VENV)/audit
	@$(VENV)/audit/bin/pip install -qq --disable-pip-version-check "pip-audit>=2.10"
	@$(VENV)/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off \
	  --format json --output $(VENV)/audit/report.json >/dev/null 2>&1 || true
	@$(PYTHON) infra/docker/audit.py $(VENV)/audit/report.json

constraints: $(TESTS) ## write the versions that are installed now to constraints.txt
	@{ sed -n '/^#/p' constraints.txt; \
	   $(RUN) -m pip freeze --all --exclude-editable --exclude pip --exclude wheel \
	   | sed 's/+[a-z0-9.]*$$//' | sort -f; } > constraints.new
	@mv constraints.new constraints.txt && touch $(STAMP) $(TESTS)

clean: ## remove caches and builds; .venv and studies stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find study trainables search_spaces tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# pip compiles what it installs file by file, on one core and tests included: half of its time.
# Left uncompiled, every process would compile anew wherever PYTHONDONTWRITEBYTECODE is set.
# So it is done here, on all cores. (Some packages ship files that are no Python: -qq, ||.)
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is not Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; \
	  exit 2; } >&2
	@echo "installing into $(VENV) (once; two to four minutes) ..."
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install -qq --disable-pip-version-check --no-compile \
	  -c $(CONSTRAINTS) -e ".[dev]"
	@$(RUN) -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@touch $@

$(OLDEST)/constraints.txt: constraints-oldest.txt constraints.txt
	@mkdir -p $(@D)
	@awk -F '==' 'NR == FNR { oldest[$$1]; print; next } !($$1 in oldest)' $^ > $@

# What only tests need: those of infra/, and of a base in four bits. What Ray wants to take jobs lies
# apart: every Ray that finds it takes two processor seconds more to start (6 instead of 4) and 120 MiB.
$(TESTS): $(STAMP) infra/docker/cluster.txt
	@$(RUN) -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e ".[dev,infra,bits]"
	@rm -rf $(VENV)/cluster
	@$(RUN) -m pip install -qq --disable-pip-version-check --no-deps --target $(VENV)/cluster \
	  -r infra/docker/cluster.txt
	@touch $@
