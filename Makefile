# Every target installs what it needs in .venv, from the pinned files in requirements/, and nothing
# elsewhere. A second run uses it again. PYTHON=... selects another Python than python3.

PYTHON ?= python3
# The number of test processes.
WORKERS ?= 2

VENV := .venv
VENV_WALLETS := .venv-wallets
PY := $(VENV)/bin/python
# -qq shows errors only. The targets print what they do.
PIP := $(PY) -m pip install -qq --no-input --disable-pip-version-check

# The last line of `make test` is pytest's own, so make adds none ("Leaving directory").
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
# Two targets at once would install into .venv at the same time.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test torture wallets bench docs format lock clean python

# $(call step,NAME,COMMAND): say what runs, run it, say how long it took.
define step
@printf '\n==> %s\n' '$(1)'; \
begin=$$(date +%s); \
$(2) || { printf '==> %s: FAILED\n' '$(1)'; exit 1; }; \
printf '==> %s: good, %d s\n' '$(1)' $$(($$(date +%s) - begin))
endef

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Show the library at work against the simulator on this machine
	@$(PY) -m sms4sats_async demo

# Every page is read again each time, because Sphinx reports a warning only when it reads the page. A
# warning fails the build. The build does not use the network.
SPHINX = $(PY) -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet docs docs/_build/html

# --verifytypes uses the first `python` on PATH and ignores pyproject.toml and --pythonpath.
test: $(VENV)/.dev ## Run everything that CI runs
	$(call step,ruff check,$(PY) -m ruff check)
	$(call step,ruff format --check,$(PY) -m ruff format --check)
	$(call step,import-linter,$(VENV)/bin/lint-imports --no-logo --no-cache)
	$(call step,mypy --strict,$(PY) -m mypy --strict)
	$(call step,pyright (strict),$(PY) -m pyright)
	$(call step,pyright --verifytypes,PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pyright --ignoreexternal --verifytypes sms4sats_async)
	$(call step,the documentation,$(SPHINX))
	$(call step,the built wheel: a chosen part of the tests on every other Python,$(PY) tools/wheel_test.py -n $(WORKERS))
	@printf '\n==> %s\n' 'all tests, with coverage'
	@$(PY) -m pytest -n $(WORKERS) --cov --cov-report=term-missing:skip-covered

# The output of the passed tests shows where each process was killed, and how the orders ended.
torture: $(VENV)/.dev ## Kill bots and workers 200 times, and check where the money of each order is
	@TORTURE=200 $(PY) -m pytest -n $(WORKERS) -rP tests/test_crash.py tests/test_postgres_faults.py

# LNbits needs other versions of many packages, so it has an environment of its own. Its own
# dependencies allow a bitstring that it cannot use.
wallets: $(VENV)/.dev $(VENV_WALLETS)/.made ## Pay from a real LNbits, with a stub of LND behind it
	@LNBITS_ENVIRONMENT=$(VENV_WALLETS) $(PY) -m pytest -rP -o faulthandler_timeout=180 tests/test_wallets_lnbits.py

docs: $(VENV)/.dev ## Build the documentation: docs/_build/html/index.html
	@$(PY) tools/draw_demo.py
	@$(PY) tools/draw_states.py
	@$(PY) tools/draw_sequence.py
	@$(SPHINX)
	@echo '==> docs/_build/html/index.html'

# Takes about five minutes. Other work on the machine makes the results vary more.
bench: $(VENV)/.dev ## Measure the library's time and memory compared with httpx; it fails on no figure
	@$(PY) bench/run.py

format: $(VENV)/.dev ## Format the code, and apply the safe fixes of ruff
	@$(PY) -m ruff check --fix-only
	@$(PY) -m ruff format

# uv keeps the versions that the files pin and adds only what is missing; UPGRADE=1 takes the newest.
# dev.txt is written first and constrains the others, so that all three agree.
LOCK = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) pyproject.toml

lock: $(VENV)/.dev ## Update requirements/*.txt after a change of pyproject.toml (UPGRADE=1: newest versions)
	@echo '==> requirements/dev.txt: all that make test needs'
	@$(LOCK) --extra all --group dev --output-file requirements/dev.txt
	@echo '==> requirements/test.txt: what the tests need in addition to an installed wheel'
	@$(LOCK) --extra all --group test --constraint requirements/dev.txt --output-file requirements/test.txt
	@echo '==> requirements/demo.txt: what make demo needs'
	@$(LOCK) --extra cli --extra simulator --group build --constraint requirements/dev.txt --output-file requirements/demo.txt
	@echo '==> tools/check_locks.py: whether each file names all that it needs; some minutes'
	@$(PY) tools/check_locks.py

clean: ## Remove everything that make and the tools created
	@rm -rf $(VENV) $(VENV_WALLETS) .venv-wheel build dist docs/_build htmlcov .coverage .coverage.*
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: each is written when its step succeeded, so an interrupted step runs again.

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.made
	@echo '==> Installing what the checks need (requirements/dev.txt); half a minute, once'
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --no-build-isolation --no-deps --editable .
	@touch $(VENV)/.demo $@

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(VENV)/.made
	@echo '==> Installing what the demo needs (requirements/demo.txt); some seconds, once'
	@$(PIP) --require-hashes -r requirements/demo.txt
	@$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.made: | python
	@echo '==> Creating an environment in $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV_WALLETS)/.made: | python
	@echo '==> Installing LNbits in $(VENV_WALLETS); a minute, once'
	@$(PYTHON) -m venv --clear $(VENV_WALLETS)
	@$(VENV_WALLETS)/bin/python -m pip install -qq --no-input --disable-pip-version-check 'lnbits>=1.6,<1.7' 'bitstring<5'
	@touch $@

# Runs every time (50 ms), to report a wrong Python here and not by a traceback later.
python:
	@command -v $(PYTHON) >/dev/null || { \
		echo '==> There is no $(PYTHON) here. Name a Python, 3.11 or newer: make PYTHON=/path/to/python'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "==> $(PYTHON) is $$($(PYTHON) --version 2>&1), and sms4sats-async needs 3.11 or newer."; \
		echo '==> Name another one: make PYTHON=/path/to/python'; exit 1; }
	@test ! -e $(VENV)/.made || $(PYTHON) -c 'import sys; sys.exit("/python%d.%d/" % sys.version_info[:2] not in sys.argv[1] + "/")' \
		"$$(echo $(VENV)/lib/python3*)" || { \
		echo '==> $(VENV) was created by another Python than $(PYTHON). Run make clean first.'; exit 1; }
