# make demo   train and evaluate a small detector on drawn shapes
# make test   run the whole test suite
# make env    only create the environment both of them use
# make lint   ruff and mypy, as CI runs them
#
# VENV=DIR     where the environment lies (default .venv); VENV= uses the
#              active environment as it is
# PYTHON=EXE   the Python >= 3.10 to use (default python3)

PYTHON ?= python3
VENV ?= .venv
ifeq ($(VENV),)
PY := $(PYTHON)
else
PY := $(VENV)/bin/python
endif
INSTALLED := $(VENV)/.mmmamba-installed

.PHONY: demo test env lint
.DEFAULT_GOAL := demo

demo: env
	$(PY) tools/demo.py

test: env
	$(PY) -m pytest

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

ifeq ($(VENV),)
env:
	@bash tools/setup_env.sh "$(PYTHON)" ""
else
env: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py tools/setup_env.sh
	@bash tools/setup_env.sh "$(PYTHON)" "$(VENV)"
	@touch $@
endif
