"""Foveal in ann-benchmarks: `ann_benchmarks/algorithms/foveal/module.py`."""

import pathlib
import tempfile

from ..base.module import BaseANN
from .engine import Served, build_rows


class Foveal(BaseANN):
    """`flags` are those of `foveal build`; `serve` in it holds those of `foveal serve`."""

    def __init__(self, metric, flags):
        self.metric = metric
        self.serve_flags = flags.get("serve", {})
        self.build_flags = {name: flags[name] for name in flags if name != "serve"}
        self.list_size = 0
        self.folder = self.served = self.found = None
        self.name = f"Foveal({self.build_flags})"

    def fit(self, X):
        self.folder = tempfile.TemporaryDirectory()
        index = pathlib.Path(self.folder.name) / "index"
        build_rows(X, self.metric, index, self.build_flags)
        self.served = Served(index, self.serve_flags)

    def set_query_arguments(self, list_size):
        self.list_size = list_size
        self.name = f"Foveal({self.build_flags}, list_size={list_size})"

    def query(self, q, n):
        return self.served.search(q, n, self.list_size)

    def batch_query(self, X, n):
        self.found, _ = self.served.search_batch(X, n, self.list_size)

    def get_batch_results(self):
        return [keys[keys >= 0] for keys in self.found]

    def get_memory_usage(self):
        """KiB of the server; the benchmark takes the difference of before and after `fit`."""
        return self.served.memory_kib() if self.served else 0.0

    def done(self):
        if self.served:
            self.served.stop()
            self.served = None
        if self.folder:
            self.folder.cleanup()
            self.folder = None

    def __str__(self):
        return self.name
