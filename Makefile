# Every target makes its own environment in $(VENV) and installs what it needs from the package index.
#   make demo    the whole chain on a simulated head → demo/
#   make test    the tests
#   make lint    ruff and mypy
#   make docs    the site → docs/_build/html/index.html
#   make bench   speed, accuracy and peers → bench/RESULTS.md
# Settings: PYTHON=python3.12 (3.11 or newer), VENV=.venv, TORCH=torch==2.13.0, OUT=demo, WORKERS=2

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
OUT ?= demo
WORKERS ?= 2

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off

.PHONY: demo test lint examples docs bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(BIN)/k2chi demo $(OUT)

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each example is a script that checks its own claims with assert.
examples: $(VENV)/.ready-test
	@set -e; for script in examples/*.py; do \
		echo "$$script"; MPLBACKEND=Agg $(BIN)/python -W error::UserWarning "$$script"; \
	done

docs: $(VENV)/.ready-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(VENV)/.ready-bench
	$(BIN)/python bench/speed.py --write
	$(BIN)/python bench/accuracy.py --write
	$(BIN)/python bench/peers.py --write

clean:
	rm -rf docs/_build build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The environment. pip appears only when it was made whole; a stamp is newer than pyproject.toml once
# everything that it names is installed.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "k2chi needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# torch first and pinned, so that nothing after it chooses another build.
$(VENV)/.ready: pyproject.toml | $(VENV)/bin/pip
	@echo "installing k2chi into $(VENV) (a few minutes the first time)"
	@$(PIP) "$(TORCH)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.ready-%: $(VENV)/.ready pyproject.toml
	@$(PIP) "$(TORCH)" -e ".[$*]"
	@touch $@
