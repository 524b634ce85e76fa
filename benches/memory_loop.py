"""Whether experience helps, with real sessions: records from the first solved one on, then an adapter.

    python3 benches/memory_loop.py --rune target/release/rune --home /tmp/loop [--train 66] [--test 32]

An invented library is written; `rune run` works on tasks that use it, with the library's reference in the task: once
with `--memory none` and once with `--memory records`, each in a home of its own. Then the sessions solved with records
are trained on, the adapter is measured through the pipeline on tasks in other words, and held-out tasks, in still other
words, are run with nothing, with records, with the adapter, and with both. Prints the scores and McNemar's p. Called
again, it goes on where it was stopped. `--until records` stops before the training.
"""

import argparse
import json
import math
import pathlib
import shutil
import subprocess
import sys

BUDGET = ["--candidates", "3", "--max-tokens", "1000"]


def call(arguments, **options):
    print("+", *(part for part in arguments[1:] if "\n" not in part), file=sys.stderr, flush=True)
    return subprocess.run(arguments, stdout=subprocess.PIPE, text=True, **options)


def reference(readme):
    """The README's functions, one a line."""
    parts = [part.split("\n\n") for part in readme.split("\n## ")[1:]]
    functions = [(head.strip("`"), line) for head, line, *_ in parts if head.endswith("(xs)`")]
    return "\n".join(f"- {head}: {line.replace('`', '')}" for head, line in functions)


def question(function, phrase, variable, library, functions):
    return (
        f"The Python package {library} is installed. Its functions:\n{functions}\n\n"
        f"Write solution.py with a function {function}({variable}) that returns the {phrase} {variable}. It imports "
        f"{library} and calls the one function of {library} that does this; it computes nothing itself."
    )


def tests(function, library, check):
    """A suite that wants the reference's values, and a call of the library's function in the code.

    That the call happened cannot be tested: solutions run apart from their tests."""
    value = eval("lambda v: " + check["reference"].replace("{v}", "v"))
    cases = "\n".join(
        f"        self.assertEqual({function}({items}), {value(list(items))})" for items in check["inputs"]
    )
    return (
        f"import ast\nimport unittest\n\nimport solution\nfrom solution import {function}\n\n\n"
        f"class Test(unittest.TestCase):\n    def test_values(self):\n{cases}\n\n"
        f"    def test_uses_the_library(self):\n        with open(solution.__file__) as file:\n"
        f"            tree = ast.parse(file.read())\n"
        f"        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]\n"
        f"        self.assertIn('{check['required']['names'][0]}', [call.split('.')[-1] for call in calls])\n"
    )


def parts(code):
    """Name, wording and argument of a function with a docstring."""
    function, rest = code.split("def ")[1].split("(", 1)
    variable = rest.split(")")[0]
    return function, rest.split('"""Returns the ')[1].split(f" {variable}, using")[0], variable


class Loop:
    def __init__(self, args):
        self.args = args
        for memory in ("none", "records"):
            home = args.home / memory
            home.mkdir(parents=True, exist_ok=True)
            if not (home / "models").exists():
                (home / "models").symlink_to(pathlib.Path.home() / ".rune/models")
        self.data = args.home / "library"
        if not self.data.exists():
            call([*self.rune("none"), "eval", "library", "--seed", str(args.seed), "--out", str(self.data)], check=True)
        self.lib = self.data / "lib"
        self.library = next(path.name for path in self.lib.iterdir())
        self.functions = reference((self.data / "README.md").read_text())
        self.tasks = [json.loads(line) for line in (self.data / "suite.jsonl").read_text().splitlines()[1:]]
        self.tasks = [task for task in self.tasks if task["id"].split("/")[1] == "T2"]

    def rune(self, home):
        """The command with the home of the sessions without or with records."""
        return [self.args.rune, "--home", str(self.args.home / home)]

    def records(self):
        """Questions for sessions: the wordings of the training records, each with the check of its operation."""
        checks = {task["family"].split("/")[1]: task["check"] for task in self.tasks}
        for line in (self.data / "train.jsonl").read_text().splitlines():
            record = json.loads(line)
            code = record["messages"][1]["content"]
            if "def " in code:
                yield parts(code), checks[record["family"].split("/")[1]]

    def work(self, about, check):
        return {
            "text": question(*about, self.library, self.functions),
            "tests": tests(about[0], self.library, check),
        }

    def solve(self, name, work, seed, home, flags):
        """Whether `rune run` solves it, and its session; of an earlier call what came of it then."""
        folder = self.args.home / name
        done = folder / "done.json"
        if done.exists():
            return json.loads(done.read_text())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test_solution.py").write_text(work["tests"])
        run = call(
            [*self.rune(home), "run", work["text"], "--tests", str(folder / "test_solution.py"), "--out",
             str(folder / "out"), "--force", "--lib", str(self.lib), *flags, *BUDGET, "--seed", str(seed),
             "--model", self.args.model, "--json"],
            stderr=subprocess.DEVNULL,
        )
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        session = next(line["subject"] for line in lines if line["type"] == "session.started")
        done.write_text(json.dumps([run.returncode == 0, session]))
        return [run.returncode == 0, session]

    def sessions(self):
        """Works on all tasks without and with records; returns the sessions that were solved with them."""
        found = {"none": [], "records": []}
        tasks = list(zip(range(self.args.train), self.records()))
        for index, (about, check) in tasks:
            for memory, results in found.items():
                work, flags = self.work(about, check), ["--memory", memory, "--adapter", "none"]
                results.append(self.solve(f"train-{memory}/{index}", work, index, memory, flags))
            if (index + 1) % 11 == 0 or index + 1 == len(tasks):
                counts = [sum(passed for passed, _ in results) for results in found.values()]
                print(f"after {index + 1} tasks: {counts[0]} solved without, {counts[1]} with records", flush=True)
        compared("records", *([passed for passed, _ in results] for results in found.values()))
        return [session for passed, session in found["records"] if passed]

    def train(self, sessions):
        words = [word for session in sessions for word in ("--session", session)]
        known = self.args.home / "adapter"
        if not known.exists():
            done = call([*self.rune("records"), "train", *words, "--model", self.args.model, "--name", self.library],
                        check=True)
            known.write_text(done.stdout.strip())
        return known.read_text()

    def measure(self, adapter):
        """Through the pipeline, on the tasks in the first of the held-out wordings."""
        suite = self.args.home / f"{self.library}.jsonl"
        tasks = [task for task in self.tasks if task["family"].endswith("/E")]
        for task in tasks:
            task["work"] = self.work(parts(task["messages"][0]["content"]), task["check"])
        suite.write_text("".join(json.dumps(task) + "\n" for task in tasks))
        print(call([*self.rune("records"), "eval", "--suite", str(suite), "--lib", str(self.lib), "--adapter", adapter,
                    "--model", self.args.model, "--strategy", "pipeline", *BUDGET], check=True).stdout, flush=True)

    def compare(self, adapter):
        """The tasks in the second of the held-out wordings, with each kind of memory."""
        tasks = [task for task in self.tasks if task["family"].endswith("/F")]
        tasks = tasks[:: max(1, len(tasks) // self.args.test)][: self.args.test]
        works = [self.work(parts(task["messages"][0]["content"]), task["check"]) for task in tasks]
        results = {}
        for memory in ("none", "records", "adapter", "both"):
            home = self.frozen(memory)
            flags = ["--memory", memory, "--adapter", adapter if memory in ("adapter", "both") else "none"]
            results[memory] = [
                self.solve(f"{memory}/{index}", work, 1000 + index, home, flags)[0] for index, work in enumerate(works)
            ]
            print(f"held-out tasks with --memory {memory}: {sum(results[memory])} of {len(tasks)}", flush=True)
            if memory != "none":
                compared(memory, results["none"], results[memory])

    def frozen(self, memory):
        """A copy of the home as the training left it: each kind of memory sees the same earlier sessions."""
        home = self.args.home / f"home-{memory}"
        if not home.exists():
            shutil.copytree(self.args.home / "records", home, symlinks=True)
        return home.name


def compared(name, before, after):
    gained = sum(b and not a for a, b in zip(before, after))
    lost = sum(a and not b for a, b in zip(before, after))
    n = gained + lost
    p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n)
    print(f"{name} against none: gained {gained}, lost {lost}, McNemar p = {p:.3g}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rune", default="rune")
    parser.add_argument("--home", required=True, type=pathlib.Path)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--seed", default=11, type=int)
    parser.add_argument("--train", default=66, type=int)
    parser.add_argument("--test", default=32, type=int)
    parser.add_argument("--until", choices=["records", "adapter"], default="adapter")
    args = parser.parse_args()
    loop = Loop(args)
    solved = loop.sessions()
    if args.until == "adapter":
        adapter = loop.train(solved)
        loop.measure(adapter)
        loop.compare(adapter)


if __name__ == "__main__":
    main()
