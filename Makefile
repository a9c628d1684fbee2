# Everything a newcomer needs: `make demo`, `make test`. Both make .venv when it is missing.
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The interpreter that makes .venv; give another with `make PYTHON=/path/to/python3.11 demo`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)

.PHONY: help demo test check lab env clean

help:
	@echo "make demo    every notebook on a small generated data set (no downloads after the install)"
	@echo "make test    all tests"
	@echo "make check   ruff and mypy"
	@echo "make lab     JupyterLab on the notebooks"
	@echo "make env     only make .venv and install, pinned by constraints.txt"
	@echo "make clean   remove outputs of the demo"

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3.11 found: install it or give PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11: give PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q \
	  -e '.[train,ray,lab,dev]' -c constraints.txt
	touch $(STAMP)

env: $(STAMP)

demo: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m emolib run demo --jobs 2

test: $(STAMP)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf outputs/demo
