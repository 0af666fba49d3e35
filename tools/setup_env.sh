#!/usr/bin/env bash
# Usage: tools/setup_env.sh PYTHON VENV [TORCH] [STACK]
# Creates VENV with PYTHON and installs PyTorch TORCH (default 2.13.0), a stack
# (onedl, the current one, or openmmlab, the classic one) and mmmamba into it;
# with an empty VENV only checks the environment of PYTHON. Safe to repeat
# after an interruption: what is there is kept.
set -euo pipefail
PYTHON=$1
VENV=$2
TORCH=${3:-2.13.0}
STACK=${4:-onedl}
cd "$(dirname "$0")/.."

say() { printf '\n==> %s\n' "$*"; }
fail() { printf '\nsetup_env.sh: error: %s\n' "$*" >&2; exit 1; }
run() { "$PY" -m pip install --disable-pip-version-check --quiet "$@"; }

# The ops are used, not just imported: a wheel built against another torch, or
# for another GPU, imports mmcv and fails here.
USE_MMCV="
import torch
from mmcv.ops import nms
device = 'cuda' if torch.cuda.is_available() else 'cpu'
boxes = torch.tensor([[0., 0., 2., 2.]], device=device)
nms(boxes, torch.tensor([.5], device=device), .5)
"
mmcv_works() { "$PY" -c "$USE_MMCV" 2>/dev/null; }

check() {
    "$PY" -c "$USE_MMCV
import mmcv, mmdet, mmseg, mmmamba
from mmmamba.ops import describe_backends
print(f'OK: mmcv {mmcv.__version__} with its ops and mmmamba '
      f'{mmmamba.__version__} import (torch {torch.__version__}, {device})')
print(f'Selective scan: {describe_backends()[device]}')
"
}

if [ -z "$VENV" ]; then
    PY=$PYTHON
    check || fail "the active environment ($(command -v "$PYTHON")) lacks the
stack. Install it as README.md says, or leave VENV unset to get a new one."
    exit 0
fi

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$PYTHON is $("$PYTHON" --version 2>&1); Python >= 3.10 is needed.
Name another one: make PYTHON=python3.11"

case $STACK in
    onedl)
        MMCV=onedl-mmcv==2.3.6 MMPRETRAIN=onedl-mmpretrain==1.3.6
        EXTRAS=onedl,test,dev OTHER=mmengine
        ;;
    openmmlab)
        MMCV=mmcv==2.1.0 MMPRETRAIN=mmpretrain==1.2.0
        EXTRAS=openmmlab,test OTHER=onedl-mmengine
        ;;
    *) fail "STACK=$STACK is unknown: onedl or openmmlab" ;;
esac
# ExecuTorch is built for one PyTorch.
case $STACK-$TORCH in onedl-2.13.*) EXTRAS+=,mobile ;; esac
# PyTorch before 2.3 is built for NumPy 1.
case $TORCH in 2.[12].*) NUMPY='numpy<2' ;; *) NUMPY='numpy' ;; esac

say "Environment in $VENV"
PY=$VENV/bin/python
if [ ! -x "$PY" ] || ! "$PY" -m pip --version >/dev/null 2>&1; then
    "$PYTHON" -m venv --clear "$VENV" ||
        fail "$PYTHON cannot create environments. On Debian and Ubuntu:
apt-get install python3-venv"
fi
# Both stacks have the same import names.
if "$PY" -m pip show --quiet "$OTHER" 2>/dev/null; then
    fail "$VENV holds the other stack ($OTHER). Name another folder:
make env VENV=DIR STACK=$STACK"
fi
# setuptools 81 dropped pkg_resources, which building mmcv needs.
run --upgrade pip 'setuptools>=77,<81' wheel ninja

say "PyTorch $TORCH (a few GB where it is not in pip's cache)"
# Three equals signs: '==' would prefer a '+cpu' build from a find-links
# folder, which torchvision from the registry does not load with.
run "torch===$TORCH" torchvision "$NUMPY"
"$PY" -c 'import torchvision' ||
    fail 'torchvision does not load with this torch'

# A ready wheel, if pip finds one (PIP_FIND_LINKS).
mmcv_works || run --only-binary :all: "$MMCV" 2>/dev/null || :
if ! mmcv_works; then
    command -v "${CXX:-c++}" >/dev/null ||
        fail 'mmcv is built from source and needs a C++ compiler, for example
apt-get install g++'
    say 'mmcv: built from source, five minutes on two cores; kept for the next
    environment'
    wheel=$("$PY" tools/dev/build_mmcv.py --package "$MMCV") || fail 'mmcv was not built'
    run --force-reinstall --no-deps "$wheel"
    run "$wheel"
    mmcv_works || fail "mmcv's ops do not work. Remove $(dirname "$wheel") and try again"
fi

say 'OpenVINO, which the ops for it are built against'
run 'openvino>=2025.0'

say 'mmdet, mmsegmentation, mmpretrain, and mmmamba with its compiled ops'
run --no-build-isolation -e ".[$EXTRAS]" "$MMPRETRAIN" "$NUMPY"
if ! "$PY" -c 'import cv2' 2>/dev/null; then
    say 'No graphics libraries here: taking the headless OpenCV'
    version=$("$PY" -m pip show opencv-python-headless |
        sed -n 's/^Version: //p' || :)
    "$PY" -m pip uninstall --yes --quiet opencv-python
    run --force-reinstall --no-deps \
        "opencv-python-headless${version:+==$version}"
fi

say 'Check'
check || fail 'the check failed; remove the environment and try again'
