#!/usr/bin/env python3
"""Other programs on the data sets of Foveal's figures: recall, queries a second, build, memory.

    python3 run.py DIR/NAME [SYSTEM...] [--out FILE.jsonl] [--queries N] [--k 10]

Appends a line for each point, which `foveal-bench import` reads. Each system runs in a process of
its own, builds with two threads and searches with one. Queries a second are those of the median
pass: one untimed pass, then passes until they took a second and are at least three. rss_mb is the
growth of resident memory over the loaded vectors, in MiB. Run it alone on the machine.

NAME     sift-photos, glove-100, debian-packages or smollm2-head
SYSTEM   vectors: symphonyqg-DEGREE, scann, hnswlib-M, faiss-FACTORY, diskann-THREADS
         head: product, scann, fgd, hnswlib, faiss-FACTORY
         [default: those of the figures: for vectors symphonyqg-32 scann hnswlib-16, for the head
         product scann fgd hnswlib faiss-HNSW32 faiss-Flat faiss-SQfp16 faiss-SQ8]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

# The products of a head take one thread. Libraries read these variables when they are loaded.
if any(word.endswith("smollm2-head") for word in sys.argv):
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

try:
    import heads
    import numpy as np
    import systems
    from data_set import METRICS, DataSet
except ModuleNotFoundError as error:
    print(f"{error.name} is missing: see requirements.txt", file=sys.stderr)
    sys.exit(69)

VECTORS = ["symphonyqg-32", "scann", "hnswlib-16"]
HEAD = ["product", "scann", "fgd", "hnswlib"]
HEAD += [f"faiss-{factory}" for factory in ("HNSW32", "Flat", "SQfp16", "SQ8")]
# A head answers one state at a time: exact products take milliseconds each.
HEAD_QUERIES = 1_000


def main() -> int:
    asked = arguments()
    head = asked.data.name == "smollm2-head"
    names = asked.systems or (HEAD if head else VECTORS)
    if len(names) > 1:
        return apart(asked, names)
    system = (head_system if head else vector_system)(names[0])
    if system is None:
        print(f"unknown system {names[0]}: see --help", file=sys.stderr)
        return 2
    try:
        data = DataSet(asked.data, asked.queries or (HEAD_QUERIES if head else None), asked.k)
        measure(system, data, asked.out)
    except ModuleNotFoundError as error:
        print(f"{names[0]}: {error.name} is missing: see README.md", file=sys.stderr)
        return 69
    except (OSError, ValueError) as error:
        print(f"{names[0]}: {error}", file=sys.stderr)
        return 69
    return 0


def arguments() -> argparse.Namespace:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("data", type=pathlib.Path, metavar="DIR/NAME")
    parser.add_argument("systems", nargs="*", metavar="SYSTEM")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.jsonl", help="[points.jsonl]")
    parser.add_argument("--queries", type=int, help="the first N only [all; of the head 1,000]")
    parser.add_argument("--k", type=int, default=10, help="neighbors wanted [10]")
    parser.set_defaults(out=pathlib.Path("points.jsonl"))
    asked = parser.parse_intermixed_args()
    if asked.data.name not in METRICS:
        parser.error(f"unknown data set {asked.data.name}")
    return asked


def apart(asked: argparse.Namespace, names: list[str]) -> int:
    """Runs this program once for each system; the worst exit status of them."""
    command = [sys.executable, __file__, str(asked.data)]
    options = ["--out", str(asked.out), "--k", str(asked.k)]
    if asked.queries is not None:
        options += ["--queries", str(asked.queries)]
    return max(subprocess.run([*command, name, *options]).returncode for name in names)


def vector_system(name: str) -> systems.System | None:
    """The system of a name such as scann or hnswlib-16; None if no system has the name."""
    kind, _, choice = name.partition("-")
    if name == "scann":
        return systems.Scann()
    if kind == "faiss" and choice:
        return systems.Faiss(choice)
    kinds = {
        "hnswlib": systems.Hnswlib,
        "symphonyqg": systems.SymphonyQG,
        "diskann": systems.DiskAnn,
    }
    return kinds[kind](int(choice)) if kind in kinds and choice.isdecimal() else None


def head_system(name: str) -> systems.System | None:
    """As vector_system, for hidden states asked one at a time."""
    kind, _, choice = name.partition("-")
    if kind == "faiss" and choice:
        return heads.HeadFaiss(choice)
    kinds = {
        "product": heads.Product,
        "scann": heads.HeadScann,
        "fgd": heads.Fgd,
        "hnswlib": heads.HeadHnswlib,
    }
    return kinds[name]() if name in kinds else None


def measure(system: systems.System, data: DataSet, out: pathlib.Path) -> None:
    """Builds the index of a system, and appends a line for each of its settings."""
    before, start = resident(), time.perf_counter()
    system.build(data.base, data.metric, data.k)
    seconds, grown = time.perf_counter() - start, max(resident() - before, 0)
    for setting in system.settings():
        found, pace = passes(lambda: system.search(data.queries, setting))
        point = {
            "dataset": data.name,
            "k": data.k,
            "peer": system.name,
            "params": systems.shown(setting),
            "recall": round(data.recall(found), 5),
            "qps": round(len(data.queries) / pace, 1),
            "build_s": round(seconds, 2),
            "rss_mb": round(grown / 2**20, 1),
        }
        with out.open("a") as file:
            print(json.dumps(point), file=file)
        told = f"{point['params']}  recall {point['recall']:.4f}  {point['qps']:,.0f} queries/s"
        print(f"{data.name}  {system.name}  {told}", flush=True)


def passes(search: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What a search finds, and the seconds of its median pass."""
    found = search()
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < 1:
        start = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - start)
    return found, statistics.median(seconds)


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
