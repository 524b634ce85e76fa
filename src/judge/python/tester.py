"""The tests' side: the solution's modules stand here as remote ones, and nothing of the solution runs.

What the worker may do with objects of the tests is limited, and what objects of the solution claim of plain values is
probed: the same is asked of other values, in an order that nobody can foresee.
"""

import datetime
import importlib.machinery
import importlib.util
import inspect
import os
import random
import re
import sys
import threading
import types
import unittest

import rune_remote as remote
import rune_standard as standard
from rune_surroundings import Surroundings

FRAMEWORKS = ("unittest", "pytest", "_pytest", "pluggy", "doctest", "test", "rune_remote", "rune_tester", "rune_runner", "rune_surroundings")
HIDDEN = ("f_", "gi_", "tb_", "cr_", "ag_", "co_", "_rune", "__rune")
DUNDERS = frozenset("""
call iter next len getitem setitem delitem contains enter exit eq ne lt le gt ge hash bool int float complex index add radd
iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv rfloordiv ifloordiv mod rmod imod divmod rdivmod pow rpow
ipow and rand iand or ror ior xor rxor ixor lshift rlshift ilshift rshift rrshift irshift matmul rmatmul imatmul neg pos abs
invert round trunc floor ceil str repr format bytes fspath length_hint reversed missing aenter aexit aiter anext await get set
delete set_name init post_init name qualname doc module annotations slots match_args members dataclass_fields
dataclass_params copy deepcopy lenhint sizeof isabstractmethod wrapped signature dir getstate setstate cause context notes version all file path text_signature objclass abstractmethods
""".split())
# Special methods of Python's own types; protocols of libraries, such as `__html__`, are not among them.
INNER = {
    name
    for kind in (type, object, types.FunctionType, types.MethodType, types.ModuleType, types.BuiltinFunctionType, types.GeneratorType,
                 types.CoroutineType, BaseException, property, classmethod, staticmethod, dict, list, str, int, float, memoryview)
    for name in (*dir(kind), "__file__", "__path__", "__cached__", "__builtins__", "__mro__", "__subclasses__", "__abstractmethods__", "__import__")
    if name.startswith("__") and name.endswith("__")
}
ASKED_OF_NOTHING = frozenset(("stdin", "warn", "log", "file", "find_of_tests", "class_of_tests", "mirror", "isinstance", "issubclass"))
# Attributes that control the calls of a mock.
OF_MOCKS = frozenset(("configure_mock", "attach_mock", "mock_add_spec", "__setattr__", "__delattr__", "reset_mock"))
OPPOSITE = {"__lt__": "__gt__", "__gt__": "__lt__", "__le__": "__ge__", "__ge__": "__le__"}
PLAIN_MEMBERS = {"__init__", "__doc__", "__annotations__", "__orig_bases__", "__parameters__", "__slots__"}
CLAIMS = (*remote.COMPARISONS, "__contains__")
chance = random.SystemRandom()


def is_of(module, roots):
    return module.split(".")[0] in roots


def decoys(value):
    """Returns values that differ from `value`, mostly of its type and close to it, so that only a real comparison passes."""
    kind, n = type(value), chance.randrange(2, 1000)
    if kind in (int, bool):
        found = [value + 1, value - 1, value + 2, value - n, value + n]
    elif kind is float:
        found = [value + 1, value - 1, value * 1.01 + 1e-3, value - 0.5, value + n]
    elif kind in (str, bytes):
        found = [value + value[-1:], value[1:], value[:-1], value[::-1], value[1:2] + value[:1] + value[2:], value + kind(b"x", *([] if kind is bytes else ["ascii"]))]
    elif kind in (list, tuple):
        found = [value + value[:1], value[1:], value[:-1], value[::-1], value[1:2] + value[:1] + value[2:], value + kind((n,))]
    elif kind is dict:
        keys, values = list(value), list(value.values())
        found = [{**value, n: n}, dict(list(value.items())[1:]), dict(list(value.items())[:-1]), dict(zip(keys, values[1:] + values[:1])), dict.fromkeys(keys, n)]
    elif kind in (set, frozenset):
        found = [value | {n}, kind(list(value)[1:]), kind(list(value)[:-1]), kind()]
    elif kind in (datetime.date, datetime.datetime):
        found = [value + datetime.timedelta(days) for days in (1, -1, 2, -n)]
    elif kind is datetime.timedelta:
        found = [value + datetime.timedelta(seconds=seconds) for seconds in (1, -1, n)]
    elif value is None:
        found = [0, False, "", n]
    else:
        found = nearby(value, n)
    return [other for other in found if differs(other, value)]


def strangers():
    """Returns values that no container of a test holds. (A container of 1 to 100 rightly holds everything near 50.)"""
    return [chance.randrange(1 << 40, 1 << 50), f"{chance.random()}", (chance.random(),)]


def nearby(value, n):
    try:
        return [value + 1, value - 1, value + n]
    except Exception:
        return [None, n, ""]


def differs(other, value):
    try:
        return bool(other != value)
    except Exception:
        return False


class TesterLink(remote.Link):
    def __init__(self, stream, solution, own, folder):
        super().__init__(stream, "t")
        self.solution, self.own_modules, self.folder = set(solution), set(solution) | set(own), folder
        self.tests, self.lies, self.failed_checks, self.files, self.carried, self.reasons = set(own), [], [], [], {}, []
        self.carrier = None  # the thread that reads a file to send it
        self.asked, self.read_by_tests = set(), set()
        self.surroundings = Surroundings(self)

    def is_own_module(self, name):
        """Whether a module belongs to the solution or is one of the tests' files."""
        if super().is_own_module(name):
            return True
        path = getattr(sys.modules.get(name), "__file__", None)
        return isinstance(path, str) and path.startswith(self.folder + "/")

    def give_up(self, reason):
        self.reasons.append(reason)
        raise remote.GiveUp(reason)

    # Requests of the worker.

    def perform(self, op, args):
        """Performs a request, only on objects that the tests have handed out: the solution controls the rest of the frame."""
        if op not in ASKED_OF_NOTHING and not self.is_handed_out(args[0]):
            self.give_up("the solution asks for what the tests have not handed out")
        return super().perform(op, args)

    def do_set(self, owner, name, value):
        if name in ("__class__", "__dict__") or type(owner).__module__ == "unittest.mock" and not is_data(owner, name, value):
            self.give_up(f"the solution sets `{name}` of an object of the tests")
        super().do_set(owner, name, value)

    def do_method(self, owner, name, args, kwargs):
        if type(owner).__module__ == "unittest.mock" and name in OF_MOCKS:
            self.give_up(f"the solution calls `{name}` of a mock")
        return super().do_method(owner, name, args, kwargs)

    def may_use(self, value, name):
        if type(name) is not str or name.startswith(HIDDEN):
            self.give_up(f"the solution reads `{name}` of an object of the tests")
        if name in INNER and name[2:-2] not in DUNDERS:
            if inspect.getattr_static(value, name, remote.MISSING) is remote.MISSING:
                raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}")
            is_instance = not isinstance(value, (type, types.ModuleType, *remote.FUNCTIONS))
            if not (name == "__dict__" and (is_instance or isinstance(value, type)) or name == "__class__" and is_instance):
                self.give_up(f"the solution reads `{name}` of an object of the tests")
        self.may_export(value)

    def may_export(self, value):
        if self.ref_of(value) is not None:
            return
        kind = value if isinstance(value, type) else type(value)
        module = kind.__module__ if isinstance(kind.__module__, str) else ""
        if issubclass(kind, unittest.TestCase) or (is_of(module, FRAMEWORKS) and module != "unittest.mock"):
            self.give_up(f"the tests hand out an object of {module}.{kind.__qualname__}")
        if is_of(module, remote.EXECUTING) and not isinstance(value, (type, BaseException, *remote.FUNCTIONS)) and (module, kind.__name__) not in remote.HARMLESS:
            self.give_up(f"the tests hand out an object of {module}.{kind.__qualname__}")
        if isinstance(value, (types.FrameType, types.CodeType, types.TracebackType, types.CellType)):
            self.give_up(f"the tests hand out a {kind.__name__} object")
        if isinstance(value, types.ModuleType):
            self.give_up(f"the tests hand out the module `{value.__name__}`")
        owner = getattr(value, "__self__", None) if isinstance(value, types.BuiltinFunctionType) else None
        if isinstance(owner, types.ModuleType) and owner.__name__ not in ("builtins", "math", "operator"):
            self.give_up(f"the tests hand out the function `{owner.__name__}.{value.__name__}`")

    def may_share(self, space):
        return not any(str(name).startswith(("pytest", "_pytest", "__unittest", "patchings", "hypothesis")) for name in space)

    def do_call(self, function, args, kwargs):
        try:
            return super().do_call(function, args, kwargs)
        except AssertionError as error:
            self.failed_checks.append(error)
            raise

    def do_stdin(self, how, n):
        if how == "buffer":
            return sys.stdin.buffer
        if how not in ("read", "readline"):
            self.give_up("an odd use of standard input")
        return getattr(sys.stdin, how)(n)

    def do_warn(self, message, category, filename, lineno):
        import warnings

        if not isinstance(message, Warning) and not (isinstance(category, type) and issubclass(category, Warning)):
            self.give_up("a warning of no warning class")
        warnings.warn_explicit(message, category if not isinstance(message, Warning) else None, str(filename), int(lineno), registry=None)

    def do_log(self, name, level, levelname, pathname, lineno, message, exception, extra):
        import logging

        extra = {str(key): value for key, value in extra.items() if value is None or type(value) in (str, int, float, bool)}
        record = logging.makeLogRecord({**extra, "name": name, "levelno": level, "levelname": levelname, "pathname": pathname, "lineno": lineno, "msg": message, "args": (), "exc_text": exception, "module": os.path.splitext(os.path.basename(pathname))[0], "filename": os.path.basename(pathname)})
        logging.getLogger(name).handle(record)

    def do_mirror(self, number, name, qualname, module, bases, members, kwargs):
        """Creates a subclass of a plain class of the tests for the solution, without operators, which would escape probing."""
        operators = {name for name, _ in members if type(name) is not str or name.startswith("__")} - PLAIN_MEMBERS
        if kwargs or operators or not all(base is object or type(base) is type and self.is_handed_out(base) for base in bases):
            self.give_up("the solution makes a subclass of a class of the tests")
        for base in bases:
            self.may_export(base)
        return super().do_mirror(number, name, qualname, module, bases, members, kwargs)

    def do_pickled(self, value, protocol):
        self.give_up("the solution pickles an object of the tests")

    do_unpickled = do_import = do_probe = do_patch = do_write = do_popen = do_pickled

    # Values sent to the worker.

    def request(self, op, *args):
        if op != "patch":
            for key, name, how, value in self.surroundings.replaced():
                super().request("patch", key, name, how, value)
        return super().request(op, *args)

    def extras(self):
        found = self.surroundings.outgoing()
        if self.files:
            found = {**(found or {}), "f": self.files}
            self.files = []
        return found

    def take_extras(self, extras):
        if extras:
            if type(extras) is not dict or not set(extras) <= {"o", "e", "c", "a", "r", "l", "x"}:
                raise remote.Broken("an odd message")
            try:
                self.surroundings.incoming(extras)
            except (TypeError, ValueError, AttributeError) as error:
                raise remote.Broken(f"an odd message: {error}") from None

    def carry(self, text):
        """Sends the file or folder named by a path of the tests to the worker, which has none of the tests' files."""
        for path in self.files_at(text):
            self.carry_file(path)

    def files_at(self, text):
        """Lists the files of the tests at a path, except loaded modules and folders that contain some."""
        path = os.path.abspath(text)
        if not path.startswith(self.folder + "/") or not os.path.exists(path) or self.is_carried(path):
            return []
        loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        paths = [path]
        if os.path.isdir(path):
            if os.path.isfile(os.path.join(path, "conftest.py")) or any(str(name).startswith(path + "/") for name in loaded):
                return []
            self.carried[path] = version(path)
            paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
        return [path for path in paths[:500] if path not in loaded and os.path.basename(path) != "conftest.py" and os.path.isfile(path)]

    def is_carried(self, path):
        """Whether the worker has the current content of the file."""
        return path in self.carried and self.carried[path] == version(path)

    def carry_file(self, path):
        if os.path.getsize(path) < 4 << 20 and not self.is_carried(path):
            self.carried[path] = version(path)
            self.carrier = threading.get_ident()
            try:
                with open(path, "rb") as file:
                    self.files.append([path, file.read().decode("latin-1")])
            finally:
                self.carrier = None
    def do_file(self, path):
        """Sends data that the solution looks for with the answer, unless the tests read it themselves. Never sends code."""
        for path in self.files_at(str(path)):
            if path not in self.read_by_tests and (not path.endswith(".py") or os.path.getsize(path) == 0):
                self.asked.add(path)
                self.carry_file(path)

    def watch_reading(self, files):
        """Records which data files the tests read themselves: these may contain expected values."""
        paths = {os.path.join(self.folder, name) for name in files}

        def audit(event, args):
            if event == "open" and isinstance(args[0], str):
                path = os.path.abspath(args[0])
                if path in paths and self.carrier != threading.get_ident():
                    self.read_by_tests.add(path)
                    if path in self.asked:
                        self.give_up(f"the solution looked for {os.path.basename(path)}, which the tests read")

        sys.addaudithook(audit)

    def do_find_of_tests(self, name):
        """Returns `("loaded", is_package)` for a loaded module of the tests, `("at", folder)` for one sent as files."""
        module = sys.modules.get(name)
        if module is not None and not isinstance(module, RemoteModule) and self.is_own_module(name):
            return "loaded", hasattr(module, "__path__")
        spec = importlib.machinery.PathFinder.find_spec(name) if "." not in name else None
        if spec is None or spec.origin is None or not spec.origin.startswith(self.folder + "/"):
            return None
        path = spec.origin if spec.submodule_search_locations is None else os.path.dirname(spec.origin)
        self.do_file(path)
        return "at", os.path.dirname(path)

    def do_class_of_tests(self, module, name):
        """Returns a class of the tests' modules with a counterpart on the other side, which pickling names. Nothing else."""
        found = vars(sys.modules[module]).get(name) if self.is_own_module(module) else None
        if not isinstance(found, type) or not self.is_handed_out(found):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        self.may_export(found)
        return found

    # Values received from the worker.

    def raised(self, error, op, args):
        error = super().raised(error, op, args)
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            self.give_up(f"the solution raises {type(error).__name__}")
        if isinstance(error, (StopIteration, StopAsyncIteration)) and "__next__" not in args[:2] and "__anext__" not in args[:2]:
            return RuntimeError(f"{type(error).__name__} left a call of the solution")
        chain, seen = error, 0
        while chain is not None and seen < 20:
            self.failed_checks = [check for check in self.failed_checks if check is not chain]
            chain, seen = chain.__cause__ or chain.__context__, seen + 1
        return error

    def global_value(self, module, name):
        """Returns an object of the standard library or an installed package, never of a test framework."""
        if type(module) is not str or type(name) is not str or (is_of(module, FRAMEWORKS) or self.is_own_module(module)):
            self.give_up(f"the solution hands out {module}.{name}")
        if module not in sys.modules and module.split(".")[0] not in standard.NAMES:
            self.give_up(f"the solution hands out {module}.{name}, which is not loaded here")
        found = importlib.import_module(module)
        for part in name.split(".") if name else ():
            if part.startswith("__") and part != "__init__" and module != "builtins":
                self.give_up(f"the solution hands out {module}.{name}")
            found = getattr(found, part)
        is_sentinel = (module, name) in remote.SENTINELS
        if not (isinstance(found, (type, types.ModuleType, *remote.FUNCTIONS)) or is_sentinel) or not remote.is_harmless(found, module, name):
            self.give_up(f"the solution hands out {module}.{name}")
        return found

    def module(self, name, number):
        module = sys.modules.get(name)
        if not isinstance(module, RemoteModule):
            module = RemoteModule(name)
        types.ModuleType.__setattr__(module, "__rune_link__", self)
        return self.adopt(number, module)

    def lie(self, what):
        self.lies.append(what)
        raise AssertionError(f"the solution deceives its tests: {what}")

    def operator(self, cls, name):
        if name in CLAIMS:
            return claim(self, cls, name)
        if name in ("__sub__", "__rsub__"):
            return difference(self, cls, name)
        return None

    def leave(self, cls, name):
        ordinary = remote.forward(self, cls, name)

        def leave(self_, kind, error, trace):
            answer = ordinary(self_, kind, error, None)
            if inspect.iscoroutine(answer):
                return answer
            if answer and isinstance(error, AssertionError) and self.ref_of(error) is None:
                self.lie("its context manager swallows a failed check")
            return answer

        return leave


def claim(link, cls, name):
    """A comparison of the solution: its claims about plain values are probed."""
    ordinary = remote.forward(link, cls, name)

    def compare(self, other):
        module = type(other).__module__
        if isinstance(module, str) and is_of(module, FRAMEWORKS) and module != "unittest.mock":
            return NotImplemented
        if link.ref_of(other) is not None or not is_plain(other):
            return ordinary(self, other)
        return probed(link, self, cls, name, other)

    compare.__name__ = compare.__qualname__ = name
    compare.__rune_forward__ = cls, name
    return compare


def is_plain(value):
    kind = type(value)
    return kind in remote.PLAIN or kind in (int, bytes, complex, tuple, frozenset) or kind in remote.SHAPE_OF_TYPE or kind in remote.PARTS


def probed(link, self, cls, name, other):
    asked = decoys(other)
    chance.shuffle(asked)
    asked = asked[:2] + strangers() if name == "__contains__" else asked[:5]
    chance.shuffle(asked)
    place = chance.randrange(len(asked) + 1)
    asked.insert(place, other)
    owner = self if remote.is_first(type(self), cls, name) else cls
    answers = link.request("probe", owner, self, name, asked)
    if type(answers) is not list or len(answers) != len(asked):
        raise remote.Broken("an odd answer")
    answer = answers[place]
    if isinstance(answer, BaseException):
        raise answer
    if claims(name, answer) and len(asked) > 1:
        others = [claims(name, each) for index, each in enumerate(answers) if index != place]
        if all(others) and name in ("__eq__", "__ne__", "__contains__"):
            link.lie(f"`{name}` of {cls.__name__} says the same of everything")
        if all(others) and name in OPPOSITE:
            check_order(link, self, cls, name, asked)
        if 2 * sum(others) >= len(others) and name in ("__eq__", "__ne__"):
            link.give_up(f"a {cls.__name__} equals values that are not equal to each other")
    if claims(name, answer) and name in ("__eq__", "__ne__"):
        check_content(link, self, cls, other)
    return answer


def check_order(link, self, cls, name, asked):
    """Gives up on an object that claims to be both less and greater than everything."""
    opposite = OPPOSITE[name]
    if getattr(type(self), opposite, None) is not None:
        owner = self if remote.is_first(type(self), cls, opposite) else cls
        answers = link.request("probe", owner, self, opposite, asked)
        if type(answers) is list and len(answers) > 1 and all(claims(opposite, each) for each in answers):
            link.give_up(f"a {cls.__name__} is both less and more than everything")


def check_content(link, self, cls, other):
    """Gives up on an object with a plain value (a number, a text) that equals other values."""
    for base in (*remote.VALUE_BASES, *remote.CONTAINER_BASES):
        if isinstance(self, base) and isinstance(other, base) and not base.__eq__(self, other):
            link.give_up(f"a {cls.__name__} says that it equals what it is not")


def claims(name, answer):
    if answer is NotImplemented or isinstance(answer, BaseException):
        return False
    return not answer if name == "__ne__" else bool(answer)


def difference(link, cls, name):
    """Subtraction: approximate comparisons rely on it, so the result must follow the operand."""
    ordinary = remote.forward(link, cls, name)

    def subtract(self, other):
        found = ordinary(self, other)
        if type(other) in (int, float) and type(found) in (int, float) and found == found and abs(other) < 1e300:
            step = chance.choice((-1, 1)) * chance.randrange(1000, 9999)
            again = ordinary(self, other + step)
            wanted = -step if name == "__sub__" else step
            if type(again) not in (int, float) or abs(again - found - wanted) > 1e-6 * (1 + abs(found) + abs(other)):
                link.give_up(f"`{name}` of {cls.__name__} is no difference")
        return found

    subtract.__name__ = subtract.__qualname__ = name
    subtract.__rune_forward__ = cls, name
    return subtract


class RemoteModule(types.ModuleType):
    """Stands for a module of the solution."""

    def __getattr__(self, name):
        if name in ("__path__", "__rune_link__", "__wrapped__", "__test__"):
            raise AttributeError(name)
        link = types.ModuleType.__getattribute__(self, "__rune_link__")
        if link.ref_of(self) is None:
            raise AttributeError(name)  # it is being imported
        if name == "__all__":
            try:
                return link.request("get", self, name)
            except AttributeError:
                return [found for found in link.request("dir", self) if not found.startswith("_")]
        return link.request("get", self, name)

    def __setattr__(self, name, value):
        if isinstance(value, RemoteModule) and value.__name__ == f"{self.__name__}.{name}":
            return  # a submodule: what the package has under its name is asked for
        if name.startswith("__") and name.endswith("__"):
            return super().__setattr__(name, value)
        self.__rune_link__.request("set", self, name, value)

    def __delattr__(self, name):
        if name in vars(self):
            return super().__delattr__(name)
        self.__rune_link__.request("del", self, name)

    def __dir__(self):
        return self.__rune_link__.request("dir", self)


def is_data(mock, name, value):
    """Whether an attribute of a mock is data, and not part of its records or assertions."""
    is_plain_value = type(value) in (type(None), bool, int, float, complex, str, bytes, tuple, list, set, frozenset, dict)
    return is_plain_value and name != "method_calls" and not name.startswith(("_", "assert")) and not hasattr(type(mock), name)


def version(path):
    state = os.stat(path)
    return state.st_mtime_ns, state.st_size


class Finder:
    """Import finder for the solution's modules in the worker, after the tests' own modules."""

    def __init__(self, link):
        self.link, self.seen = link, set()

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.link.solution or self.is_of_tests(name):
            return None
        found = self.link.request("find", name)
        if found is None:
            return None
        is_package, origin = found
        spec = importlib.machinery.ModuleSpec(name, self, is_package=bool(is_package), origin=str(origin))
        if is_package:
            spec.submodule_search_locations = []
        return spec

    def is_of_tests(self, name):
        return importlib.machinery.PathFinder.find_spec(name.split(".")[0]) is not None and name.split(".")[0] in self.link.tests

    def create_module(self, spec):
        module = RemoteModule(spec.name)
        types.ModuleType.__setattr__(module, "__rune_link__", self.link)
        return module

    def exec_module(self, module):
        name = module.__name__
        fresh, self.seen = name in self.seen, self.seen | {name}
        sys.modules[name] = module
        number = self.link.request("import", name, fresh)
        self.link.adopt(number, module)
        module.__file__ = module.__spec__.origin


def install(stream, plan):
    """Installs the remote modules and returns the link to the worker."""
    link = TesterLink(stream, plan["solution"], plan["own"], plan["folder"])
    remote.LINKS.append(link)
    sys.meta_path.insert(0, Finder(link))
    watch_patches(link.surroundings)
    link.surroundings.watch()
    link.watch_reading(plan["data"])
    run_elsewhere(link)
    return link


def run_elsewhere(link):
    """Makes programs that the tests start run in the worker."""
    import subprocess

    class Popen(subprocess.Popen):
        def __new__(cls, *args, **kwargs):
            return link.request("popen", args, tuple(kwargs.items()))

        def __init__(self, *args, **kwargs):
            pass

    def system(command):
        return subprocess.call(command, shell=True) << 8

    Popen.__module__, Popen.__qualname__ = "subprocess", "Popen"
    system.__module__, system.__qualname__ = os.system.__module__, "system"
    subprocess.Popen, os.system, sys.modules[system.__module__].system = Popen, system, system


def when_imported(name, then):
    """Calls `then(module)` when a module is loaded. Loading it in advance would be slow and often useless."""
    if name in sys.modules:
        return then(sys.modules[name])

    class Once:
        @staticmethod
        def find_spec(wanted, path=None, target=None):
            if wanted != name:
                return None
            sys.meta_path.remove(Once)
            spec = importlib.util.find_spec(name)
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                then(module)

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Once)


def watch_patches(surroundings):
    """Records names that `mock.patch` and `monkeypatch` replace, if both processes have them."""

    def note(target, name):
        if isinstance(target, (types.ModuleType, type)) and not isinstance(target, (RemoteModule, remote.RemoteType)):
            if not surroundings.link.is_own_module(target.__name__ if isinstance(target, types.ModuleType) else target.__module__):
                surroundings.note(target, name)

    def watch_mock(mock):
        get_original = mock._patch.get_original

        def noted(self):
            note(self.target, self.attribute)
            return get_original(self)

        mock._patch.get_original = noted

    when_imported("unittest.mock", watch_mock)
    patching = sys.modules.get("_pytest.monkeypatch")
    if patching is not None:
        plain = patching.MonkeyPatch.setattr

        def setattr_(self, target, name, *args, **kwargs):
            if isinstance(target, str) and "." in target:
                module, _, attribute = target.rpartition(".")
                if module in sys.modules:
                    note(sys.modules[module], attribute)
            elif isinstance(name, str):
                note(target, name)
            return plain(self, target, name, *args, **kwargs)

        patching.MonkeyPatch.setattr = setattr_
