"""Closes the loop once, with real sessions: run -> train -> eval -> run with the adapter that was measured.

    python3 benches/memory_loop.py --rune target/release/rune --home /tmp/loop [--train 24] [--test 24]

An invented library is written; `rune run` solves tasks that use it, with the library's README in the task; what was
solved is trained on; the adapter is measured on other tasks; and held-out tasks, in other words than any before, are
run twice: with `--adapter none` and with `--adapter auto`. Prints both scores, task by task, and McNemar's p.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys

CANDIDATES = "3"
TOKENS = "1000"


def call(arguments, **options):
    print("+", *arguments[1:], file=sys.stderr, flush=True)
    return subprocess.run(arguments, stdout=subprocess.PIPE, text=True, **options)


def reference(readme):
    """The README's functions, one a line."""
    parts = [part.split("\n\n") for part in readme.split("\n## ")[1:]]
    return "\n".join(f"- {head.strip('`')}: {line.replace('`', '')}" for head, line, *_ in parts)


def task(function, phrase, variable, library, functions):
    return (
        f"The Python package {library} is installed. Its functions:\n{functions}\n\n"
        f"Write solution.py with a function {function}({variable}) that returns the {phrase} {variable}. It imports "
        f"{library} and calls the one function of {library} that does this; it computes nothing itself."
    )


def tests(function, library, check):
    """A suite that wants the reference's values, and the library to have been called."""
    reference = eval("lambda v: " + check["reference"].replace("{v}", "v"))
    cases = "\n".join(
        f"        self.assertEqual({function}({items}), {reference(list(items))})" for items in check["inputs"]
    )
    return (
        f"import unittest\n\nimport {library}\nfrom solution import {function}\n\n\n"
        f"class Test(unittest.TestCase):\n    def test_values(self):\n{cases}\n\n"
        f"    def test_uses_the_library(self):\n        {library}._calls.clear()\n"
        f"        {function}([3, 1, 2])\n"
        f"        self.assertIn('{check['required']['function']}', {library}._calls)\n"
    )


def solve(rune, base, work, text, suite, lib, adapter, seed):
    work.mkdir(parents=True)
    (work / "test_solution.py").write_text(suite)
    done = call(
        [*base, "run", text, "--tests", str(work / "test_solution.py"), "--out", str(work / "out"), "--lib", str(lib),
         "--adapter", adapter, "--candidates", CANDIDATES, "--max-tokens", TOKENS, "--seed", str(seed), "--json"],
        stderr=subprocess.DEVNULL,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    session = next((line["session_id"] for line in lines if line.get("session_id")), "")
    return done.returncode == 0, session


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rune", default="rune")
    parser.add_argument("--home", required=True, type=pathlib.Path)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--seed", default=11, type=int)
    parser.add_argument("--train", default=24, type=int)
    parser.add_argument("--test", default=24, type=int)
    args = parser.parse_args()
    rune = args.rune
    base = [rune, "--home", str(args.home)]
    args.home.mkdir(parents=True, exist_ok=True)
    if not (args.home / "models").exists():
        (args.home / "models").symlink_to(pathlib.Path.home() / ".rune/models")
    data = args.home / "library"
    call([*base, "eval", "library", "--seed", str(args.seed), "--out", str(data)], check=True)
    lib = data / "lib"
    library = next(path.name for path in lib.iterdir())
    readme = reference((data / "README.md").read_text())
    suite = [json.loads(line) for line in (data / "suite.jsonl").read_text().splitlines()]
    held_out = [task for task in suite if task["template"] == "T2"]
    checks = {task["family"].split("/")[1]: task["check"] for task in held_out}
    records = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    known = []
    for record in records:
        code = record["messages"][1]["content"]
        if "def " not in code:
            continue
        function = code.split("def ")[1].split("(")[0]
        variable = code.split("def ")[1].split("(")[1].split(")")[0]
        phrase = code.split('"""Returns the ')[1].split(f" {variable}, using")[0]
        known.append((function, phrase, variable, checks[record["family"].split("/")[1]]))
    common = ["--model", args.model]
    solved = []
    for index, (function, phrase, variable, check) in enumerate(known[: args.train]):
        text = task(function, phrase, variable, library, readme)
        passed, session = solve(
            rune, [*base], args.home / "train" / str(index), text, tests(function, library, check), lib, "none", index
        )
        print(f"session {session}: {'solved' if passed else 'not solved'}", file=sys.stderr, flush=True)
        solved += [session] if passed else []
    print(f"sessions solved without an adapter: {len(solved)} of {args.train}")
    sessions = [word for session in solved for word in ("--session", session)]
    trained = call([*base, "train", *sessions, *common, "--name", library, "--preset", "quick", "--epochs", "4",
                    "--learning-rate", "3e-4", "--batch", "4"], check=True)
    adapter = trained.stdout.strip()
    measured = call([*base, "eval", "--suite", str(data / "suite.jsonl"), "--lib", str(lib), "--adapter", adapter,
                     *common], check=True)
    print(measured.stdout)
    results = {}
    step = max(1, len(held_out) // args.test)
    for choice in ("none", "auto"):
        results[choice] = []
        for index, one in enumerate(held_out[::step][: args.test]):
            code = one["messages"][0]["content"]
            function = one["check"]["form"]["name"]
            variable = code.split(f"def {function}(")[1].split(")")[0]
            phrase = code.split('"""Returns the ')[1].split(f" {variable}, using")[0]
            text = task(function, phrase, variable, library, readme)
            passed, _ = solve(rune, base, args.home / choice / str(index), text,
                              tests(function, library, one["check"]), lib, choice, 1000 + index)
            results[choice].append(passed)
    gained = sum(b and not a for a, b in zip(results["none"], results["auto"]))
    lost = sum(a and not b for a, b in zip(results["none"], results["auto"]))
    n = gained + lost
    p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n)
    for choice, passed in results.items():
        print(f"held-out tasks by rune run --adapter {choice}: {sum(passed)} of {len(passed)}")
    print(f"gained {gained}, lost {lost}, McNemar p = {p:.3g}")


if __name__ == "__main__":
    main()
