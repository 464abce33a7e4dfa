#!/usr/bin/env bash
# Builds target/release/foveal-bench with faiss, compiled for the processor of this machine: built
# for any processor, faiss emulates its fast scan, and `compare` refuses to measure it.
#
#   bench/faiss_build.sh
#
# Needs a C++ compiler, cmake >= 3.24, and BLAS and LAPACK whose threads are OpenMP's. On Debian:
#   apt-get install g++ cmake libopenblas-openmp-dev
# CXXFLAGS chooses other instructions, e.g. "-mavx2 -mfma -mf16c -mpopcnt". After a change of them:
#   cargo clean --release -p faiss-sys
set -euo pipefail
cd "$(dirname "$0")/.."
for program in c++ cmake; do
    if ! command -v "$program" >/dev/null; then
        echo "$program not found; on Debian: apt-get install g++ cmake libopenblas-openmp-dev" >&2
        exit 1
    fi
done
export CXXFLAGS="${CXXFLAGS:--march=native}"
cargo build --release -p foveal-bench --features faiss
