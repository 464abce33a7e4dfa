"""Other programs for nearest neighbors, with the parameters they were measured with.

Each class builds one index with two threads and searches it with one. Rows and queries are of
length 1 under cosine.
"""

import pathlib
import tempfile
from typing import Protocol

import numpy as np

BUILD_THREADS = 2
Setting = dict[str, int]


class System(Protocol):
    """A program and the parameters its index is built with."""

    name: str

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        """Builds an index of rows (f32) to find `k` neighbors in; metric is l2, cosine or ip."""

    def settings(self) -> list[Setting]:
        """The points of the curve, from fast to thorough."""

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        """The ids of the rows found, nearest first, a row for each query."""


class Hnswlib:
    """hnswlib over full vectors: `ef_construction` 200, M neighbors a node, 2 M at the bottom."""

    def __init__(self, neighbors: int, ef_construction: int = 200) -> None:
        self.name = f"hnswlib M={neighbors}"
        self.neighbors = neighbors
        self.ef_construction = ef_construction

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        import hnswlib

        self.k = k
        self.index = hnswlib.Index("l2" if metric == "l2" else "ip", rows.shape[1])
        self.index.init_index(len(rows), M=self.neighbors, ef_construction=self.ef_construction)
        self.index.add_items(rows, num_threads=BUILD_THREADS)

    def settings(self) -> list[Setting]:
        return [{"ef": ef} for ef in (10, 20, 40, 60, 80, 120, 200, 400, 800) if ef >= self.k]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        self.index.set_ef(setting["ef"])
        return self.index.knn_query(queries, self.k, num_threads=1)[0]


class SymphonyQG:
    """SymphonyQG of rabitqlib: neighbors' 1-bit codes beside each node; `ef_construction` 200."""

    def __init__(self, degree: int) -> None:
        self.name = f"SymphonyQG R={degree}"
        self.degree = degree

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        import rabitqlib

        self.k = k
        kind = "l2" if metric == "l2" else "ip"
        self.index = rabitqlib.SymqgIndex(rows.shape[1], self.degree, metric=kind)
        self.index.build(rows, ef_construction=200, num_threads=BUILD_THREADS)

    def settings(self) -> list[Setting]:
        efforts = (10, 20, 30, 40, 60, 80, 120, 200, 400, 800)
        return [{"ef": ef} for ef in efforts if ef >= self.k]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        one, other = self.index.search(queries, self.k, setting["ef"], 1)[:2]
        return one if np.issubdtype(one.dtype, np.integer) else other


class Scann:
    """ScaNN: a tree with 2 sqrt(n) leaves, 4-bit codes of pairs of numbers, exact reordering.

    Inner products: codes weighted by 0.2 along the vector, and rows in a second leaf (SOAR).
    """

    name = "ScaNN"

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        import scann

        self.k = k
        soar = {} if metric == "l2" else {"soar_lambda": 1.5, "overretrieve_factor": 2}
        threshold = float("nan") if metric == "l2" else 0.2
        kind = "squared_l2" if metric == "l2" else "dot_product"
        builder = scann.scann_ops_pybind.builder(rows, k, kind).tree(
            num_leaves=int(2 * np.sqrt(len(rows))),
            num_leaves_to_search=20,
            training_sample_size=250_000,
            **soar,
        )
        builder = builder.score_ah(2, anisotropic_quantization_threshold=threshold)
        self.index = builder.reorder(100).build()

    def settings(self) -> list[Setting]:
        leaves = (5, 10, 20, 40, 80, 160, 300)
        return [{"leaves": many, "reorder": rows} for many in leaves for rows in (40, 100, 200)]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        return self.index.search_batched(
            queries,
            final_num_neighbors=self.k,
            leaves_to_search=setting["leaves"],
            pre_reorder_num_neighbors=setting["reorder"],
        )[0]


class Faiss:
    """An index of faiss by the name that its factory knows, such as HNSW32 or IVF4096,PQ32x4fsr.

    The faiss of PyPI is compiled for several levels of processors and takes the best at run time.
    """

    def __init__(self, factory: str, ef_construction: int = 40) -> None:
        self.name = f"faiss {factory}"
        self.factory = factory
        self.ef_construction = ef_construction

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        import faiss

        self.k = k
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        faiss.omp_set_num_threads(BUILD_THREADS)
        self.index = faiss.index_factory(rows.shape[1], self.factory, kind)
        if self.factory.startswith("HNSW"):
            self.index.hnsw.efConstruction = self.ef_construction
        self.index.train(rows)
        self.index.add(rows)
        faiss.omp_set_num_threads(1)

    def settings(self) -> list[Setting]:
        if self.factory.startswith("HNSW"):
            return [{"efSearch": ef} for ef in (10, 20, 40, 80, 160, 320, 640) if ef >= self.k]
        if not self.factory.startswith("IVF"):
            return [{}]
        probes = [{"nprobe": lists} for lists in (4, 8, 16, 32, 64, 128)]
        if "RFlat" not in self.factory:
            return probes
        return [{**probe, "k_factor_rf": many} for probe in probes for many in (10, 30)]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        import faiss

        faiss.ParameterSpace().set_index_parameters(self.index, shown(setting))
        return self.index.search(queries, self.k)[1]


class DiskAnn:
    """DiskANN: full vectors and a graph of degree 64 on disk, 64 bytes of codes a vector in RAM.

    Reads past the page cache, four blocks at a time (beam 4), and keeps no node in memory. Built in
    the working directory and removed at the end.
    """

    def __init__(self, threads: int) -> None:
        self.name = f"DiskANN, {threads} thread(s)"
        self.threads = threads

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        import diskannpy

        self.k = k
        self.folder = tempfile.TemporaryDirectory(prefix="diskann-", dir=pathlib.Path.cwd())
        # Bytes stay bytes on disk: four times as many rows fit into a block.
        whole = metric == "l2" and (rows == rows.astype(np.uint8)).all()
        self.number = np.uint8 if whole else np.float32
        diskannpy.build_disk_index(
            data=rows.astype(self.number),
            distance_metric="mips" if metric == "ip" else "l2",
            index_directory=self.folder.name,
            complexity=100,
            graph_degree=64,
            search_memory_maximum=len(rows) * 64 / 2**30,
            build_memory_maximum=8,
            num_threads=BUILD_THREADS,
            pq_disk_bytes=0,
            vector_dtype=self.number,
        )
        # Opened for one thread it never answers.
        self.index = diskannpy.StaticDiskIndex(
            index_directory=self.folder.name,
            num_threads=2,
            num_nodes_to_cache=0,
            vector_dtype=self.number,
        )

    def settings(self) -> list[Setting]:
        return [{"L": size} for size in (10, 15, 20, 30, 40, 60, 100) if size >= self.k]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        return self.index.batch_search(
            queries.astype(self.number),
            k_neighbors=self.k,
            complexity=setting["L"],
            beam_width=4,
            num_threads=self.threads,
        ).identifiers


def shown(setting: Setting) -> str:
    """A setting as lines tell it: `leaves=20,reorder=100`."""
    return ",".join(f"{name}={value}" for name, value in setting.items())
