# Everything a newcomer needs: `make demo`, `make test`. Both make .venv when it is missing.
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The interpreter that makes .venv: the first of these that runs and is Python 3.11 to 3.13. Give
# another with `make PYTHON=/path/to/python3.12 env`.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c '$(SUPPORTED)' 2>/dev/null && command -v $$p && break; done)

# CPU=1, for machines without a GPU: PyTorch's own CPU build (PyPI's brings CUDA), and no Triton,
# which openai-whisper asks for and uses on GPUs alone.
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: help demo test check lab env clean

help:
	@echo "make demo    every notebook on a small generated data set (no downloads after the install)"
	@echo "make test    all tests"
	@echo "make check   ruff and mypy"
	@echo "make lab     JupyterLab on the notebooks"
	@echo "make env     only make .venv and install, pinned by constraints.txt"
	@echo "             (without a GPU: make env CPU=1, which leaves out 5 GB of CUDA)"
	@echo "make clean   remove outputs of the demo"

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || \
	  { echo "no Python 3.11, 3.12 or 3.13 found: install one, or give PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c '$(SUPPORTED)' || \
	  { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: give another with PYTHON="; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(if $(CPU),$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps \
	  torch torchvision -c constraints.txt --index-url $(TORCH_CPU))
	$(BIN)/python -m pip install --disable-pip-version-check -q \
	  -e '.[train,ray,lab,dev]' -c constraints.txt
	$(if $(CPU),$(BIN)/python -m pip uninstall -q -y triton)
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
