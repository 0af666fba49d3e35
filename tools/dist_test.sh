#!/usr/bin/env bash
# Usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [test.py options]
# Several processes on one or more machines: one a GPU or, on a machine
# without GPUs, GPUS processes on its CPUs.
# Environment: NNODES, NODE_RANK, PORT, MASTER_ADDR, as in mmdet.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi

CONFIG=$1
CHECKPOINT=$2
GPUS=$3
TOOLS=$(dirname "$0")

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" \
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
