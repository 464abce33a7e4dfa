#!/usr/bin/env bash
# Recall against speed: builds an index of each data set and sweeps the list size, one thread.
#
#   bench/curves.sh DATA_DIR OUT.jsonl [DATASET...]
#
# DATA_DIR holds NAME.base.EXT, NAME.query.EXT and NAME.gt.ibin. Prints one JSON line a build and one
# a point, as `foveal build` and `foveal search` print them, with the data set's name in front.
# FOVEAL names the program (default: target/release/foveal). Run it alone on the machine.
set -euo pipefail
data=$1
out=$2
shift 2
sets=("$@")
[ ${#sets[@]} -gt 0 ] || sets=(sift-photos glove-100 debian-packages smollm2-head)
foveal=${FOVEAL:-target/release/foveal}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

{
    printf '{"machine":"%s","cores":%s,' "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)" "$(nproc)"
    printf '"commit":"%s","date":"%s"}\n' "$(git rev-parse --short HEAD)" "$(date -u +%Y-%m-%dT%H:%MZ)"
} >>"$out"

for name in "${sets[@]}"; do
    case $name in
        sift-photos) ext=u8bin metric=l2 ;;
        glove-100 | debian-packages) ext=fbin metric=cosine ;;
        smollm2-head) ext=fbin metric=ip ;;
        *) echo "unknown data set $name" >&2; exit 2 ;;
    esac
    index=$work/$name
    line() { printf '{"dataset":"%s",%s\n' "$name" "${1#\{}" >>"$out"; }
    line "$("$foveal" build --base "$data/$name.base.$ext" --metric $metric --out "$index" \
        --threads 2 --format json)"
    for list_size in 24 32 40 48 64 96 128 256 512 1024; do
        for in_flight in 1 4; do
            line "$("$foveal" search --index "$index" --queries "$data/$name.query.$ext" --k 10 \
                --truth "$data/$name.gt.ibin" --threads 1 --list-size $list_size \
                --in-flight $in_flight --format json)"
        done
    done
    rm -rf "$index"
done
