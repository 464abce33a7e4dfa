"""Foveal in big-ann-benchmarks: `neurips23/ood/foveal/foveal.py`."""

import os
import pathlib

import numpy as np

from benchmark.algorithms.base import BaseANN
from benchmark.datasets import DATASETS

from .engine import Served, build

EXTENSIONS = {"float32": "fbin", "uint8": "u8bin", "int8": "i8bin"}
# Results of a query in the first attempt at a range search, and the most there may be.
RANGE_FIRST, RANGE_MOST = 64, 16_384


class Foveal(BaseANN):
    """`flags` are those of `foveal build`; `serve` in it holds those of `foveal serve`."""

    def __init__(self, metric, flags):
        self.metric = metric
        self.serve_flags = flags.get("serve", {})
        self.build_flags = {name: flags[name] for name in flags if name != "serve"}
        self.list_size = 0
        self.served = self.res = None
        self.name = "foveal" + "".join(f"-{k}{v}" for k, v in self.build_flags.items())

    def track(self):
        return "ood"

    def index_dir(self, dataset):
        name = DATASETS[dataset]().short_name()
        return pathlib.Path("data/indices/foveal") / name / self.name

    def fit(self, dataset):
        out = self.index_dir(dataset)
        out.parent.mkdir(parents=True, exist_ok=True)
        ds = DATASETS[dataset]()
        # Files are called base.1B.u8bin.crop_nb_10000000; the extension must name the format.
        link = out.parent / f"{self.name}-base.{EXTENSIONS[np.dtype(ds.dtype).name]}"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.abspath(ds.get_dataset_fn()))
        try:
            build(link, self.metric, out, self.build_flags)
        finally:
            link.unlink()
        self.served = Served(out, self.serve_flags)

    def load_index(self, dataset):
        out = self.index_dir(dataset)
        if not (out / "manifest.json").exists():
            return False
        self.served = Served(out, self.serve_flags)
        return True

    def index_files_to_store(self, dataset):
        out = self.index_dir(dataset)
        return [str(out), "", sorted(file.name for file in out.iterdir())]

    def set_query_arguments(self, query_args):
        self.list_size = int(query_args["list_size"])

    def query(self, X, k):
        self.res, _ = self.served.search_batch(X, k, self.list_size)

    def range_query(self, X, radius):
        """More and more of the nearest, until the last of them lies beyond the radius."""
        found = [None] * len(X)
        open_queries, k = np.arange(len(X)), RANGE_FIRST
        while len(open_queries):
            keys, distances = self.served.search_batch(X[open_queries], k, self.list_size)
            inside = (distances <= radius) & (keys >= 0)
            for i, q in enumerate(open_queries):
                found[q] = keys[i][inside[i]], distances[i][inside[i]]
            full = inside.all(axis=1)
            open_queries = open_queries[full] if k < RANGE_MOST else open_queries[:0]
            k = min(8 * k, RANGE_MOST)
        lims = np.cumsum([0] + [len(keys) for keys, _ in found])
        self.res = lims, *(np.concatenate([pair[i] for pair in found]) for i in (1, 0))

    def get_results(self):
        return self.res

    def get_range_results(self):
        """Limits, distances, keys."""
        return self.res

    def get_memory_usage(self):
        """KiB of the server; the benchmark takes the difference of before and after."""
        return self.served.memory_kib() if self.served else 0.0

    def done(self):
        if self.served:
            self.served.stop()
            self.served = None

    def __str__(self):
        return self.name
