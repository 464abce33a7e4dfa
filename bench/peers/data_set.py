"""A data set in the layout of big-ann-benchmarks: rows, queries, and which neighbors are true."""

import pathlib
from collections.abc import Iterable

import numpy as np

METRICS = {
    "sift-photos": "l2",
    "glove-100": "cosine",
    "debian-packages": "cosine",
    "smollm2-head": "ip",
}
ROUNDED_COSINE = 4 * float(np.finfo(np.float32).eps)
EXTENSIONS = {"fbin": np.float32, "u8bin": np.uint8}


class DataSet:
    """Rows and queries as f32, of length 1 under cosine: the inner product is the cosine then."""

    def __init__(self, place: pathlib.Path, queries: int | None, k: int) -> None:
        """Reads DIR/NAME.base.EXT, .query.EXT and .gt.ibin; the first `queries` queries, or all."""
        self.name = place.name
        self.metric = METRICS[self.name]
        self.k = k
        self.base = read_vectors(place, "base").astype(np.float32)
        self.queries = read_vectors(place, "query")[:queries].astype(np.float32)
        truth = read_rows(place.with_name(f"{self.name}.gt.ibin"), np.int32)
        self.truth = truth[: len(self.queries), :k]
        if self.truth.shape != (len(self.queries), k):
            raise ValueError(f"{self.name}.gt.ibin has too few neighbors for k = {k}")
        if self.metric == "cosine":
            self.base /= np.linalg.norm(self.base, axis=1, keepdims=True)
            self.queries /= np.linalg.norm(self.queries, axis=1, keepdims=True)

    def distances(self, query: int, ids: np.ndarray) -> np.ndarray:
        """Distances of a query to some rows, f64, smaller is nearer: L2 is squared."""
        rows, asked = self.base[ids].astype(np.float64), self.queries[query].astype(np.float64)
        if self.metric == "l2":
            return ((rows - asked) ** 2).sum(axis=1)
        return (1 if self.metric == "cosine" else 0) - rows @ asked

    def recall(self, found: Iterable[np.ndarray]) -> float:
        """The share of the true first k that were found, 0 to 1; `found` is ids for each query.

        No row counts twice. Rows that tie with the true k-th count, by Foveal's rule: a millionth
        more, and what f32 rounds of a cosine.
        """
        hits = 0
        for query, ids in enumerate(found):
            ids = np.unique(ids[: self.k]).astype(np.int64)
            ids = ids[(ids >= 0) & (ids < len(self.base))]
            last = self.distances(query, self.truth[query]).max()
            limit = last + 1e-6 * abs(last)
            if self.metric == "cosine":
                limit += ROUNDED_COSINE
            hits += min(self.k, np.count_nonzero(self.distances(query, ids) <= limit))
        return hits / (self.k * len(self.queries))


def read_vectors(place: pathlib.Path, part: str) -> np.ndarray:
    """The vectors of NAME.PART.EXT, whichever EXT there is."""
    for extension, number in EXTENSIONS.items():
        path = place.with_name(f"{place.name}.{part}.{extension}")
        if path.exists():
            return read_rows(path, number)
    raise FileNotFoundError(f"{place}.{part}.fbin or .u8bin: no such file")


def read_rows(path: pathlib.Path, number: type) -> np.ndarray:
    """The rows of a file that begins with their count and dimension, both u32."""
    with path.open("rb") as file:
        count, dimension = (int(size) for size in np.fromfile(file, "<u4", 2))
        rows = np.fromfile(file, number, count * dimension)
    if len(rows) != count * dimension:
        raise ValueError(f"{path} is cut off")
    return rows.reshape(count, dimension)
