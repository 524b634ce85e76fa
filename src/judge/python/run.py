"""Runs a suite against the solution in /box and reports each test on the result channel."""

import json
import os
import sys

# "", or the folder that stands in for the jail.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).rstrip("/")
TESTS = ROOT + "/in/tests"
SOLUTION = ROOT + "/box"
RUNNER = ROOT + "/in/rune"
GUARDED_NAMES = {"pytest", "_pytest", "pluggy", "hypothesis", "numpy", "pandas"}


def preload(plan):
    """Imports the tests' own tools before the solution can stand in for them."""
    wanted = {name for file in plan["files"] for name in file["imports"]}
    loaded = set()
    stdlib = getattr(sys, "stdlib_module_names", ())
    for name in sorted(wanted & (set(stdlib) | GUARDED_NAMES)):
        try:
            __import__(name)
            loaded.add(name)
        except Exception:
            continue
    return loaded


def reporters(report, changed):
    """`begin` and `end` of a test; both stop everything once the framework was changed."""
    reported = 0

    def check():
        what = changed()
        if what is not None:
            report("tamper", message=f"{what} was replaced")
            stop(1)

    def begin(name, case=""):
        check()
        report("begin", id=name, case=case)

    def end(name, status, message, where, case=""):
        nonlocal reported
        check()
        reported += 1
        report("test", id=name, case=case, status=status, message=message, trace=where)

    def close():
        check()
        report("end", n=reported)

    stop = os._exit
    return begin, end, close


def read_plan():
    """Takes the plan from standard input and leaves nothing there to read."""
    plan = json.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, closefd=False)
    return plan


def forget():
    """Takes the runner's modules out of reach of `import`."""
    for name in [name for name in sys.modules if name.startswith("rune_")]:
        del sys.modules[name]
    sys.modules["__main__"] = type(sys)("__main__")
    sys.argv[:] = ["test"]


def paths(plan):
    """The standard library, then the suite's tools and helpers, the solution, and site-packages."""
    site = [entry for entry in sys.path if "site-packages" in entry or "dist-packages" in entry]
    own = [entry for entry in sys.path if entry not in site]
    sys.path[:] = own + plan["libs"] + [TESTS] + site

    def enter():
        if SOLUTION not in sys.path:
            sys.path.insert(len(own) + len(plan["libs"]) + 1, SOLUTION)

    return enter


def main():
    plan = read_plan()
    sys.path.insert(0, RUNNER)
    import rune_channel
    import rune_guard
    import rune_native

    report = rune_channel.open_channel(bytes.fromhex(plan.pop("key")))
    canary, stop = plan.pop("canary"), os._exit
    with_pytest = [file for file in plan["files"] if file["kind"] == "pytest"]
    native = [file for file in plan["files"] if file["kind"] != "pytest"]
    enter = paths({**plan, "libs": plan["libs"] + [RUNNER]})
    if with_pytest:
        try:
            import rune_with_pytest
        except ImportError:
            report("pytest_missing")
            stop(0)
    extra = preload(plan)
    if plan["apart"]:
        import rune_apart

        def inseparable():
            report("inseparable")
            stop(0)

        rune_apart.install(inseparable)
    sys.path.remove(RUNNER)
    forget()
    if plan["apart"]:
        sys.modules["rune_apart"] = rune_apart
    os.chdir(SOLUTION)
    watch = [rune_guard.snapshot(rune_guard.framework(extra))]
    begin, end, close = reporters(report, lambda: watch[0]())
    secret = {f"{TESTS}/{path}" for path in plan["sources"]}
    rune_guard.install(tuple(plan["libs"]) + (ROOT + "/in/",) + tuple(p for p in sys.path if "site-packages" in p), secret)
    if with_pytest:

        def configured():
            watch[0] = rune_guard.snapshot(rune_guard.framework(extra))
            enter()

        rune_with_pytest.run_files(TESTS, with_pytest, "test_" + canary, configured, begin, end)
    enter()
    kinds = {file["kind"] for file in native}
    for index, file in enumerate(native):
        rune_native.run_file(TESTS, file, begin, end)
        if index == len(native) // 2:
            run_canaries(rune_native, kinds, canary, begin, end)
    close()
    stop(0)


def run_canaries(native, kinds, canary, begin, end):
    """One test that must fail for each way of testing."""
    if "unittest" in kinds:
        native.run_cases("canary", [native.canary_case(canary)], begin, end)
    begin("canary::" + canary)
    end("canary::" + canary, *native.settle(native.call(native.canary_function())))


main()
