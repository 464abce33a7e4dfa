"""Packages of Debian, npm and PyPI, fetched by the clients that the machine is set up with."""

import pathlib
import subprocess
import sys


class RecipeError(Exception):
    """A data set cannot be made; the message says why and what helps."""


def run(*command: str, cwd: pathlib.Path | None = None, advice: str = "") -> str:
    """The standard output of a command.

    Raises RecipeError with the last line that the command wrote to standard error, and `advice`,
    if it fails or is not installed.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError:
        raise RecipeError(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        shown = " ".join(command[:3])
        raise RecipeError(f"{shown} failed: {said[-1]}" + (f"; {advice}" if advice else ""))
    return done.stdout


def debian(names: list[str], folder: pathlib.Path) -> pathlib.Path:
    """Unpacks Debian packages, each named as `name=version`; returns the directory of their files.

    Needs no rights of root.
    """
    advice = "needs the archive of Debian 12, and its lists brought up to date by apt-get update"
    run("apt-get", "download", *names, cwd=folder, advice=advice)
    files = folder / "files"
    for archive in sorted(folder.glob("*.deb")):
        run("dpkg-deb", "--extract", str(archive), str(files))
    return files


def npm(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Fetches an npm package, named as `name@version`; returns its archive (.tgz)."""
    run("npm", "pack", "--silent", name, cwd=folder)
    return _only(folder, "*.tgz")


def pypi(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Fetches a PyPI package without what it depends on, named as `name==version`; its wheel."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "download", "--quiet", "--no-deps", "--dest", str(folder), name)
    return _only(folder, "*.whl")


def _only(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise RecipeError(f"wanted one file {pattern} of the package, found {len(found)}")
    return found[0]
