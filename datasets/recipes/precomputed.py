"""Inputs of recipes that no package carries: files that are given, and checked."""

import pathlib

import numpy as np

from output import sha256
from packages import RecipeError

SHA256 = {
    "debian-packages.f16.npy": "1006a04a3e921cb5c18aa5c5bb8f168982855379783a87ee633fd00a5382022b",
    "debian-packages.jsonl": "0763da027538daf9443e9a96de54c7b92e50a3031177a3fb2c72ea788e81e147",
    "smollm2-hidden.f16.npy": "ed0023a77fce247cd25d4e11bdd2cab491f6d4f851167206ddad6548414a82cb",
    "smollm2-next.npy": "bd753c8936ef9ae82ec7bf1340802118d91225441cd389f8285814980a7cbde9",
}


def check(path: pathlib.Path, name: str) -> None:
    """Raises RecipeError unless the file is the one that figures were measured with."""
    if not path.is_file():
        raise RecipeError(f"{path}: no such file")
    found = sha256(path)
    if found != SHA256[name]:
        raise RecipeError(f"{path}: SHA-256 is {found}, that of {name} is {SHA256[name]}")


def load(path: pathlib.Path, name: str) -> np.ndarray:
    """The array of a checked .npy file."""
    check(path, name)
    return np.load(path)
