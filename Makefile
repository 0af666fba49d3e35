# make demo       train and evaluate a small detector on drawn shapes
# make test       run the whole test suite
# make test-fast  run what takes under a minute: no compiler, no other process
# make env        only create the environment all of them use
# make lint       ruff, mypy and clang-format, as CI runs them
# make gpu-check  prove and measure the CUDA path, with the Python of VENV, or
#                 with VENV= the active one; ARGS='--minutes 15' and the like
#
# JOBS=N       the processes that tests are shared by (default 2)
# VENV=DIR     where the environment lies (default .venv); VENV= uses the
#              active environment as it is
# PYTHON=EXE   the Python >= 3.10 to use (default python3)
# TORCH=X.Y.Z  the PyTorch of a new environment (default 2.13.0)
# STACK=NAME   onedl, or openmmlab for the classic packages (default onedl)

PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
STACK ?= onedl
ifeq ($(VENV),)
PY := $(PYTHON)
else
PY := $(VENV)/bin/python
endif
JOBS ?= 2
# A file's tests stay together, since they share what is slow to make.
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/.mmmamba-$(STACK)-$(TORCH)

.PHONY: demo test test-fast env lint gpu-check
.DEFAULT_GOAL := demo

demo: env
	$(PY) tools/demo.py

test: env
	$(PYTEST)

test-fast: env
	$(PYTEST) -m 'not slow and not compiler'

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	git ls-files '*.cpp' '*.hpp' '*.h' '*.cu' '*.cuh' | \
		xargs $(PY) -c 'from clang_format import *; clang_format()' \
		--dry-run -Werror

gpu-check:
	$(PY) tools/dev/gpu_check.py $(ARGS)

ifeq ($(VENV),)
env:
	@bash tools/setup_env.sh "$(PYTHON)" ""
else
env: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py tools/setup_env.sh
	@rm -f $(VENV)/.mmmamba-*
	@bash tools/setup_env.sh "$(PYTHON)" "$(VENV)" "$(TORCH)" "$(STACK)"
	@touch $@
endif
