"""Runs a suite with its users' framework and reports every test."""

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import sys
import time
import types
import unittest

import rune_asserts as asserts
import rune_trace as trace

BUDGET = 2 << 20


LONGEST_ID = 4000
"""Maximum characters of a test's name: parameters may be whole documents."""


def plain(value, limit):
    """Makes text valid for any JSON reader, and shortens it in the middle."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit // 2] + "\n[...]\n" + text[-limit // 2 :]


class Reporter:
    """Writes one line of JSON per event."""

    def __init__(self, write, box):
        self.write, self.left, self.names, self.started = write, BUDGET, {}, {}
        self.box = box
        self.after = lambda: None

    def say(self, kind, **fields):
        for name, value in fields.items():
            if isinstance(value, str):
                # Without a file system of the jail's own, the work directory has a different path.
                value = value.replace(self.box, "/box") if self.box != "/box" else value
                fields[name] = plain(value, LONGEST_ID if name == "id" or self.left > 0 else 200)
                self.left -= len(fields[name])
        self.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")

    def collected(self, ids):
        self.say("collected", ids=[plain(name, LONGEST_ID) for name in ids])

    def begin(self, name):
        """Returns the test's name for the report; a repeated name gets a number."""
        n = self.names[name] = self.names.get(name, 0) + 1
        name = name if n == 1 else f"{name}#{n}"
        self.started[name] = time.perf_counter()
        self.say("begin", id=name)
        return name

    def end(self, name, status, message="", where="", error=None):
        note = self.after()
        if note is not None and status in ("passed", "expected_failure", "skipped"):
            status, message = "failed", note
        seconds = time.perf_counter() - self.started.pop(name, time.perf_counter())
        is_assertion = error is None or isinstance(error, AssertionError)
        limit = limit_of(error)
        self.say("test", id=name, status=status, message=message, trace=where, seconds=round(seconds, 6), raised=not is_assertion, limit=limit)


def limit_of(error):
    """Returns the name of the limit that an exception indicates, or an empty string."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, MemoryError):
            return "memory"
        if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
            return "processes"
        if isinstance(error, BlockingIOError) and error.errno == 11 and error.filename is None:
            return "processes"
        error, seen = error.__cause__ or error.__context__, seen + 1
    return ""


# unittest.


class Recorder(unittest.TestResult):
    """Reports each test as it ends."""

    def __init__(self, reporter, name_of):
        super().__init__()
        self.reporter, self.name_of, self.events, self.running = reporter, name_of, [], None

    def startTest(self, test):
        super().startTest(test)
        self.begin(test)

    def begin(self, test):
        self.events, self.running = [], self.reporter.begin(self.name_of(test))

    def stopTest(self, test):
        super().stopTest(test)
        self.settle()

    def settle(self):
        order = ["error", "failed", "expected_failure", "skipped", "passed"]
        events, name, self.running = self.events, self.running, None
        worst = min((event[0] for event in events), key=order.index, default="error")
        picked = [event[1] for event in events if event[0] == worst] or ["the test was not carried out"]
        if worst == "passed" and any(event[0] == "skipped" for event in events):
            worst = "passed"
        texts = [described(value) for value in picked]
        error = picked[0][1] if isinstance(picked[0], tuple) else picked[0]
        error = error if isinstance(error, BaseException) else None
        self.reporter.end(name, worst, "\n".join(text for text, _ in texts[:5] if text), texts[0][1], error)

    def note(self, test, status, value):
        if self.running is None:  # what belongs to a class or module, not to a test
            self.begin(test)
            self.events.append((status, value))
            return self.settle()
        self.events.append((status, value))

    def addSuccess(self, test):
        self.note(test, "passed", None)

    def addFailure(self, test, err):
        self.note(test, "failed", err[1])

    def addError(self, test, err):
        self.note(test, "error", err[1])

    def addSkip(self, test, reason):
        if self.running is None and isinstance(test, unittest.TestCase):
            self.begin(test)  # Python 3.12.1 ends a test that is skipped and never begins it
        self.note(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        self.note(test, "expected_failure", None)

    def addUnexpectedSuccess(self, test):
        self.note(test, "failed", "unexpected success")

    def addSubTest(self, test, subtest, err):
        if err is not None:
            kind = "failed" if issubclass(err[0], test.failureException) else "error"
            self.note(test, kind, (subtest, err[1]))

    def addDuration(self, test, elapsed):
        pass


def described(value):
    """Returns message and trace of an event."""
    if isinstance(value, tuple):
        text, where = described(value[1])
        try:
            name = value[0]._subDescription()
        except Exception:
            name = "subtest"
        return f"{name}: {text}", where
    if isinstance(value, BaseException):
        return trace.message(value), trace.frames(value)
    return ("" if value is None else str(value)), ""


class ExplainingLoader(importlib.machinery.SourceFileLoader):
    """Compiles a test file so that a failing `assert` says what it compared."""

    def get_code(self, name):
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data, path, *, _optimization=-1):
        return asserts.compiled(importlib.util.decode_source(data), data, path)

    def exec_module(self, module):
        vars(module)[asserts.EXPLAIN] = asserts.explain
        super().exec_module(module)


def load(root, path):
    """Imports a test file under the same module name as its users' runner."""
    parts = path[: -len(".py")].split("/")
    folder = len(parts) - 1
    while folder and os.path.exists(os.path.join(root, *parts[:folder], "__init__.py")):
        folder -= 1
    home, name = os.path.join(root, *parts[:folder]), ".".join(parts[folder:])
    if parts[-1] == "__init__":
        name = name.rpartition(".")[0] or name
    if home not in sys.path:
        sys.path.insert(0, home)
    full = os.path.join(root, path)
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == full:
            return known
        name = path[: -len(".py")].replace("/", ".")
    if "." in name:
        importlib.import_module(name.rpartition(".")[0])
    spec = importlib.util.spec_from_file_location(name, full, loader=ExplainingLoader(name, full))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def name_in(paths):
    """Returns the id of a unittest case in the report."""
    def name_of(test):
        if isinstance(test, unittest.suite._ErrorHolder):
            kind, _, inner = test.description.partition(" (")
            inner = inner.rstrip(")")
            path = next((path for module, path in paths.items() if inner == module or inner.startswith(module + ".")), "")
            rest = inner[len(next((module for module in paths if paths[module] == path), "")) :].strip(".")
            return "::".join(part for part in (path, rest, kind) if part)
        if isinstance(test, FunctionCase):
            return test.__rune_id__
        cls = type(test)
        path = paths.get(cls.__module__) or getattr(test, "__rune_path__", "")
        method = getattr(test, "_testMethodName", None)
        if method is None or cls.__module__.startswith(("unittest", "doctest")):
            return "::".join(part for part in (path, test.id()) if part)
        return "::".join(part for part in (path, *cls.__qualname__.replace("<locals>.", "").split("."), method) if part)

    return name_of


def flat(suite):
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from flat(part)
        else:
            yield part


class FunctionCase(unittest.FunctionTestCase):
    """A test function; any exception is a failure, as in pytest."""

    failureException = Exception


def functions_of(module, path):
    for name, value in list(vars(module).items()):
        if name.startswith("test") and is_plain_test(value):
            case = FunctionCase(value)
            case.__rune_id__ = f"{path}::{name}"
            yield case


def run_unittest(root, targets, reporter, run=True, with_functions=False):
    """Runs the files with unittest's loader and suite."""
    suite, paths = unittest.TestSuite(), {}
    name_of = name_in(paths)
    for path in targets:
        try:
            module = load(root, path)
            paths[module.__name__] = path
            loaded = unittest.TestLoader().loadTestsFromModule(module)
            if with_functions:
                loaded.addTests(functions_of(module, path))
        except unittest.SkipTest as error:
            name = reporter.begin(path)
            reporter.end(name, "skipped", str(error))
            continue
        except trace.passing():
            raise
        except BaseException as error:
            name = reporter.begin(path)
            reporter.end(name, "error", *described(error), error)
            continue
        for case in flat(loaded):
            if type(case).__module__ not in paths:
                case.__rune_path__ = path
        suite.addTest(loaded)
    reporter.collected([name_of(case) for case in flat(suite)])
    if run:
        recorder = Recorder(reporter, name_of)
        suite.run(recorder)


# Scripts of asserts.


def run_scripts(root, targets, reporter, run=True):
    reporter.collected(targets)
    for path in targets if run else ():
        name, full = reporter.begin(path), os.path.join(root, path)
        module = types.ModuleType("__main__")
        module.__file__ = full
        counted = []
        vars(module).update({asserts.EXPLAIN: asserts.explain, asserts.COUNT: lambda: counted.append(1)})
        sys.modules["__main__"] = module
        folder = os.path.dirname(full)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        try:
            with open(full, "rb") as file:
                data = file.read()
            exec(asserts.compiled(importlib.util.decode_source(data), data, full, is_counted=True), vars(module))
        except trace.passing():
            raise
        except BaseException as error:
            status = "failed" if isinstance(error, AssertionError) else "error"
            reporter.end(name, status, *described(error), error)
        else:
            holds = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
            if holds:
                reporter.end(name, "error", f"{path} holds unittest classes that a script does not run")
            elif not counted:
                reporter.end(name, "skipped", "no assert was carried out")
            else:
                reporter.end(name, "passed")


# pytest.


class Plugin:
    """pytest plugin that reports the tests."""

    def __init__(self, reporter, run):
        self.reporter, self.run, self.phases, self.names = reporter, run, {}, {}

    def pytest_collection_finish(self, session):
        self.reporter.collected([item.nodeid for item in session.items])
        if not self.run:
            session.items[:] = []

    def pytest_collectreport(self, report):
        if report.failed:
            name = self.reporter.begin(report.nodeid or ".")
            self.reporter.end(name, "error", collect_message(report), "", RuntimeError())
        elif report.skipped:
            name = self.reporter.begin(report.nodeid)
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.reporter.end(name, "skipped", str(reason))

    def pytest_runtest_logstart(self, nodeid):
        self.names[nodeid] = self.reporter.begin(nodeid)
        self.phases[nodeid] = []


def makereport(plugin, pytest):
    """Hook that gets both the exception and the report of a phase."""
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        phases = plugin.phases.setdefault(item.nodeid, [])
        status, message, where = settle(report, call, pytest)
        error = call.excinfo.value if call.excinfo else None
        if call.when == "call" or status not in ("passed",):
            phases.append((status if call.when == "call" or status != "failed" else "error", message, where, error))
        if call.when == "teardown":
            order = ["error", "failed", "expected_failure", "skipped", "passed"]
            worst = min(phases, key=lambda phase: order.index(phase[0]), default=("error", "the test was not carried out", "", None))
            failed = next((phase for phase in phases if phase[0] == "failed"), None)
            name = plugin.names.pop(item.nodeid, item.nodeid)
            plugin.reporter.end(name, *(failed or worst))
            plugin.phases.pop(item.nodeid, None)
        return report

    return pytest_runtest_makereport


def settle(report, call, pytest):
    """Returns status, message and trace of one phase of a test."""
    if report.skipped:
        status = "expected_failure" if hasattr(report, "wasxfail") else "skipped"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        return status, str(getattr(report, "wasxfail", "") or reason)[-300:], ""
    if report.passed:
        return "passed", "", ""
    error = call.excinfo.value if call.excinfo else None
    if error is None:
        return "failed", report.longreprtext[-2000:], ""
    text = str(error) if isinstance(error, (AssertionError, pytest.fail.Exception)) else trace.message(error)
    return "failed", text or trace.message(error), trace.frames(error)


def collect_message(report):
    """Returns the error lines of a failed import, without pytest's frames."""
    lines = str(report.longreprtext).splitlines()
    picked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return "\n".join(picked or lines[-5:])


def run_pytest(root, targets, reporter, run=True, extra=()):
    import pytest

    plugin = Plugin(reporter, run)
    Plugin.pytest_runtest_makereport = makereport(plugin, pytest)
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    options = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "-q", "--no-header", "--tb=short", "--rootdir", root, "--confcutdir", root, *extra]
    return pytest.main(options + [os.path.join(root, path) for path in targets], plugins=[plugin])


def choose(root, files, targets):
    """Detects the framework that the files need: `unittest` if it finds all tests, `script` if there are none."""
    kinds = {}
    for path in targets:
        if not path.endswith(".py"):
            return "pytest"
        try:
            module = load(root, path)
        except Exception as error:
            if isinstance(error, SyntaxError) and error.filename == os.path.join(root, path):
                raise
            kinds[path] = written_kind(os.path.join(root, path))
            continue
        own = [value for name, value in vars(module).items() if name.startswith(("test", "Test"))]
        cases = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
        functions = [value for value in own if isinstance(value, types.FunctionType) and value.__module__ == module.__name__]
        functions += [value for value in own if isinstance(value, type) and value not in cases and value.__module__ == module.__name__ and value.__dict__.get("__test__", True)]
        plain = functions and all(is_plain_test(value) for value in functions)
        kinds[path] = "functions" if plain else "pytest" if functions else "unittest" if cases or hasattr(module, "load_tests") else "script"
    found = set(kinds.values())
    for kind in ("pytest", "functions"):
        if kind in found:
            return kind
    return found.pop() if len(found) == 1 else "unittest"


def written_kind(path):
    """Detects the framework of a file that cannot be imported without the solution."""
    with open(path, "rb") as file:
        body = ast.parse(file.read()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    cases = [node for node in classes if any(ast.unparse(base).endswith("TestCase") for base in node.bases)]
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    if any(ast.unparse(node.args) for node in functions) or any(node.name.startswith("Test") for node in classes if node not in cases):
        return "pytest"
    return "functions" if functions else "unittest" if cases else "script"


def is_plain_test(value):
    """Whether a test is a function that pytest would simply call, which unittest can do as well."""
    if not isinstance(value, types.FunctionType) or not value.__name__.startswith("test"):
        return False
    code = value.__code__
    special = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    return not code.co_flags & special and code.co_argcount + code.co_kwonlyargcount == 0


def run(framework, root, targets, reporter, only_collect=False, extra=()):
    if framework == "pytest":
        return run_pytest(root, targets, reporter, not only_collect, extra)
    if framework == "script":
        return run_scripts(root, targets, reporter, not only_collect)
    return run_unittest(root, targets, reporter, not only_collect, framework == "functions")
