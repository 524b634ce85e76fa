"""Runs unittest classes, plain test functions and assert scripts without pytest."""

import asyncio
import importlib.util
import inspect
import os
import sys
import types
import unittest

import rune_asserts as asserts
import rune_trace as trace


class Recorder(unittest.TestResult):
    """Keeps the events of one test; it cannot report."""

    def __init__(self):
        super().__init__()
        self.events = []
        self._testRunEntered = True

    def addSuccess(self, test):
        self.events.append(("passed", None))

    def addFailure(self, test, err):
        self.events.append(("failed", err[1]))

    def addError(self, test, err):
        self.events.append((trace.status(err[1]), err[1]))

    def addSkip(self, test, reason):
        self.events.append(("skipped", reason))

    def addExpectedFailure(self, test, err):
        self.events.append(("expected_failure", None))

    def addUnexpectedSuccess(self, test):
        self.events.append(("failed", "unexpected success"))

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.events.append((trace.status(err[1]), (subtest, err[1])))

    def addDuration(self, test, elapsed):
        pass


def described(value):
    """(message, trace) of an event."""
    if isinstance(value, tuple):
        text, where = described(value[1])
        try:
            name = value[0]._subDescription()
        except BaseException:
            name = "subtest"
        return f"{name}: {text}", where
    if isinstance(value, BaseException):
        return trace.message(value), trace.frames(value)
    return ("" if value is None else str(value)), ""


def settle(events):
    """One status for the events of a test: the worst one, with its message."""
    order = ["error", "failed", "skipped", "expected_failure", "passed"]
    worst = min((event[0] for event in events), key=order.index, default=None)
    if worst is None:
        return "error", "the test was not carried out", ""
    picked = [described(value) for status, value in events if status == worst]
    return worst, "\n".join(text for text, _ in picked[:5] if text), picked[0][1]


def canary_case(word):
    """A unittest case that must fail."""

    def body(self):
        self.assertEqual(1, 2)

    return type("Canary" + word, (unittest.TestCase,), {"test_" + word: body})("test_" + word)


def canary_function():
    namespace = {asserts.EXPLAIN: asserts.explain, asserts.COUNT: lambda: None}
    tree = asserts.Rewriter("def canary():\n    assert 1 == 2\n")
    code = compile(asserts.ast.fix_missing_locations(tree.visit(asserts.ast.parse(tree.source))), "/in/tests/canary", "exec")
    exec(code, namespace)
    return namespace["canary"]


def load_module(path, name):
    """Imports a test file; returns its module and its counter of asserts."""
    module = types.ModuleType(name)
    module.__file__ = path
    module.__spec__ = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module
    counted, code = asserts.load(path, vars(module))
    return module, counted, code


def cases_of(module):
    """The unittest cases of a module, in its own order."""
    found = []

    def walk(suite):
        for part in suite:
            if isinstance(part, unittest.TestSuite):
                walk(part)
            else:
                found.append(part)

    walk(unittest.TestLoader().loadTestsFromModule(module))
    return found


def run_cases(path, cases, begin, end):
    """Runs `cases` as one suite, with class and module fixtures; `begin(id)`, `end(id, ...)` report."""
    result, suite, broken = Recorder(), unittest.TestSuite(), []
    for case in cases:
        name = f"{path}::{type(case).__name__}::{getattr(case, '_testMethodName', 'test')}"
        begin(name)
        result.events.clear()
        unittest.TestSuite([case]).run(result)
        if not result.events and broken:
            result.events.append(broken[0])
        broken = [event for event in result.events if event[0] in ("error", "failed")] or broken
        end(name, *settle(result.events))
    result.events.clear()
    suite._tearDownPreviousClass(None, result)
    suite._handleModuleTearDown(result)
    if any(event[0] != "passed" for event in result.events):
        name = f"{path}::tearDown"
        begin(name)
        end(name, *settle(result.events))


def call(function):
    """Runs a test function; returns the events it made."""
    try:
        returned = function()
        if inspect.iscoroutine(returned):
            asyncio.run(returned)
        return [("passed", None)]
    except unittest.SkipTest as error:
        return [("skipped", str(error))]
    except BaseException as error:
        return [(trace.status(error), error)]


def methods_of(cls):
    return [name for name in dir(cls) if name.startswith("test") and callable(getattr(cls, name))]


def call_method(cls, name):
    def run():
        instance = cls()
        getattr(instance, "setup_method", lambda: None)()
        try:
            return getattr(instance, name)()
        finally:
            getattr(instance, "teardown_method", lambda: None)()

    return call(run)


def run_functions(path, module, begin, end):
    """Runs `def test_*` and the methods of `class Test*`."""
    for name, value in list(vars(module).items()):
        if inspect.isfunction(value) and name.startswith("test"):
            begin(f"{path}::{name}")
            end(f"{path}::{name}", *settle(call(value)))
        elif inspect.isclass(value) and name.startswith("Test") and not issubclass(value, unittest.TestCase):
            for method in methods_of(value):
                begin(f"{path}::{name}::{method}")
                end(f"{path}::{name}::{method}", *settle(call_method(value, method)))


def run_file(root, file, begin, end):
    """Runs one test file: each of its expected ids is reported, whatever happens."""
    path, kind = file["path"], file["kind"]
    script = kind == "asserts"
    name = "__main__" if script else os.path.splitext(path)[0].replace("/", ".")
    if script:
        begin(path)
    try:
        module, counted, code = load_module(os.path.join(root, path), name)
        exec(code, vars(module))
    except BaseException as error:
        settled = trace.status(error), *described(error)
        for expected in file["ids"]:
            if not script:
                begin(expected)
            end(expected, *settled)
        return
    if script:
        none = ("skipped", "no assert was carried out", "")
        end(path, *(("passed", "", "") if counted[0] else none))
        return
    run_cases(path, cases_of(module), begin, end)
    run_functions(path, module, begin, end)
