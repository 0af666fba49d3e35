#!/usr/bin/env bash
# Usage: tools/dev/try_stack.sh STACK TORCH PYTHON DIR [CHECKPOINT]
# Tries a stack as a user does: sets the environment DIR/venv up (STACK onedl or
# openmmlab), runs the tests that are not slow, trains a small detector on drawn
# shapes, interrupts it, goes on, tests it and draws what it sees; with
# CHECKPOINT, a demo detector of another stack, tests that as well. Ends with a
# row for the table of docs/stacks.md.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
STACK=$1 TORCH=$2 PYTHON=$3
mkdir -p "$4"
DIR=$(cd "$4" && pwd)
CHECKPOINT=${5:+$(realpath "$5")}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
CONFIG=$ROOT/configs/demo/atss_mobilemamba_mini_shapes.py
PY=$DIR/venv/bin/python

fail() { printf 'try_stack.sh: error: %s\n' "$*" >&2; exit 1; }
minutes() { printf '%d:%02d' $((($1) / 60)) $((($1) % 60)); }
ap50() { # of the last test in a work directory
    "$PY" - "$1" <<'EOF'
import json, sys
from pathlib import Path
run = max(p for p in Path(sys.argv[1]).iterdir() if p.name[0].isdigit())
metrics = json.loads((run / f'{run.name}.json').read_text())
print(format(metrics['coco/bbox_mAP_50'], '.3f'))
EOF
}

SECONDS=0
make -C "$ROOT" env PYTHON="$PYTHON" VENV="$DIR/venv" TORCH="$TORCH" \
    STACK="$STACK"
set_up=$SECONDS

SECONDS=0
(cd "$ROOT" && "$PY" -m pytest -n 2 --dist loadfile -p no:cacheprovider \
    -m 'not slow and not all_configs') | tee "$DIR/tests.log"
tests=$(sed -n 's/^\([0-9]* passed.*\) in .*/\1/p' "$DIR/tests.log")
test_time=$SECONDS

SECONDS=0
cd "$DIR"
"$PY" "$ROOT/tools/dataset_tools/make_shapes.py" data/shapes --overwrite \
    --train 200 --val 60
train=("$ROOT/tools/train.py" "$CONFIG" --work-dir work --cfg-options
    train_dataloader.batch_size=4 train_cfg.max_epochs=3 max_epochs=3)
rm -rf work
# What a script starts in the background ignores Ctrl-C, else.
env --default-signal=INT "$PY" "${train[@]}" &
until [ -e work/epoch_1.pth ]; do
    kill -0 $! 2>/dev/null || fail 'the training ended before its first epoch'
    sleep 1
done
sleep 5
kill -INT $!
wait $! && fail 'an interrupted training must say so'
"$PY" "${train[@]}" --resume 2>&1 | tee resumed.log
grep -q 'Resume from .*epoch_1.pth' resumed.log || fail 'the training was not resumed'
"$PY" "$ROOT/tools/test.py" "$CONFIG" work/epoch_3.pth --work-dir work
trained=$(ap50 work)
"$PY" "$ROOT/tools/image_demo.py" data/shapes/val "$CONFIG" work/epoch_3.pth \
    --out-dir pictures
[ -n "$(find pictures -name '*.jpg' -o -name '*.png')" ] ||
    fail 'nothing was drawn'
train_time=$SECONDS

other=-
if [ -n "$CHECKPOINT" ]; then
    "$PY" "$ROOT/tools/test.py" "$CONFIG" "$CHECKPOINT" --work-dir other
    other=$(ap50 other)
fi
python_version=$("$PY" -c 'import platform; print(platform.python_version())')
echo "| $STACK | $TORCH | $python_version | $(minutes set_up) | $tests" \
    "($(minutes test_time)) | $trained ($(minutes train_time)) | $other |" \
    "$(date +%F) |"
