#!/usr/bin/env python3
"""Compares two builds of Rune task by task: python3 scripts/paired_outcomes.py HOME_A HOME_B

Each home holds the registry of one `rune eval` with the same suite, strategy and seed, and of no
other. Prints how many tasks each one passed, those that only one of them passed, and the exact
two-sided p value of McNemar's test (a binomial test of the discordant pairs at 1/2).
"""

import math
import sqlite3
import sys
from pathlib import Path


def outcomes(home):
    """Maps task and seed to whether the answer passed."""
    registry = sqlite3.connect(f"file:{Path(home) / 'rune.db'}?mode=ro", uri=True)
    rows = registry.execute("SELECT task_digest, seed, verdict FROM outcome").fetchall()
    found = {(task, seed): verdict == "passed" for task, seed, verdict in rows}
    if len(found) != len(rows):
        sys.exit(f"error: {home} holds more than one evaluation")
    return found


def mcnemar(only_a, only_b):
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    return min(1.0, 2 * tail)


def main(home_a, home_b):
    a, b = outcomes(home_a), outcomes(home_b)
    if not a or a.keys() != b.keys():
        sys.exit(f"error: {len(a)} and {len(b)} answers, not the same tasks and seeds")
    only_a = sum(a[key] and not b[key] for key in a)
    only_b = sum(b[key] and not a[key] for key in a)
    print("| Answers | A | B | only A | only B | p |")
    print("|---|---|---|---|---|---|")
    p = mcnemar(only_a, only_b)
    print(f"| {len(a)} | {sum(a.values())} | {sum(b.values())} | {only_a} | {only_b} | {p:.3f} |")


if len(sys.argv) != 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
