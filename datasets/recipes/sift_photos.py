"""sift-photos: 1,000,000 SIFT descriptors of photographs, 128 u8, and 10,000 queries (l2).

The photographs are those of Debian's packages of wallpapers. Queries come from photographs that
give no rows to the base.
"""

import pathlib

import numpy as np

import packages
from output import Output, nearest
from packages import RecipeError

PACKAGES = [
    "gnome-backgrounds=43.1-1",
    "lomiri-wallpapers-16.04=20.04.0-2",
    "lomiri-wallpapers-20.04=20.04.0-2",
    "mate-backgrounds=1.26.0-1",
    "plasma-workspace-wallpapers=4:5.27.5-2",
    "ukui-wallpapers=20.04.3-1.1",
]
# Drawings and patterns, by a part of their path.
NO_PHOTOGRAPHS = [
    "pixels",
    "symbolic",
    "grid-",
    "analogpattern",
    "truchet",
    "licorice",
    "Elephants_5640",
    "Elephants.jpg",
]
# Photographs that queries come from, by a part of their path.
ASKED = [
    "sunset_by",
    "friends_by",
    "Wine_by",
    "Dragonfly",
    "Bridge_by",
    "RainDrops",
    "ColdRipple",
    "Infinite-Sea",
]
LEAST_BYTES = 300_001
MOST_PIXELS_A_SIDE = 2800
BASE_ROWS = 1_000_000
QUERY_ROWS = 10_000
SEED = 42


def make(output: Output, folder: pathlib.Path) -> None:
    """Writes base.u8bin, query.u8bin and gt.ibin; takes some minutes."""
    files = packages.debian(PACKAGES, folder)
    base, queries = [], []
    for path in photographs(files):
        found = descriptors(path)
        if found is not None:
            asked = named(path.relative_to(files), ASKED)
            (queries if asked else base).append(found)
    random = np.random.default_rng(SEED)
    base = draw(base, BASE_ROWS, random)
    queries = draw(queries, QUERY_ROWS, random)
    output.rows("base", base)
    output.rows("query", queries)
    output.neighbors("gt", *nearest(base, queries, "l2"))


def photographs(files: pathlib.Path) -> list[pathlib.Path]:
    """The largest file of each photograph below a directory, in the order of their names.

    Plasma keeps the sizes of a picture as PICTURE/contents/images/SIZE, dark ones in images_dark.
    """
    largest: dict[str, tuple[int, pathlib.Path]] = {}
    for path in sorted(files.rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp") or not path.is_file():
            continue
        size = path.stat().st_size
        name = str(path.relative_to(files))
        picture = name.split("/contents/images/")[0].split("/contents/images_dark/")[0]
        if size >= LEAST_BYTES and size > largest.get(picture, (0, path))[0]:
            largest[picture] = size, path
    found = sorted(path for _, path in largest.values())
    return [path for path in found if not named(path.relative_to(files), NO_PHOTOGRAPHS)]


def named(path: pathlib.Path, parts: list[str]) -> bool:
    """Whether a path contains one of `parts`."""
    return any(part in str(path) for part in parts)


def descriptors(path: pathlib.Path) -> np.ndarray | None:
    """The SIFT descriptors of a picture in shades of grey, or None if it has none."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        return None
    side = max(image.shape)
    if side > MOST_PIXELS_A_SIDE:
        scale = MOST_PIXELS_A_SIDE / side
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT_create(contrastThreshold=0.008, edgeThreshold=20)
    _, found = sift.detectAndCompute(image, None)
    return None if found is None else found.astype(np.uint8)


def draw(parts: list[np.ndarray], wanted: int, random: np.random.Generator) -> np.ndarray:
    """`wanted` different rows, drawn at random."""
    rows = np.unique(np.concatenate(parts), axis=0)
    if len(rows) < wanted:
        raise RecipeError(f"the photographs give {len(rows)} different rows, wanted {wanted}")
    return rows[random.permutation(len(rows))[:wanted]]
