"""A client of a running `foveal serve`: lists the collections, then searches one of them.

    python search.py --collection tokens --queries queries.npy --row 0 --k 5

Needs grpcio, grpcio-tools and numpy; see README.md beside this file. The messages are generated
from the .proto files when the program starts.
"""

import argparse
import json
import pathlib
import sys

import grpc
import numpy as np

PROTOS = pathlib.Path(__file__).resolve().parents[3] / "proto"
sys.path.insert(0, str(PROTOS))
common, _ = grpc.protos_and_services("foveal/v1/common.proto")
search_pb, search_rpc = grpc.protos_and_services("foveal/v1/search.proto")
collection_pb, collection_rpc = grpc.protos_and_services("foveal/v1/collection.proto")

BIN_TYPES = {".fbin": "<f4", ".f16bin": "<f2", ".u8bin": "u1", ".i8bin": "i1"}
DTYPES = {
    "float32": common.D_TYPE_F32,
    "float16": common.D_TYPE_F16,
    "uint8": common.D_TYPE_U8,
    "int8": common.D_TYPE_I8,
}


def read_vectors(path):
    """The rows of an .npy file, or of a big-ann file: n and dim as u32, then the values."""
    path = pathlib.Path(path)
    if path.suffix == ".npy":
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    elif path.suffix in BIN_TYPES:
        count, dim = (int(word) for word in np.fromfile(path, "<u4", count=2))
        rows = np.memmap(path, BIN_TYPES[path.suffix], "r", offset=8, shape=(count, dim))
    else:
        sys.exit(f"{harmless(str(path))}: wanted .npy, {', '.join(BIN_TYPES)}")
    if rows.ndim != 2 or rows.dtype.name not in DTYPES:
        found = f"{rows.ndim}-dimensional {rows.dtype}"
        sys.exit(f"{harmless(str(path))}: is {found}; wanted rows of {[*DTYPES]}")
    return rows


def raw(rows):
    """Numbers as they go over the wire: little-endian bytes and their type."""
    dtype = rows.dtype.newbyteorder("<")
    return common.Raw(dtype=DTYPES[rows.dtype.name], values=rows.astype(dtype).tobytes())


def harmless(text):
    """The text with what could drive a terminal, or reorder what it shows, spelled out."""
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


def name_of(payload):
    """What to call a neighbor: its payload's `name` if it has one, else all of it."""
    if not payload:
        return "-"
    value = json.loads(payload)
    return harmless(str(value.get("name", payload)))


def search_one(stub, collection, row, k):
    request = search_pb.SearchRequest(
        collection=collection,
        vector=common.Vector(raw=raw(row)),
        params=search_pb.SearchParams(k=k),
        with_payload=True,
    )
    response = stub.Search(request, timeout=10)
    print(f"\n{'rank':>4}  {'key':>10}  {'distance':>11}  name")
    for rank, hit in enumerate(response.hits, 1):
        print(f"{rank:>4}  {hit.key:>10}  {hit.distance:>11.5f}  {name_of(hit.payload)}")
    usage = response.usage
    print(
        f"\nlist size {response.params.list_size}: {usage.distances} distances, "
        f"{usage.reads} reads, {usage.preview_micros} us in memory "
        f"and {usage.fullview_micros} us on full vectors"
    )


def search_all(stub, collection, rows, k, batch=1000):
    """Keys of the nearest vectors to each row, `batch` rows a call: the quick way.

    `[n x k]`, or of as many columns as there are vectors. Keys are unsigned: all 64 bits count.
    """
    keys = []
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        request = search_pb.SearchBatchRequest(
            collection=collection,
            queries=common.Vectors(dim=part.shape[1], raw=raw(part)),
            params=search_pb.SearchParams(k=k),
        )
        keys += [hits.keys for hits in stub.SearchBatch(request, timeout=60).results]
    return np.array(keys, np.uint64)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--addr", default="127.0.0.1:50151", help="address of the server")
    parser.add_argument("--collection", help="collection to search (default: the first one)")
    parser.add_argument("--queries", required=True, help=".npy or big-ann file of queries")
    parser.add_argument("--row", type=int, default=0, help="which of them to search for")
    parser.add_argument("--k", type=int, default=10, help="how many neighbors to show")
    parser.add_argument("--all-out", help="search for every row and write the keys to this .npy")
    args = parser.parse_args()
    if args.all_out:
        # Before the work: fail now if the file cannot be written.
        out = pathlib.Path(args.all_out)
        if out.suffix != ".npy" or not out.parent.is_dir() or out.exists():
            sys.exit(f"{harmless(str(out))}: wanted a new .npy file in a directory that exists")

    rows = read_vectors(args.queries)
    # A batch with many payloads may exceed the 4 MiB that clients accept by default.
    options = [("grpc.max_receive_message_length", 64 << 20)]
    with grpc.insecure_channel(args.addr, options) as channel:
        listing = collection_rpc.CollectionServiceStub(channel).List(
            collection_pb.ListCollectionsRequest(), timeout=10
        )
        for item in listing.collections:
            metric = common.Metric.Name(item.metric).removeprefix("METRIC_")
            print(f"{harmless(item.name)}: {item.count} vectors of {item.dim} dimensions, {metric}")
        if not listing.collections:
            sys.exit("the server has no collection")

        collection = args.collection or listing.collections[0].name
        stub = search_rpc.SearchServiceStub(channel)
        search_one(stub, collection, rows[args.row : args.row + 1], args.k)
        if args.all_out:
            np.save(args.all_out, search_all(stub, collection, rows, args.k))
            print(f"keys of {len(rows)} queries written to {args.all_out}")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {harmless(error.details())}")
