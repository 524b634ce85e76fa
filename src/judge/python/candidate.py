"""Loads judged code and calls its function on inputs: a list of them, or one after the other over the socket.

It knows no expected value and decides nothing: whatever the code does here, it can only send other outputs. The
writer of `marshal` takes values of exactly the built-in types.
"""

import collections
import marshal
import sys
import traceback
import types

from rune_frames import Paper, receive, send


def text(value, most):
    try:
        return str(value)[:most]
    except BaseException:
        return "?"


def raised(error):
    name = text(type(error).__name__, 100)
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"line {frame.lineno}, in {frame.name}" for frame in frames if frame.filename == "/box/solution.py"]
    return name, text(error, 1000), "\n".join(where[-10:])


def load(source):
    module = types.ModuleType("solution")
    module.__file__ = "/box/solution.py"
    sys.modules["solution"] = module
    exec(compile(source, "/box/solution.py", "exec"), module.__dict__)
    return module


def plain(value):
    """The same value of the built-in types, where it is of a standard type that stands for one of them."""
    kind = type(value)
    if kind in PLAIN:
        kind = PLAIN[kind]
    if kind in (list, tuple, set, frozenset):
        return kind(map(plain, value))
    if kind is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    return value


PLAIN = {collections.Counter: dict, collections.OrderedDict: dict, collections.defaultdict: dict, collections.deque: list}


def answer(stream, value, changed):
    try:
        send(stream, b"v", (value, changed))
    except ValueError:
        send(stream, b"v", (plain(value), plain(changed)))


def call(stream, function, args, kwargs, with_changes):
    before = marshal.dumps((args, kwargs), 2) if with_changes else None
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return send(stream, b"e", raised(error))
    try:
        changed = None
        if with_changes and marshal.dumps((args, kwargs), 2) != before:
            changed = args
        answer(stream, value, changed)
    except (ValueError, RecursionError):
        send(stream, b"o", text(type(value).__name__, 100))


def main(stream):
    _, (source, entry, calls) = receive(stream)
    answers = stream if calls is None else Paper(4)
    try:
        function = getattr(load(source), entry)
    except BaseException as error:
        send(answers, b"e", raised(error))
        return
    send(answers, b"r", None)
    if calls is None:
        return converse(stream, function)
    for args, kwargs in calls:
        call(answers, function, args, kwargs, False)


def converse(stream, function):
    while True:
        kind, (args, kwargs) = receive(stream)
        if kind is None:
            return
        call(stream, function, args, kwargs, True)
