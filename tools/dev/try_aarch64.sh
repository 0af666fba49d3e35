#!/usr/bin/env bash
# Usage: tools/dev/try_aarch64.sh DIR [PYTEST OPTIONS]
# Compiles the ops for 64-bit ARM on an x86 machine with Debian, and runs the
# tests of the ops, or what PYTEST OPTIONS name, in an emulated Python with
# PyTorch for ARM. What it downloads (600 MB) is kept in DIR. Needs
# apt-get install g++-aarch64-linux-gnu qemu-user
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
cd "$1"
shift
TORCH=2.5.1 # of a later one the wheel for ARM is for CUDA, or needs more
PACKAGES=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6
    libstdc++6 libgcc-s1 libgomp1 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0
    liblzma5 libsqlite3-0 libuuid1 libcrypt1)

if [ ! -d root ]; then
    # Unpacked, not installed, so that this machine's Python stays as it is.
    added=$(dpkg --print-foreign-architectures | grep -cx arm64 || :)
    dpkg --add-architecture arm64
    apt-get -qq update
    mkdir -p debs part
    (cd debs && apt-get -qq download "${PACKAGES[@]/%/:arm64}")
    [ "$added" != 0 ] || dpkg --remove-architecture arm64
    for deb in debs/*.deb; do dpkg -x "$deb" part; done
    mv part root
fi
download() {
    python3 -m pip download --quiet --dest wheels --only-binary :all: \
        --python-version 311 --platform manylinux_2_28_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
        --platform any "$@"
}
if [ ! -d site ]; then
    download "torch===$TORCH" 'numpy<2.3' pytest psutil rich addict pyyaml \
        termcolor yapf matplotlib opencv-python-headless
    download --no-deps mmengine==0.10.7 mmcv-lite==2.1.0
    mkdir -p part
    for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" part; done
    mv part site
fi

rm -rf tree
git clone --quiet "$ROOT" tree
cat >Makefile <<'EOF'
CXX := aarch64-linux-gnu-g++
CSRC := tree/mmmamba/ops/csrc
SOURCES := $(wildcard $(addprefix $(CSRC)/,common/cpu/*.cpp pytorch/*.cpp \
    pytorch/cpu/*.cpp))
TORCH := site/torch
tree/mmmamba/_torch2_5_ops.so: $(SOURCES:.cpp=.o)
	$(CXX) -shared -o $@ $^ -L$(TORCH)/lib -lc10 -ltorch_cpu -ltorch
%.o: %.cpp
	$(CXX) -O3 -fPIC -std=c++17 -fopenmp -D_GLIBCXX_USE_CXX11_ABI=0 \
	    -isystem $(TORCH)/include \
	    -isystem $(TORCH)/include/torch/csrc/api/include -c -o $@ $<
EOF
make --quiet --jobs "$(nproc)"
vectors=$(aarch64-linux-gnu-objdump -d \
    tree/mmmamba/ops/csrc/common/cpu/kernels_portable.o |
    grep -cE 'fml[as]\s+v[0-9]+\.(4s|2d)')
echo "==> Compiled; $vectors multiply-adds of NEON vectors"

cd tree
export PYTHONPATH=$PWD/../site
emulated=(qemu-aarch64 -L ../root ../root/usr/bin/python3.11)
# Without this the tests of the compiled ops would be skipped.
MMMAMBA_OP_BACKEND=cpp "${emulated[@]}" -c 'import mmmamba.ops'
"${emulated[@]}" -m pytest "${@:-tests/test_ops}" \
    -m 'not slow and not compiler' -p no:cacheprovider
