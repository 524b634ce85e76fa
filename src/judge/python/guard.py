"""Keeps judged code out of the runner's frames, and notices a patched test framework."""

import builtins
import os
import sys
import threading
import types

STDLIB = os.path.dirname(os.path.realpath(os.__file__)) + "/"
PLAIN_STDLIB = os.path.dirname(os.__file__) + "/"
SITE = ("/site-packages/", "/dist-packages/")
LEAKY = {"currentframe", "<lambda>", "walk_tb", "walk_stack", "get_stack", "_task_get_stack"}
FRAME_EVENTS = {"sys._getframe", "sys._current_frames", "sys._current_exceptions", "sys.settrace", "sys.setprofile"}
REFERENCE_EVENTS = {"gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys.addaudithook"}
MEMORY_EVENTS = {"ctypes.dlopen", "ctypes.dlsym", "ctypes.string_at", "ctypes.cdata", "ctypes.cdata/buffer"}
SOURCE_EVENTS = {"compile", "code.__new__", "marshal.loads"}
FRAME_NAMES = {"tb_frame", "gi_frame", "cr_frame", "ag_frame"}


def install(trusted, tests):
    """Adds an audit hook, which cannot be taken away again.

    `trusted`: path prefixes of code that may look; everything else is judged code.
    `tests`: real paths of the test sources, which judged code may not open.
    """
    getframe, ident, realpath, join = sys._getframe, threading.get_ident, os.path.realpath, os.path.join
    getcwd = os.getcwd
    solution = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).rstrip("/") + "/box/"
    busy = set()

    def stdlib(name):
        return (name.startswith((STDLIB, PLAIN_STDLIB)) and not any(site in name for site in SITE)) or name.startswith("<frozen ")

    def judged(frame):
        return frame is not None and not stdlib(frame.f_code.co_filename) and not frame.f_code.co_filename.startswith(trusted)

    def nearest(frame):
        while frame is not None and stdlib(frame.f_code.co_filename):
            frame = frame.f_back
        return frame

    def looks(frame):
        if judged(frame):
            return True
        if not stdlib(frame.f_code.co_filename):
            return False
        if frame.f_code.co_filename.endswith("/inspect.py"):
            return judged(nearest(frame))
        return frame.f_code.co_name in LEAKY and judged(frame.f_back)

    def forbidden(event, args, frame):
        if event in FRAME_EVENTS:
            return looks(frame)
        if event == "object.__getattr__":
            return args[1] in FRAME_NAMES and looks(frame)
        if event in REFERENCE_EVENTS or event in MEMORY_EVENTS:
            return judged(nearest(frame))
        if event == "compile":
            name = args[1] if isinstance(args[1], str) else ""
            return judged(frame) and name.startswith("/") and not judged_path(name)
        return event in SOURCE_EVENTS and judged(frame)

    def judged_path(name):
        return name.startswith(solution)

    def secret(args, frame):
        if not isinstance(args[0], (str, bytes)) or not judged(nearest(frame)):
            return False
        name = args[0] if isinstance(args[0], str) else args[0].decode("utf-8", "replace")
        real = realpath(join(getcwd(), name))
        return real in tests or (real.startswith("/proc/") and real.endswith("/mem"))

    watched = FRAME_EVENTS | REFERENCE_EVENTS | MEMORY_EVENTS | SOURCE_EVENTS | {"object.__getattr__", "open"}

    def hook(event, args):
        if event not in watched:
            return
        me = ident()
        if me in busy:
            return
        busy.add(me)
        try:
            frame = getframe(1)
            if event == "open":
                if secret(args, frame):
                    raise PermissionError(13, "not readable for judged code", args[0])
            elif forbidden(event, args, frame):
                what = args[1] if event == "object.__getattr__" else event
                raise RuntimeError(f"judged code may not use {what}")
        finally:
            busy.discard(me)

    sys.addaudithook(hook)
    hide_signal_frames()


def hide_signal_frames():
    """Signal handlers get no frame: it would be a way up the stack."""
    import _signal

    original = _signal.signal

    def signal(number, handler):
        if not callable(handler) or isinstance(handler, type(original)):
            return original(number, handler)
        return original(number, lambda caught, _frame: handler(caught, None))

    _signal.signal = signal


WATCHED_TYPES = (type, types.FunctionType, types.BuiltinFunctionType)


def snapshot(modules):
    """Remembers functions and classes of the test framework, and returns `changed()`.

    `changed()` names the first one that is no longer what it was, else gives None.
    """
    entries, sizes = [], []

    def remember(label, space, name, value):
        entries.append((label, space, name, value, getattr(value, "__code__", None)))

    for module in modules:
        for name, value in list(vars(module).items()):
            if not isinstance(value, WATCHED_TYPES):
                continue
            remember(module.__name__, vars(module), name, value)
            if isinstance(value, type) and value.__module__ == module.__name__ and value.__flags__ & (1 << 9):
                for attribute, member in list(vars(value).items()):
                    if isinstance(member, (*WATCHED_TYPES, staticmethod, classmethod, property)) or attribute == "failureException":
                        remember(f"{module.__name__}.{name}", vars(value), attribute, member)
                if module.__name__.startswith("unittest."):
                    sizes.append((f"{module.__name__}.{name}", vars(value), set(vars(value))))

    missing = object()

    def changed():
        for label, space, name, value, code in entries:
            found = space.get(name, missing)
            if found is not value or getattr(found, "__code__", None) is not code:
                return f"{label}.{name}"
        for label, space, names in sizes:
            added = set(space) - names - {"__annotations__", "__abstractmethods__"}
            if added:
                return f"{label}.{sorted(added)[0]}"
        return None

    return changed


# pytest patches the rest of itself while it is configured.
PYTEST_CORE = {
    "_pytest.runner", "_pytest.python", "_pytest.outcomes", "_pytest.reports", "_pytest.unittest", "_pytest.python_api",
    "_pytest.raises", "_pytest.assertion.rewrite", "pluggy._callers", "pluggy._hooks", "pluggy._result",
}


def framework(extra):
    """The modules that tests rely on: what was imported so far of unittest and pytest, and `extra`."""
    roots = {"unittest"} | set(extra) - {"pytest"}
    skipped = {"sys", "os", "signal", "logging", "warnings", "threading", "asyncio", "__main__"}
    names = [name for name in list(sys.modules) if name.split(".")[0] in roots - skipped or name in PYTEST_CORE]
    return [builtins] + [sys.modules[name] for name in names if isinstance(sys.modules[name], types.ModuleType)]
