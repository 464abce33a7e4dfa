"""Programs that find the tokens of the largest logits, asked for one hidden state at a time.

As systems.py, but 50 tokens are asked for; of these the first ten are counted.
"""

from collections.abc import Callable

import numpy as np

from systems import Faiss, Hnswlib, Scann, Setting

K = 50


class Product:
    """All logits by numpy's product of matrix and vector, then the best picked."""

    name = "numpy, matrix and vector"

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        self.rows = rows

    def settings(self) -> list[Setting]:
        return [{}]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        found = np.empty((len(queries), K), np.int64)
        for query, state in enumerate(queries):
            logits = self.rows @ state
            best = np.argpartition(logits, -K)[-K:]
            found[query] = best[np.argsort(-logits[best])]
        return found


class HeadHnswlib(Hnswlib):
    """hnswlib on inner products: M 32, `ef_construction` 400."""

    def __init__(self) -> None:
        super().__init__(neighbors=32, ef_construction=400)
        self.name = "hnswlib inner product"

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        super().build(rows, metric, K)

    def settings(self) -> list[Setting]:
        return [{"ef": ef} for ef in (50, 100, 200, 400, 800, 1600)]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        return one_by_one(super().search, queries, setting)


class Fgd(HeadHnswlib):
    """The recipe of FGD (arXiv:1806.04189): one more number makes all rows equally long.

    Then the nearest rows in L2 are those of the largest inner products.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = "FGD's recipe (hnswlib)"

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        squares = (rows**2).sum(axis=1)
        rest = np.sqrt(np.maximum(squares.max() - squares, 0))
        super().build(np.column_stack([rows, rest]).astype(np.float32), "l2", k)

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        longer = np.pad(queries, ((0, 0), (0, 1)))
        return super().search(longer, setting)


class HeadFaiss(Faiss):
    """An index of faiss; a graph is built with efConstruction 400."""

    def __init__(self, factory: str) -> None:
        super().__init__(factory, ef_construction=400)

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        super().build(rows, metric, K)

    def settings(self) -> list[Setting]:
        if not self.factory.startswith("HNSW"):
            return [{}]
        return [{"efSearch": ef} for ef in (50, 100, 200, 400, 800)]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        return one_by_one(super().search, queries, setting)


class HeadScann(Scann):
    """ScaNN with 400 leaves, trained on all rows, without SOAR."""

    def build(self, rows: np.ndarray, metric: str, k: int) -> None:
        import scann

        builder = scann.scann_ops_pybind.builder(rows, K, "dot_product").tree(
            num_leaves=400, num_leaves_to_search=20, training_sample_size=len(rows)
        )
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        self.index = builder.reorder(200).build()

    def settings(self) -> list[Setting]:
        leaves = (5, 10, 20, 40, 80, 160, 400)
        reordered = (100, 100, 200, 200, 400, 400, 400)
        return [{"leaves": many, "reorder": rows} for many, rows in zip(leaves, reordered)]

    def search(self, queries: np.ndarray, setting: Setting) -> np.ndarray:
        leaves, rows = setting["leaves"], setting["reorder"]
        found = np.empty((len(queries), K), np.int64)
        for query, state in enumerate(queries):
            found[query] = self.index.search(
                state, leaves_to_search=leaves, pre_reorder_num_neighbors=rows
            )[0]
        return found


def one_by_one(
    search: Callable[[np.ndarray, Setting], np.ndarray], queries: np.ndarray, setting: Setting
) -> np.ndarray:
    """What a search of several queries finds if it is called for each of them."""
    return np.concatenate([search(query[None], setting) for query in queries])
