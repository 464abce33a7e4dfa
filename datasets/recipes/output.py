"""Files of a data set in the layout of big-ann-benchmarks, and the exact neighbors of queries."""

import hashlib
import pathlib
from collections.abc import Iterable

import numpy as np

EXTENSIONS = {np.dtype(np.float32): "fbin", np.dtype(np.uint8): "u8bin"}


class Output:
    """The files NAME.PART.EXT of one data set.

    Each is written as a hidden file beside its place. `publish` gives all of them their names, so
    that a recipe that fails leaves nothing that looks whole.
    """

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.written: list[tuple[pathlib.Path, pathlib.Path]] = []

    def rows(self, part: str, rows: np.ndarray) -> None:
        """Writes vectors: rows and dimension as u32, then the rows, f32 or u8."""
        with self._begin(f"{part}.{EXTENSIONS[rows.dtype]}").open("wb") as file:
            file.write(np.array(rows.shape, "<u4").tobytes())
            file.write(np.ascontiguousarray(rows).data)

    def neighbors(self, part: str, ids: np.ndarray, distances: np.ndarray) -> None:
        """Writes rows of ids: rows and columns as u32, all ids as i32, then all distances, f32."""
        with self._begin(f"{part}.ibin").open("wb") as file:
            file.write(np.array(ids.shape, "<u4").tobytes())
            file.write(ids.astype("<i4").tobytes())
            file.write(distances.astype("<f4").tobytes())

    def text(self, ending: str, lines: Iterable[str]) -> None:
        """Writes lines as UTF-8, as they are: with their ends of line, if they have any."""
        with self._begin(ending).open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)

    def publish(self) -> list[pathlib.Path]:
        """Gives the files their names; returns these in the order of writing."""
        for hidden, path in self.written:
            hidden.replace(path)
        paths = [path for _, path in self.written]
        self.written = []
        return paths

    def discard(self) -> None:
        """Removes what was written and has no name yet."""
        for hidden, _ in self.written:
            hidden.unlink(missing_ok=True)

    def _begin(self, ending: str) -> pathlib.Path:
        path = self.folder / f"{self.name}.{ending}"
        hidden = path.with_name(f".{path.name}.making")
        self.written.append((hidden, path))
        return hidden


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nearest(
    base: np.ndarray, queries: np.ndarray, metric: str, k: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and distances of the `k` nearest rows of each query, found by a scan of all rows.

    `metric` is l2 (distances are squared), cosine (one minus it) or ip (minus the inner product).
    """
    import faiss

    base, queries = base.astype(np.float32), queries.astype(np.float32)
    if metric == "cosine":
        base = base / np.linalg.norm(base, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    scan = faiss.IndexFlat(base.shape[1], kind)
    scan.add(base)
    scores, ids = scan.search(queries, k)
    distances = {"l2": scores, "cosine": 1 - scores, "ip": -scores}[metric]
    return ids, distances
