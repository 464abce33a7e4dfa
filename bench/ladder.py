#!/usr/bin/env python3
"""What each step of a change gave: revisions of Foveal measured against each other, in rounds.

    python3 bench/ladder.py DIR/NAME METRIC REVISION...
        [--rounds N] [--list-size L,L] [--in-flight N,N]

Builds foveal-bench of each revision in a worktree of its own and an index with it, then measures
all of them in turn, round after round: what the machine does meanwhile meets each alike. Prints
the median queries a second of each point and its ratio to the first revision, with the least and
the most ratio of any round. Run it alone on the machine.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("metric")
    parser.add_argument("revisions", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--list-size", default="48,128")
    parser.add_argument("--in-flight", default="1,4")
    return parser.parse_args()


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, **options)


def build(revision, place, asked):
    """The program of a revision, and an index it made."""
    tree = os.path.join(place, revision.replace("/", "-"))
    run("git", "worktree", "add", "--quiet", "--detach", tree, revision)
    target = os.path.abspath("target/ladder")
    environment = {**os.environ, "CARGO_TARGET_DIR": target}
    run("cargo", "build", "--quiet", "--release", "-p", "foveal-bench", cwd=tree, env=environment)
    program = os.path.join(place, f"bench-{revision.replace('/', '-')}")
    run("cp", f"{target}/release/foveal-bench", program)
    run("git", "worktree", "remove", "--force", tree)
    index = program + ".index"
    about = ("--data", asked.data, "--metric", asked.metric)
    run(program, "build", *about, "--keep", index, stdout=subprocess.DEVNULL)
    return program, index, about


def measure(program, index, about, asked):
    """Queries a second, recall and distances by point: list size and queries in flight."""
    sizes = ("--list-size", asked.list_size, "--in-flight", asked.in_flight)
    out = run(program, "recall", *about, "--index", index, *sizes, stdout=subprocess.PIPE).stdout
    points = {}
    for line in map(json.loads, out.splitlines()):
        point = (line["params"].split(" ")[0], line["in_flight"])
        points[point] = (line["qps"], line["recall"], line["cost"]["distances"])
    return points


def main():
    asked = arguments()
    with tempfile.TemporaryDirectory() as place:
        built = [build(revision, place, asked) for revision in asked.revisions]
        rounds = []
        for number in range(asked.rounds):
            print(f"round {number + 1} of {asked.rounds}", flush=True)
            rounds.append([measure(*each, asked) for each in built])
    heads = f"{'flight':>6} {'recall':>7} {'dists':>6} {'qps':>8}  ratio"
    print(f"{'revision':<16} {'point':<8} {heads}")
    for at, revision in enumerate(asked.revisions):
        for point in rounds[0][at]:
            qps = [each[at][point][0] for each in rounds]
            ratios = [each[at][point][0] / each[0][point][0] for each in rounds]
            _, recall, distances = rounds[0][at][point]
            middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
            print(
                f"{revision:<16} {point[0]:<8} {point[1]:>6} {recall:>7.4f} {distances:>6.0f}"
                f" {statistics.median(qps):>8.0f}  {middle:.3f} ({least:.3f} to {most:.3f})"
            )


if __name__ == "__main__":
    main()
