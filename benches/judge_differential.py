"""Holds `rune judge` against plain pytest, test by test, on published packages and on mutants of them.

    python3 benches/judge_differential.py fetch   --cache target/judge-differential
    python3 benches/judge_differential.py plain   --cache target/judge-differential --out PLAIN.tsv
    python3 benches/judge_differential.py honest  --cache target/judge-differential --rune target/release/rune
    python3 benches/judge_differential.py mutants --cache target/judge-differential --rune target/release/rune

`fetch` gets the source archives that the list beside this script names (judge_differential.json), holds each against
its digest, unpacks it, and makes one environment with pytest; the packages are not installed. `plain` runs pytest
alone, twice, and writes how many tests each suite has, how long it takes, and how many change between the two.
`honest` judges each package as it was published; `mutants` judges copies that each have one small fault in a line that
the tests run. In both, pytest and the judge get fresh copies of the same two folders: the package alone, which is put
on the path, and the project without it.

The list has for each package where its modules are in the archive (`solution`, `modules`), where its tests are
(`tests`), what is renamed (`move`) and removed (`leave_out`, with the reason) before that, a pytest configuration that
takes the place of its own (`pytest_ini`), and what else the environment needs (`requirements`). `solution_file` gives
the judge the one module's file in place of its folder; `small` and `mutants` choose.

Prints a table and each test whose status differs. The exit code is 1 when fewer than 99 % of the statuses agree, or
when one solution was called passed that fails in plain pytest. Needs Python 3.11 or newer and nothing else.
"""

import argparse
import ast
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import types

PYTEST = "pytest==8.4.2"
PLAIN_LIMIT = 30
"""Seconds that plain pytest has for a mutant."""
HONEST_LIMIT = 300
"""Seconds for a package as published, in plain pytest and in the judge, and for the judge on a mutant."""
MEMORY_LIMIT = 4 << 30
"""Bytes of address space for plain pytest: a mutant may loop and allocate."""
WANTED_AGREEMENT = 0.99
NOT_RUN = ("missing", "absent")
FAILING = ("failed", "error")

PLUGIN = '''
"""Writes each test's status, and the lines of the solution that ran, as JSON lines to the file PLAIN_REPORT."""
import json, os, sys, threading

SOLUTION = os.environ.get("PLAIN_TRACE")
RAN, FILES = set(), {}

def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        write(id=report.nodeid, when=report.when, outcome=report.outcome, expected=hasattr(report, "wasxfail"))

def pytest_collectreport(report):
    if report.outcome == "failed":
        write(broken=report.nodeid)

def pytest_sessionfinish():
    if SOLUTION:
        sys.settrace(None)
        write(lines=sorted(RAN))

def write(**entry):
    with open(os.environ["PLAIN_REPORT"], "a") as report:
        report.write(json.dumps(entry) + "\\n")

def trace(frame, event, argument):
    name = frame.f_code.co_filename
    if name not in FILES:
        FILES[name] = os.path.relpath(name, SOLUTION) if name.startswith(SOLUTION + os.sep) else None
    if FILES[name] is None:
        return None
    RAN.add((FILES[name], frame.f_lineno))
    return trace

if SOLUTION:
    threading.settrace(trace)
    sys.settrace(trace)
'''


def main():
    args = parse_arguments()
    packages = select(json.loads(args.packages.read_text()), args)
    if args.command in ("honest", "mutants") and not args.rune:
        sys.exit(f"{args.command}: --rune PATH is needed")
    # An ended script ends the runs that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return {"fetch": fetch, "plain": plain, "honest": honest, "mutants": mutants}[args.command](packages, args)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["fetch", "plain", "honest", "mutants"])
    parser.add_argument("--cache", required=True, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--packages", type=pathlib.Path, default=find_packages())
    parser.add_argument("--rune", type=lambda path: pathlib.Path(path).resolve(), help="the binary to hold to pytest")
    parser.add_argument("--python", default="python3.11", help="the interpreter that fetch makes the environment of")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these packages alone")
    parser.add_argument("--small", action="store_true", help="five packages with small, fast suites")
    parser.add_argument("--copies", type=int, default=10, help="mutants per package")
    parser.add_argument("--seed", type=int, default=0, help="picks the mutants")
    parser.add_argument("--jobs", type=int, default=1, help="packages at once; times are comparable with 1")
    parser.add_argument("--out", type=pathlib.Path, help="the figures as JSON (plain: as tab-separated values)")
    return parser.parse_args()


def find_packages():
    """The list beside this script, under the script's name or its plain one."""
    here = pathlib.Path(__file__).resolve()
    own = here.with_suffix(".json")
    return own if own.exists() else here.with_name("packages.json")


def select(packages, args):
    if unknown := set(args.only) - {package["name"] for package in packages}:
        sys.exit(f"no such package in the list: {', '.join(sorted(unknown))}")
    if args.only:
        return [package for package in packages if package["name"] in args.only]
    if args.small:
        return [package for package in packages if package.get("small")]
    if args.command == "mutants":
        return [package for package in packages if package.get("mutants")]
    return packages


# Getting the packages.


def fetch(packages, args):
    """The environment first: its pip gets the archives."""
    environment(packages, args)
    for package in packages:
        archive = download(package, args.cache)
        unpack(archive, tree(package, args.cache))
        print(f"{package['name']} {package['version']}", flush=True)
    return 0


def environment(packages, args):
    venv = args.cache / "venv"
    if not (venv / "bin/python").exists():
        subprocess.run([args.python, "-m", "venv", venv], check=True)
    wanted = sorted({extra for package in packages for extra in package.get("requirements", [])})
    subprocess.run([venv / "bin/pip", "install", "--quiet", PYTEST, *wanted], check=True)


def download(package, cache):
    """The source archive; pip, too, holds it against the digest before it reads its metadata."""
    folder = cache / "sdists"
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := archive_of(package, folder)):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
            wanted.write(f"{package['name']}=={package['version']} --hash=sha256:{package['sha256']}\n")
            wanted.flush()
            options = ["--quiet", "--no-deps", "--no-binary", package["name"], "--dest", folder]
            command = [cache / "venv/bin/pip", "download", *options, "--requirement", wanted.name]
            subprocess.run(command, check=True)
        found = archive_of(package, folder)
    if not found:
        sys.exit(f"{package['name']}: no archive with the digest {package['sha256']}")
    return found


def archive_of(package, folder):
    """The file with the package's digest."""
    version = f"-{package['version']}.tar.gz"
    named = [path for path in folder.iterdir() if path.name.endswith(version)]
    return next((path for path in named if digest(path) == package["sha256"]), None)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(package, cache):
    return cache / "trees" / f"{package['name']}-{package['version']}"


def unpack(archive, where):
    """What the archive's one top folder holds."""
    if where.exists():
        return
    where.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where.parent) as scratch, tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
        (top,) = pathlib.Path(scratch).iterdir()
        top.rename(where)


# The two folders.


def lay(package, cache, where):
    """The package alone and the project without it, both fresh, under `where`."""
    source, project, solution = tree(package, cache), where / "project", where / "solution"
    shutil.copytree(source, project, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for old, new in package.get("move", {}).items():
        (project / new).parent.mkdir(parents=True, exist_ok=True)
        (project / old).rename(project / new)
    for left_out in package.get("leave_out", []):
        remove(project / left_out["path"])
    if "pytest_ini" in package:
        (project / "pytest.ini").write_text(package["pytest_ini"])
    solution.mkdir()
    for module in package["modules"]:
        (project / package["solution"] / module).rename(solution / module)
    return types.SimpleNamespace(project=project, solution=solution, tests=project / package["tests"], scratch=where)


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def fresh(package, args, mutant=None):
    """A context with the two folders, one file of the solution mutated."""
    scratch = tempfile.TemporaryDirectory(prefix="differential-")
    layout = lay(package, args.cache, pathlib.Path(scratch.name).resolve())
    if mutant:
        (layout.solution / mutant["file"]).write_bytes(mutant["text"])
    layout.keep = scratch
    return layout


# Plain pytest.


def run_plain(package, args, mutant=None, limit=HONEST_LIMIT, trace=False):
    """Each test's status in plain pytest, and how the run ended."""
    layout = fresh(package, args, mutant)
    with layout.keep:
        plugins = layout.scratch / "plugins"
        plugins.mkdir()
        (plugins / "plain_report.py").write_text(PLUGIN)
        report = layout.scratch / "report.jsonl"
        variables = plain_variables(layout, plugins, report, trace)
        command = [args.cache / "venv/bin/pytest", "-p", "no:cacheprovider", "-p", "plain_report", package["tests"]]
        ended = run_limited(command, layout, variables, limit)
        entries = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    return read_plain(entries) | ended


def plain_variables(layout, plugins, report, trace):
    home = layout.scratch / "home"
    home.mkdir()
    path = os.pathsep.join([str(layout.solution), str(plugins)])
    traced = {"PLAIN_TRACE": str(layout.solution), "PYTHONHASHSEED": "0"} if trace else {}
    fixed = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return fixed | traced | {"PYTHONPATH": path, "PLAIN_REPORT": str(report)}


def run_limited(command, layout, variables, limit):
    """Ends the run's whole process group when its time is over."""
    started = time.monotonic()
    output = layout.scratch / "output.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=layout.project, env=variables, stdin=subprocess.DEVNULL, stdout=sink,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=limit_memory,
        )
        code = wait(process, limit)
    tail = output.read_bytes()[-2000:].decode(errors="replace")
    return {"exit": code, "seconds": time.monotonic() - started, "tail": tail}


def wait(process, limit):
    """The exit code, or None when the time was over."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_group(process)


def end_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def read_plain(entries):
    """Each id's worst status: a failed teardown makes an error of a passed test, not of a failed one."""
    statuses, broken, lines = {}, [], []
    for entry in entries:
        if "id" in entry:
            status = plain_status(entry)
            known = statuses.get(entry["id"], "passed")
            statuses[entry["id"]] = known if known in ("failed", "error") else status
        broken += [entry["broken"]] if "broken" in entry else []
        lines = entry.get("lines", lines)
    return {"statuses": statuses, "broken": broken, "lines": lines}


def plain_status(entry):
    """A strict unexpected pass has the outcome failed and no mark of expectation."""
    if entry["outcome"] == "skipped":
        return "expected_failure" if entry["expected"] else "skipped"
    if entry["outcome"] == "failed" and entry["when"] != "call":
        return "error"
    return entry["outcome"]


def is_right(plain_run):
    return plain_run["exit"] == 0 and not {"failed", "error"} & set(plain_run["statuses"].values())


# The judge.


def run_judge(package, args, mutant=None):
    """Each test's status and message from `rune judge`, and what it said last."""
    layout = fresh(package, args, mutant)
    with layout.keep:
        solution = layout.solution / package["modules"][0] if package.get("solution_file") else layout.solution
        command = [
            args.rune, "--home", layout.scratch / "home", "judge", solution, "--tests", layout.tests,
            "--python", args.cache / "venv/bin/python", "--json",
        ]
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
        started = time.monotonic()
        output, errors, code = call_judge(command, layout, variables)
        seconds = time.monotonic() - started
    return read_judge(output) | {"seconds": seconds, "exit": code, "tail": errors[-2000:]}


def call_judge(command, layout, variables):
    """Its output and exit code, None when its time was over; SIGTERM first, so that it can end its sandbox."""
    process = subprocess.Popen(
        command, cwd=layout.project, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=HONEST_LIMIT)
        return output, errors, process.returncode
    except subprocess.TimeoutExpired:
        process.terminate()
        time.sleep(2)
        return "", "no answer in time", None
    finally:
        end_group(process)


def read_judge(output):
    tests, completed = {}, {"outcome": "no answer", "assurance": None, "reason": None}
    for line in output.splitlines():
        entry = read_entry(line)
        if entry.get("type") == "judge.test":
            tests[entry["id"]] = entry
        if entry.get("type") == "judge.completed":
            completed = entry
    return {"tests": tests, "completed": completed}


def read_entry(line):
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


# Comparing.


def compare(package, args, known, mutant=None):
    """Both runs of one solution, held against each other; `known` are the ids that the tests must have."""
    limit = PLAIN_LIMIT if mutant else HONEST_LIMIT
    first = run_plain(package, args, mutant, limit)
    judged = run_judge(package, args, mutant)
    rows = differences(first, judged, known)
    flaky = []
    if rows:
        second = run_plain(package, args, mutant, limit)
        flaky = [row["id"] for row in rows if first["statuses"].get(row["id"]) != second["statuses"].get(row["id"])]
        rows = [row for row in rows if row["id"] not in flaky]
    return summary(package, first, judged, known, rows, flaky)


def summary(package, first, judged, known, rows, flaky):
    ids = all_ids(first, judged, known) - set(flaky)
    right, passed = is_right(first), judged["completed"]["outcome"] == "pass"
    return {
        "package": package["name"], "tests": len(ids), "agree": len(ids) - len(rows), "disagree": len(rows),
        "differences": rows, "flaky": flaky, "plain_right": right, "outcome": judged["completed"]["outcome"],
        "reason": judged["completed"].get("reason"), "assurance": judged["completed"].get("assurance"),
        "wrong_called_right": passed and not right, "right_called_wrong": right and not passed,
        "plain_seconds": first["seconds"], "rune_seconds": judged["seconds"], "plain_exit": first["exit"],
        "rune_exit": judged["exit"], "rune_errors": judged["tail"] if not judged["tests"] else "",
    }


def all_ids(first, judged, known):
    """Every test's id; a file that could not be read is no test."""
    return {name for name in {*first["statuses"], *judged["tests"], *known} if "::" in name}


def differences(first, judged, known):
    rows = []
    for name in sorted(all_ids(first, judged, known)):
        plain_said = first["statuses"].get(name, "missing" if name in known else "absent")
        entry = judged["tests"].get(name, {"status": "absent"})
        if not same(plain_said, entry["status"]):
            rows.append({"id": name, "pytest": plain_said, "rune": entry["status"], "message": entry.get("message")})
    return rows


def same(plain_said, rune_said):
    """A test that pytest did not reach has no status of its own: there the judge must only not call it passed.

    What unittest calls an error, an exception in a test that is no assertion's, pytest calls failed.
    """
    if plain_said in NOT_RUN:
        return rune_said in (*NOT_RUN, *FAILING)
    return plain_said == rune_said or {plain_said, rune_said} == set(FAILING)


# Mutants.

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}
BOOLEAN = {ast.And: ast.Or, ast.Or: ast.And}


def make_mutants(package, args, lines):
    """Copies that each have one fault, in a function's line that the tests ran; the same ones for the same seed."""
    found = []
    layout = fresh(package, args)
    with layout.keep:
        for name in sorted({name for name, _ in lines}):
            ran = {line for file, line in lines if file == name}
            found += [fault | {"file": name} for fault in faults((layout.solution / name).read_bytes(), ran)]
    return choose(found, args.copies, random.Random(f"{args.seed}:{package['name']}"))


def choose(found, count, generator):
    """Each kind of fault is as likely, however many places there are for it."""
    by_kind = {}
    for fault in found:
        by_kind.setdefault(fault["kind"], []).append(fault)
    chosen = []
    while by_kind and len(chosen) < count:
        kind = generator.choice(sorted(by_kind))
        chosen.append(by_kind[kind].pop(generator.randrange(len(by_kind[kind]))))
        if not by_kind[kind]:
            del by_kind[kind]
    return chosen


def faults(text, ran):
    """Every fault that can be put into the functions' lines that ran."""
    starts = [0]
    for line in text.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    found = []
    for node in inside_functions(ast.parse(text)):
        for kind, new in changes(node) if node.lineno in ran else ():
            place = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            if (mutated := splice(text, place, new)) is not None:
                found.append({"kind": kind, "line": node.lineno, "new": new, "text": mutated})
    return found


def inside_functions(module):
    """The nodes of functions' bodies; a format string's parts have no places of their own in Python 3.11."""
    waiting = [(node, False) for node in module.body]
    while waiting:
        node, inside = waiting.pop()
        if inside and hasattr(node, "lineno"):
            yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += [(child, True) for child in node.body]
        elif not isinstance(node, ast.JoinedStr):
            waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def changes(node):
    """The node's faulty forms, each with its kind."""
    if isinstance(node, ast.Return):
        return [("return None", "return None")] if node.value is not None else []
    if isinstance(node, (ast.Assign, ast.AugAssign)) or is_call(node):
        return [("delete a statement", "pass")]
    if isinstance(node, (ast.If, ast.While)):
        return []
    return [(kind, f"({ast.unparse(new)})") for kind, new in changed_expression(node)]


def is_call(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def changed_expression(node):
    if isinstance(node, ast.Compare):
        swapped = [COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        yield "swap a comparison", ast.Compare(node.left, swapped, node.comparators)
        yield "negate a condition", ast.UnaryOp(ast.Not(), node)
    if isinstance(node, ast.BoolOp):
        yield "swap and/or", ast.BoolOp(BOOLEAN[type(node.op)](), node.values)
        yield "negate a condition", ast.UnaryOp(ast.Not(), node)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield "change arithmetic", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "off by one", ast.Constant(node.value + 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negate a condition", node.operand


def splice(text, place, new):
    """The text with the new part in its place, or None when that is no Python."""
    mutated = text[: place[0]] + new.encode() + text[place[1] :]
    try:
        compile(mutated, "mutant", "exec")
    except (SyntaxError, ValueError):
        return None
    return mutated


# The commands.


def plain(packages, args):
    """Counts, times and what changes between two runs."""
    rows = [("package", "version", "tests", "passed", "other", "seconds", "exit", "unsteady", "note")]
    for package in packages:
        first, second = run_plain(package, args), run_plain(package, args)
        rows.append(plain_row(package, first, second))
        print("\t".join(map(str, rows[-1])), flush=True)
        if first["exit"] != 0:
            print(first["tail"], file=sys.stderr)
    if args.out:
        args.out.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return 0


def plain_row(package, first, second):
    said = list(first["statuses"].values())
    others = {status: said.count(status) for status in sorted(set(said) - {"passed"})}
    listed = ",".join(f"{status}:{count}" for status, count in others.items()) or "-"
    names = {*first["statuses"], *second["statuses"]}
    unsteady = sum(first["statuses"].get(name) != second["statuses"].get(name) for name in names)
    note = "broken: " + ", ".join(first["broken"]) if first["broken"] else ""
    seconds = f"{min(first['seconds'], second['seconds']):.2f}"
    passed = said.count("passed")
    return package["name"], package["version"], len(said), passed, listed, seconds, first["exit"], unsteady, note


def honest(packages, args):
    def judge_one(package):
        return [compare(package, args, known=set())]

    return report(run_all(judge_one, packages, args), args, packages)


def mutants(packages, args):
    def judge_mutants(package):
        traced = run_plain(package, args, trace=True)
        found = []
        for mutant in make_mutants(package, args, traced["lines"]):
            about = {key: mutant[key] for key in ("file", "line", "kind", "new")}
            found.append(compare(package, args, set(traced["statuses"]), mutant) | {"mutant": about})
        return found

    return report(run_all(judge_mutants, packages, args), args, packages)


def run_all(judge, packages, args):
    """Every package's results in the list's order, each printed when it's there."""
    found = []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for results in pool.map(judge, packages):
            found.append(results)
            for line in told(results):
                print(line, flush=True)
    return found


def told(results):
    """What there is to say of one package's results besides the table."""
    for result in results:
        name = result["package"]
        if mutant := result.get("mutant"):
            name += f" [{mutant['file']}:{mutant['line']} {mutant['kind']}: {mutant['new'][:60]}]"
        for row in result["differences"]:
            message = " ".join((row["message"] or "").split())[:200]
            yield f"differs: {name} {row['id']}: pytest {row['pytest']}, rune {row['rune']}: {message}"
        if result["wrong_called_right"]:
            yield f"WRONG CALLED RIGHT: {name} (pytest's exit code {result['plain_exit']})"
        if result["right_called_wrong"] or result["rune_errors"]:
            yield f"right called {result['outcome']}: {name}: {result['reason']} {result['rune_errors'][-300:]}"
        if result["flaky"]:
            yield f"changes in plain pytest, left out: {name}: {', '.join(result['flaky'])}"


def report(found, args, packages):
    """The table, the totals and the exit code."""
    for line in table([row_of(results) for results in found if results]):
        print(line)
    flat = [result for results in found for result in results]
    total = totals(flat)
    print("\n" + ", ".join(f"{name} {value}" for name, value in total.items()))
    if args.out:
        args.out.write_text(json.dumps({"command": args.command, "totals": total, "results": flat}, indent=1) + "\n")
    complete = len(found) == len(packages) and all(found)
    agreed = total["agreement"] is not None and total["agreement"] >= WANTED_AGREEMENT
    return 0 if complete and agreed and not total["wrong called right"] else 1


HEADER = ("package", "copies", "tests", "agree", "disagree", "share", "assurance", "pytest s", "rune s", "ratio")


def row_of(results):
    tests, agree = (sum(result[key] for result in results) for key in ("tests", "agree"))
    plain_seconds, rune_seconds = (sum(result[key] for result in results) for key in ("plain_seconds", "rune_seconds"))
    assurances = "/".join(sorted({str(result["assurance"]) for result in results}))
    share = f"{agree / tests:.4f}" if tests else "-"
    times = f"{plain_seconds:.2f}", f"{rune_seconds:.2f}", f"{rune_seconds / plain_seconds:.2f}"
    return results[0]["package"], len(results), tests, agree, tests - agree, share, assurances, *times


def table(rows):
    """The columns as wide as what is in them; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in [HEADER, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for row in cells:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        yield "  ".join([row[0].ljust(widths[0]), *numbers])


def totals(flat):
    tests, agree = (sum(result[key] for result in flat) for key in ("tests", "agree"))
    separate = sum(result["assurance"] == "separate" for result in flat)
    return {
        "solutions": len(flat), "tests": tests, "agree": agree, "agreement": agree / tests if tests else None,
        "failing in pytest": sum(not result["plain_right"] for result in flat),
        "wrong called right": sum(result["wrong_called_right"] for result in flat),
        "right called wrong": sum(result["right_called_wrong"] for result in flat),
        "in full agreement": sum(not result["disagree"] for result in flat),
        "separate": separate / len(flat) if flat else None,
    }


if __name__ == "__main__":
    sys.exit(main())
