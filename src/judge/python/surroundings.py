"""Synchronizes the solution's process with changes by the tests: streams, environment, patches, seeds."""

import builtins
import io
import logging
import os
import random
import sys
import time
import types

NOTHING = object()
# Names that tests replace most often, watched from the start; names that `mock` and `monkeypatch` replace are added.
WATCHED = {
    "builtins": ("input", "print", "open"),
    "time": ("time", "sleep", "monotonic", "perf_counter", "time_ns", "strftime", "localtime"),
    "random": ("random", "randint", "choice", "choices", "shuffle", "sample", "uniform", "randrange", "gauss"),
    "os": ("getcwd", "listdir", "remove", "system", "urandom", "getenv", "getpid"),
    "os.path": ("exists", "isfile", "isdir"),
    "datetime": ("datetime", "date"),
    "secrets": ("token_hex", "randbelow", "choice"),
    "uuid": ("uuid4",),
    "getpass": ("getpass",),
}


class Surroundings:
    """One side's view. `outgoing()` returns the changes since the last message; `incoming(...)` applies them."""

    def __init__(self, link):
        self.link = link
        self.environ, self.cwd, self.argv = dict(os.environ._data), here(), list(sys.argv)
        self.told, self.outputs, self.captured, self.replaced_streams = None, None, [], {}
        self.output, self.patches, self.levels = [], {}, {}
        self.state, self.is_seeded = None, False
        self.watched = {}

    def watch(self):
        """Makes the tests' side notice replacements from now on."""
        for module, names in WATCHED.items():
            for name in names:
                if module in sys.modules:
                    self.note(sys.modules[module], name)
        seed, setstate = random.seed, random.setstate

        def noted(function):
            def call(*args, **kwargs):
                self.is_seeded, self.state = True, None
                return function(*args, **kwargs)

            call.__name__, call.__doc__ = function.__name__, function.__doc__
            return call

        random.seed, random.setstate = noted(seed), noted(setstate)

    def note(self, owner, name):
        """Remembers the original value of a name in a module or class of both sides."""
        if owner is sys and name in ("stdin", "stdout", "stderr"):
            return  # what is written and read comes to the tests' streams anyway
        key = owner.__name__ if isinstance(owner, types.ModuleType) else f"{owner.__module__}:{owner.__qualname__}"
        if (key, name) not in self.watched:
            found = vars(owner).get(name, NOTHING)
            self.watched[key, name] = vars(owner), name, found
            self.patches[key, name] = found

    def capture(self, numbers):
        """Redirects writes of the tests to a stream by which the solution has replaced a standard one."""
        for number, name in ((1, "stdout"), (2, "stderr")):
            if number in numbers and number not in self.replaced_streams:
                self.replaced_streams[number] = getattr(sys, name)
                setattr(sys, name, Outward(self.link, number))
            elif number not in numbers and number in self.replaced_streams:
                setattr(sys, name, self.replaced_streams.pop(number))

    def replaced(self):
        """Lists the names that were replaced or restored since the last message."""
        found = []
        patches = self.patches
        for at, (space, name, original) in self.watched.items():
            now = space.get(name, NOTHING)
            if now is not patches[at]:
                patches[at] = now
                key = at[0]
                found.append((key, name, "back" if now is original else "gone" if now is NOTHING else "set", None if now is NOTHING or now is original else now))
        return found

    def outgoing(self):
        found = {}
        if self.output:
            found["o"], self.output = self.output, []
        if self.outputs is not None:
            captured = [number for number, stream in ((1, sys.stdout), (2, sys.stderr)) if stream is not self.outputs[number]]
            if captured != self.captured:
                found["x"] = self.captured = captured
        if os.environ._data != self.environ:
            self.environ = dict(os.environ._data)
            environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
            if environ != self.told:
                found["e"] = self.told = environ
        cwd = here()
        if cwd != self.cwd:
            found["c"] = self.cwd = cwd
        if sys.argv != self.argv:
            found["a"] = self.argv = [str(value) for value in sys.argv]
        if self.is_seeded:
            state = random.getstate()
            if state != self.state:
                self.state, found["r"] = state, [state[0], list(state[1]), state[2]]
        if self.watched:
            levels = {name: logger.level for name, logger in list(logging.root.manager.loggerDict.items()) if getattr(logger, "level", 0)}
            levels[""], levels["disable"] = logging.root.level, logging.root.manager.disable
            if levels != self.levels:
                found["l"] = self.levels = levels
        return found or None

    def incoming(self, found):
        for stream, text in found.get("o", ()):
            target = sys.stdout if stream == 1 else sys.stderr
            if target is not None:
                target.write(str(text))
        if "e" in found:
            environ = {str(name): str(value) for name, value in found["e"].items()}
            for name in [name for name in os.environ if name not in environ and not name.startswith("PYTEST")]:
                del os.environ[name]
            os.environ.update(environ)
            self.environ = dict(os.environ._data)
        if "x" in found:
            self.capture([number for number in (1, 2) if number in found["x"]])
        if "c" in found:
            enter(str(found["c"]))
            self.cwd = here()
        if "a" in found:
            self.argv = [str(value) for value in found["a"]]
            sys.argv[:] = self.argv
        if "r" in found:
            version, numbers, gauss = found["r"]
            self.state = (version, tuple(numbers), gauss)
            self.is_seeded = True
            random.Random.setstate(random._inst, self.state)
        for name, level in found.get("l", {}).items():
            if name == "disable":
                logging.disable(level)
            else:
                logging.getLogger(name).setLevel(level)


def here():
    try:
        return os.getcwd()
    except OSError:
        return ""


def enter(folder):
    try:
        os.chdir(folder)
    except OSError:
        pass


class Output(io.TextIOBase):
    """A stream of the worker: written text goes to the tests' stream with the next message."""

    encoding, errors, newlines = "utf-8", "strict", None

    def __init__(self, surroundings, number):
        self.surroundings, self.number = surroundings, number
        self.buffer = Bytes(self)
        self.name = "<stdout>" if number == 1 else "<stderr>"
        self.mode = "w"

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.surroundings.output.append([self.number, text])
        return len(text)

    def writable(self):
        return True

    def fileno(self):
        return self.number

    def isatty(self):
        return False

    def flush(self):
        pass


class Bytes(io.RawIOBase):
    def __init__(self, text):
        self.text = text

    def writable(self):
        return True

    def write(self, data):
        self.text.write(bytes(data).decode("utf-8", "surrogateescape"))
        return len(data)


class Outward(io.TextIOBase):
    """A stream of the tests while it is captured by the solution."""

    def __init__(self, link, number):
        self.link, self.number = link, number

    def writable(self):
        return True

    def write(self, text):
        return self.link.request("write", self.number, text)


class Input(io.TextIOBase):
    """Standard input of the worker, read where the tests run."""

    encoding = "utf-8"

    def __init__(self, link):
        self.link = link

    def readable(self):
        return True

    @property
    def buffer(self):
        return self.link.request("stdin", "buffer", 0)

    def read(self, n=-1):
        return self.link.request("stdin", "read", n)

    def readline(self, n=-1):
        return self.link.request("stdin", "readline", n)

    def isatty(self):
        return False

    def fileno(self):
        raise io.UnsupportedOperation("fileno")
