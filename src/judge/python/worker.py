"""The solution's side: imports the solution and serves the tests' requests. It has no tests and decides nothing."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import pathlib
import sys
import types
import warnings

import rune_remote as remote
import rune_standard as standard
from rune_surroundings import NOTHING, Input, Output, Surroundings


class WorkerLink(remote.Link):
    def __init__(self, stream, solution):
        super().__init__(stream, "w")
        self.own_modules = set(solution)
        self.surroundings = Surroundings(self)
        self.replaced = {}
        # Paths that were requested from the tests' side, or sent by it.
        self.asked = set()

    def is_own_module(self, name):
        return name.split(".")[0] in self.own_modules or name == "__main__" or name.startswith("rune_")

    @contextlib.contextmanager
    def turn(self):
        """Whether a request can be sent now: another thread may be waiting for an answer."""
        is_ours = self.lock.acquire(blocking=False)
        try:
            yield is_ours
        finally:
            if is_ours:
                self.lock.release()

    def extras(self):
        return self.surroundings.outgoing()

    def take_extras(self, extras):
        if extras:
            for path, content in extras.pop("f", ()):
                self.write(path, content)
            self.surroundings.incoming(extras)

    def write(self, path, content):
        """Writes a file sent by the tests' side, without requesting any file on the way."""
        self.asked.update([path, *map(str, pathlib.PurePosixPath(path).parents)])
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.encode("latin-1"))
        except OSError:
            pass

    def global_value(self, module, name):
        if module == "rune":
            return mock_class(self, name)
        found = importlib.import_module(module)
        for part in name.split(".") if name else ():
            found = getattr(found, part)
        return found

    def module(self, name, number):
        raise remote.GiveUp("a module of the tests")

    def do_find(self, name):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        return None if spec is None else (spec.submodule_search_locations is not None, spec.origin)

    def do_import(self, name, fresh):
        """Returns the number of a module for which the tests have created a stand-in."""
        if fresh and name in sys.modules:
            del sys.modules[name]
        return self.export(importlib.import_module(name))

    def do_write(self, number, text):
        return (sys.stdout if number == 1 else sys.stderr).write(text)

    def do_popen(self, args, kwargs):
        import subprocess

        kwargs = dict(kwargs)
        for name in ("stdout", "stderr"):
            if kwargs.get(name) is None and not kwargs.get("capture_output"):
                kwargs.pop(name, None)
        return subprocess.Popen(*args, **kwargs)

    def do_patch(self, key, name, how, value):
        """Replaces a name of both sides as the tests did, or restores it."""
        module, _, qualname = key.partition(":")
        owner = importlib.import_module(module)
        for part in qualname.split(".") if qualname else ():
            owner = getattr(owner, part)
        original = self.replaced.setdefault((key, name), vars(owner).get(name, NOTHING))
        if how == "set":
            setattr(owner, name, value)
        elif how == "gone" or original is NOTHING:
            if name in vars(owner):
                delattr(owner, name)
        else:
            setattr(owner, name, original)

    def do_probe(self, owner, value, name, asked):
        """Returns the results of comparing an object with several values."""
        found = []
        for other in asked:
            try:
                found.append(getattr(owner, name)(other) if owner is value else getattr(owner, name)(value, other))
            except remote.GiveUp:
                raise
            except BaseException as error:
                found.append(error)
        return found

    def do_pickled(self, value, protocol):
        import pickle

        return pickle.dumps(value, protocol)

    def do_unpickled(self, data):
        import pickle

        return pickle.loads(data)


MOCKS = {}


def mock_class(link, name):
    """Base of stand-ins for the tests' mocks, which can be called and have any attribute."""
    from unittest import mock

    if name not in MOCKS:
        names = ["__call__"]
        if name == "MagicMock":
            names += [each for each in mock._magics | {"__enter__", "__exit__", "__aenter__", "__aexit__"} if each not in remote.OWN]
        names = tuple((each, "f") for each in names)
        description = remote.Description(name, name, "unittest.mock", None, (), names, (), "", ())
        MOCKS[name] = remote.build_class(link, description, lambda made: None, None)
    return MOCKS[name]


class TestsModule(types.ModuleType):
    """Stands for one of the tests' modules, so that its classes can be named, as pickling does."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return remote.LINKS[0].request("class_of_tests", self.__name__, name)


class TestsFinder:
    """Requests modules that the solution imports from the tests' side: the tests' own, and those missing here."""

    def __init__(self, link, tests=None):
        self.link, self.tests = link, tests

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        is_asked = top not in standard.NAMES and not top.startswith("rune_") and (self.tests is None or top in self.tests)
        if not is_asked:
            return None
        with self.link.turn() as is_ours:
            found = self.link.request("find_of_tests", name) if is_ours else None
        if found is None:
            return None
        how, what = found
        if how == "loaded":
            return importlib.machinery.ModuleSpec(name, self, is_package=what)
        importlib.invalidate_caches()
        return importlib.machinery.PathFinder.find_spec(name, [what])

    def create_module(self, spec):
        return TestsModule(spec.name)

    def exec_module(self, module):
        pass


def ask_for_files(link, folder):
    """Requests project files that the solution does not find here from the tests' side, once each."""
    stat = os.stat

    def ask(path):
        if not isinstance(path, (str, bytes, os.PathLike)) or os.getpid() != link.pid:
            return
        path = os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(path)))
        if not path.startswith(folder + "/") or path in link.asked:
            return
        try:
            is_missing = stat(path).st_size == 0  # the file of a test leaves an empty one here
        except OSError:
            is_missing = True
        if not is_missing:
            return
        with link.turn() as is_ours:
            if is_ours:
                link.asked.add(path)
                link.request("file", path)

    def asking_stat(path, *args, **kwargs):
        ask(path)
        return stat(path, *args, **kwargs)

    def audit(event, args):
        if event in ("open", "os.listdir", "os.scandir"):
            ask(args[0])

    for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        known.add(asking_stat)
    os.stat = asking_stat
    sys.addaudithook(audit)


def forward_logs(link):
    """Sends log records to the tests' loggers, in addition to the solution's own handlers."""
    call_handlers = logging.Logger.callHandlers

    def both(self, record):
        formatter = logging.Formatter()
        exception = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None
        usual = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
        extra = {name: value for name, value in vars(record).items() if name not in usual and isinstance(value, (str, int, float, bool, type(None)))}
        link.request("log", record.name, record.levelno, record.levelname, record.pathname, record.lineno, record.getMessage(), exception, extra)
        if self.hasHandlers():
            call_handlers(self, record)

    logging.Logger.callHandlers = both


def forward_warnings(link):
    """Lets the tests' filters decide about every warning."""
    def show(message, category, filename, lineno, file=None, line=None):
        link.request("warn", message, category, filename, lineno)

    warnings.resetwarnings()
    warnings.simplefilter("always")
    warnings.showwarning = show


def main(stream, plan):
    link = WorkerLink(stream, plan["solution"])
    remote.LINKS.append(link)
    sys.stdout, sys.stderr, sys.stdin = Output(link.surroundings, 1), Output(link.surroundings, 2), Input(link)
    link.surroundings.outputs = {1: sys.stdout, 2: sys.stderr}
    sys.__stdout__, sys.__stderr__, sys.__stdin__ = sys.stdout, sys.stderr, sys.stdin
    forward_logs(link)
    forward_warnings(link)
    sys.meta_path.insert(0, TestsFinder(link, set(plan["own"]) - set(plan["solution"])))  # their files are empty ones here
    sys.meta_path.append(TestsFinder(link))
    ask_for_files(link, plan["box"])
    for name in [name for name in sys.modules if name.startswith("rune_")]:
        del sys.modules[name]
    while True:
        with link.lock:
            kind, number, table, packed, extras = link.receive()
        if kind == "q":
            link.serve(number, table, packed, extras)
