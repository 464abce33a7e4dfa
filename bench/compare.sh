#!/usr/bin/env bash
# Foveal and the baselines of faiss on the same data, in one run: curves, memory, build times.
#
#   bench/compare.sh DATA_DIR OUT_DIR [DATASET...]
#
# DATA_DIR holds NAME.base.EXT, NAME.query.EXT and NAME.gt.ibin; DATASET is sift-photos, glove-100
# (both by default), debian-packages or smollm2-head. Writes OUT_DIR/lines.jsonl, one line a build
# and one a point, and OUT_DIR/report.html. All cores build, one thread searches. Needs what
# bench/faiss_build.sh needs, and a machine with nothing else to do: for about an hour, most of which
# faiss takes to build. What an earlier run of the same OUT_DIR has measured is not measured again.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bench/compare.sh DATA_DIR OUT_DIR [DATASET...]" >&2
    exit 2
fi
data=$(realpath "$1")
out=$(realpath -m "$2")
shift 2
sets=("$@")
[ ${#sets[@]} -gt 0 ] || sets=(sift-photos glove-100)
lines=$out/lines.jsonl

metric() {
    case $1 in
        sift-photos) echo l2 ;;
        glove-100 | debian-packages) echo cosine ;;
        smollm2-head) echo ip ;;
        *) echo "unknown data set $1" >&2; return 2 ;;
    esac
}
for name in "${sets[@]}"; do
    metric "$name" >/dev/null
done
cd "$(dirname "$0")/.."
bench/faiss_build.sh
bench=${CARGO_TARGET_DIR:-target}/release/foveal-bench
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for name in "${sets[@]}"; do
    about=(--data "$data/$name" --metric "$(metric "$name")" --out "$lines")
    if [ -e "$lines" ] && grep -q "\"foveal.*\"name\":\"$name\".*\"kind\":\"recall\"" "$lines"; then
        "$bench" compare "${about[@]}" --k 10
        continue
    fi
    "$bench" build "${about[@]}" --keep "$work/$name"
    "$bench" recall "${about[@]}" --index "$work/$name" --k 10 --threads 1 --in-flight 1,4 \
        --list-size 16,24,32,48,64,96,128,256,512
    rm -rf "${work:?}/$name"
    "$bench" compare "${about[@]}" --k 10
done
"$bench" report "$lines" --out "$out/report.html"
echo "$out/report.html"
