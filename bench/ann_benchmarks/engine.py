"""Foveal for a benchmark in Python: builds an index, serves it, asks it. Linux.

FOVEAL names the program (default: `foveal` on the PATH); FOVEAL_PROTO the directory of the .proto
files (default: the one of the repository that this file lies in). The messages are generated from
them when this module is imported. Needs grpcio, grpcio-tools and numpy.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import grpc
import numpy as np


def protos():
    """The directory that holds foveal/v1/*.proto."""
    here = pathlib.Path(__file__).resolve().parent
    return os.environ.get("FOVEAL_PROTO") or str(here.parent.parent / "proto")


sys.path.insert(0, protos())
common, _ = grpc.protos_and_services("foveal/v1/common.proto")
search_pb, search_rpc = grpc.protos_and_services("foveal/v1/search.proto")

METRICS = {"angular": "cosine", "cosine": "cosine", "normalized": "cosine"}
METRICS |= {"euclidean": "l2", "l2": "l2", "ip": "ip", "dot": "ip"}
DTYPES = {
    "float32": common.D_TYPE_F32,
    "float16": common.D_TYPE_F16,
    "uint8": common.D_TYPE_U8,
    "int8": common.D_TYPE_I8,
}
# What one call may carry: a request has at most 16 MiB, an answer a million results.
CALL_QUERIES, CALL_BYTES, CALL_RESULTS = 1000, 8 << 20, 100_000


def program():
    return os.environ.get("FOVEAL", "foveal")


def rows_of(array):
    """An array as rows that the wire knows: C order, one of DTYPES."""
    array = np.atleast_2d(np.asarray(array))
    return np.ascontiguousarray(array, None if array.dtype.name in DTYPES else np.float32)


def raw(rows):
    values = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
    return common.Raw(dtype=DTYPES[rows.dtype.name], values=values.tobytes())


def build(base, metric, out, flags):
    """`foveal build` of a file; `flags` maps names such as max_degree to values."""
    line = [program(), "build", "--base", str(base), "--metric", METRICS[metric]]
    line += ["--out", str(out)]
    for name, value in flags.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def build_rows(rows, metric, out, flags):
    """The same of rows in memory."""
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder) / "base.npy"
        np.save(base, rows_of(rows))
        build(base, metric, out, flags)


class Served:
    """An index that `foveal serve` serves until `stop`."""

    def __init__(self, index, flags=None):
        line = [program(), "serve", "--listen", "127.0.0.1:0", "--index", f"bench={index}"]
        for name, value in (flags or {}).items():
            line += [f"--{name.replace('_', '-')}", str(value)]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        said = self.process.stdout.readline().strip()
        if not said.startswith("listening on "):
            self.process.kill()
            raise RuntimeError(f"foveal serve did not start: {said or self.process.wait()}")
        options = [("grpc.max_receive_message_length", 64 << 20)]
        self.channel = grpc.insecure_channel(said.removeprefix("listening on "), options)
        self.stub = search_rpc.SearchServiceStub(self.channel)

    def search(self, query, k, list_size):
        """Keys of the nearest rows to one query."""
        params = search_pb.SearchParams(k=k, list_size=max(k, list_size))
        vector = common.Vector(raw=raw(rows_of(query)))
        request = search_pb.SearchRequest(collection="bench", vector=vector, params=params)
        return np.fromiter((hit.key for hit in self.stub.Search(request).hits), np.int64)

    def search_batch(self, queries, k, list_size):
        """Keys and distances, `[n x k]` each; -1 and infinity where fewer rows exist."""
        rows = rows_of(queries)
        keys = np.full((len(rows), k), -1, np.int64)
        distances = np.full((len(rows), k), np.inf, np.float32)
        params = search_pb.SearchParams(k=k, list_size=max(k, list_size))
        step = min(CALL_QUERIES, CALL_BYTES // (rows.itemsize * rows.shape[1]), CALL_RESULTS // k)
        step = max(step, 1)
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            queries = common.Vectors(dim=part.shape[1], raw=raw(part))
            request = search_pb.SearchBatchRequest(
                collection="bench", queries=queries, params=params
            )
            for i, hits in enumerate(self.stub.SearchBatch(request).results, first):
                keys[i, : len(hits.keys)] = hits.keys
                distances[i, : len(hits.keys)] = hits.distances
        return keys, distances

    def memory_kib(self):
        """Resident memory of the server."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS:"))
        return float(line.split()[1])

    def stop(self):
        self.channel.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
