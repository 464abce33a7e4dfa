"""Runs both modules as their benchmarks do, on a small HDF5 file, and checks what they find.

    FOVEAL=target/release/foveal python bench/ann_benchmarks/test_module.py

Needs grpcio, grpcio-tools, numpy and h5py. The benchmarks themselves are not needed: what the
modules import of them is stood in for.
"""

import importlib
import os
import pathlib
import sys
import tempfile
import types

import h5py
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SAMPLE = HERE.parent.parent / "datasets" / "samples" / "debian-packages-5k.f16bin"
QUERIES, K = 200, 10


def write_hdf5(path, metric):
    """The sample as ann-benchmarks would publish it."""
    count, dim = (int(word) for word in np.fromfile(SAMPLE, "<u4", count=2))
    rows = np.fromfile(SAMPLE, "<f2", offset=8).reshape(count, dim).astype(np.float32)
    test, train = rows[:QUERIES], rows[QUERIES:]
    products = test.astype(np.float64) @ train.T.astype(np.float64)
    norms = [np.linalg.norm(part.astype(np.float64), axis=1) for part in (test, train)]
    if metric == "angular":
        distances = 1 - products / np.outer(*norms)
    else:
        squared = norms[0][:, None] ** 2 + norms[1][None] ** 2 - 2 * products
        distances = np.sqrt(np.maximum(squared, 0))
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :100]
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = metric
        file.create_dataset("train", data=train, compression="gzip", chunks=(512, dim))
        file.create_dataset("test", data=test)
        file.create_dataset("neighbors", data=nearest.astype("i4"))
        ranked = np.take_along_axis(distances, nearest, 1)
        file.create_dataset("distances", data=ranked.astype("f4"))


def stand_in(name, **contents):
    """A module that others import by `name`, and the packages above it."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        package = sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(parts[i - 1]))
        package.__path__ = getattr(package, "__path__", [])
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module


def load(package, name):
    """The module `name` of this directory as it would be imported from `package`."""
    stand_in(f"{package}.nothing")
    sys.modules[package].__path__ = [str(HERE)]
    return importlib.import_module(f"{package}.{name}").Foveal


def recall(found, nearest):
    """The share of the true neighbors found."""
    shared = [len(set(a) & set(b)) for a, b in zip(found, nearest)]
    return sum(shared) / nearest.size


def ann_benchmarks(folder, metric):
    path = folder / f"packages-{metric}.hdf5"
    write_hdf5(path, metric)
    stand_in("ann_benchmarks.algorithms.base.module", BaseANN=object)
    foveal = load("ann_benchmarks.algorithms.foveal", "module")
    algo = foveal(metric, {"bits": 4, "serve": {"memory": "1GiB", "threads": 1}})
    with h5py.File(path) as file:
        train, test = np.array(file["train"]), np.array(file["test"])
        nearest = np.array(file["neighbors"])[:, :K]
    try:
        before = algo.get_memory_usage()
        algo.fit(train)
        assert algo.get_memory_usage() - before > 1000, "KiB of a server"
        reached = []
        for list_size in (16, 128):
            algo.set_query_arguments(list_size)
            assert str(algo) == f"Foveal({{'bits': 4}}, list_size={list_size})", str(algo)
            one_by_one = [list(algo.query(query, K)) for query in test]
            algo.batch_query(test, K)
            in_batch = [list(keys) for keys in algo.get_batch_results()]
            assert one_by_one == in_batch, "a batch finds what its queries find"
            reached.append(recall(in_batch, nearest))
        assert reached[0] > 0.7 and reached[1] > 0.97, reached
    finally:
        algo.done()
    print(f"ann-benchmarks, {metric}: recall@{K} {reached}")


class Packages:
    """A dataset as big-ann-benchmarks describes it."""

    dtype, nb, d = np.float32, 0, 0

    def short_name(self):
        return f"Packages-{self.nb}"

    def get_dataset_fn(self):
        return "base.fbin.crop_nb"


def big_ann(folder):
    with h5py.File(folder / "packages-euclidean.hdf5") as file:
        train, test = np.array(file["train"]), np.array(file["test"])
        nearest, distances = np.array(file["neighbors"]), np.array(file["distances"])
    os.chdir(folder)
    with open(Packages().get_dataset_fn(), "wb") as file:
        np.array(train.shape, "<u4").tofile(file)
        train.tofile(file)
    stand_in("benchmark.algorithms.base", BaseANN=object)
    stand_in("benchmark.datasets", DATASETS={"packages": Packages})
    foveal = load("neurips23.ood.foveal", "big_ann")
    algo = foveal("euclidean", {"bits": 8})
    assert not algo.load_index("packages"), "nothing was built yet"
    algo.fit("packages")
    algo.done()
    algo = foveal("euclidean", {"bits": 8})
    assert algo.load_index("packages"), "the index stays"
    try:
        directory, _, files = algo.index_files_to_store("packages")
        assert pathlib.Path(directory, "manifest.json").exists() and "manifest.json" in files
        algo.set_query_arguments({"list_size": 128})
        algo.query(test, K)
        reached = recall(algo.get_results(), nearest[:, :K])
        assert algo.get_results().shape == (QUERIES, K) and reached > 0.97, reached
        # A radius, squared as Foveal's distances are, that some queries exceed 64 results within.
        radius = float(np.quantile(distances[:, 99], 0.3)) ** 2
        algo.range_query(test, radius)
        lims, found, keys = algo.get_range_results()
        assert len(lims) == QUERIES + 1 and len(found) == len(keys) == lims[-1]
        assert (found <= radius).all() and np.diff(lims).max() > 64
        wanted = (distances.astype(np.float64) ** 2 <= radius * (1 - 1e-5)).sum()
        assert lims[-1] > 0.95 * wanted, (lims[-1], wanted)
    finally:
        algo.done()
    print(f"big-ann-benchmarks: recall@{K} {reached}, {lims[-1]} within the radius")


def main():
    if "FOVEAL" in os.environ and os.path.exists(os.environ["FOVEAL"]):
        # The working directory changes below.
        os.environ["FOVEAL"] = os.path.abspath(os.environ["FOVEAL"])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ann_benchmarks(folder, "angular")
        ann_benchmarks(folder, "euclidean")
        big_ann(folder)


if __name__ == "__main__":
    main()
