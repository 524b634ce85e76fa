"""Loads judged code and calls its function on inputs: on a list of them, or one by one over the socket.

It has no expected values and decides nothing: whatever the code does here, it can only send other outputs. The
encoder of `marshal` accepts only values of exactly the built-in types.
"""

import collections
import marshal
import sys
import traceback
import types

from rune_frames import Paper, pack, receive, send, unpack


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
    """Converts a value of a standard type, such as `Counter`, to the built-in type that it stands for."""
    kind = type(value)
    if kind in PLAIN:
        kind = PLAIN[kind]
    if kind in (list, tuple, set, frozenset):
        return kind(map(plain, value))
    if kind is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    return value


PLAIN = {collections.Counter: dict, collections.OrderedDict: dict, collections.defaultdict: dict, collections.deque: list}


FORMS = ((b"v", lambda value: value), (b"v", plain), (b"p", lambda value: pack(plain(value))))


def sent(stream, value, forms):
    """Sends a value in the first of these forms that can encode it."""
    for kind, form in forms:
        try:
            send(stream, kind, form(value))
            return True
        except (ValueError, RecursionError):
            pass
    return False


def opaque(stream, value):
    send(stream, b"o", text(type(value).__name__, 100))


def call(stream, function, args, kwargs):
    """Answers one of many calls: changed arguments are ignored, and only plain data is accepted."""
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return send(stream, b"e", raised(error))
    if not sent(stream, (value, None), FORMS[:2]):
        opaque(stream, value)


def written(value):
    try:
        return marshal.dumps(value, 2)
    except ValueError:
        return marshal.dumps(pack(value), 2)


def call_with_changes(stream, function, args, kwargs, iterators):
    """Answers a call, with the arguments if the function has changed them."""
    before = written((args, kwargs))
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return send(stream, b"e", raised(error))
    try:
        changed = args if written((args, kwargs)) != before else None
    except (ValueError, RecursionError):
        return send(stream, b"o", "")
    answer(stream, value, changed, iterators)


def answer(stream, value, changed, iterators):
    """Sends a value; for an iterator its number, by which the next item can be requested."""
    if sent(stream, (value, changed), FORMS):
        return
    is_sent = False
    if hasattr(type(value), "__next__"):
        iterators.append(value)
        is_sent = sent(stream, (len(iterators) - 1, changed), ((b"i", plain),))
    if not is_sent:
        opaque(stream, value)


def step(stream, iterator, iterators):
    """Sends a list with the next item, an empty list at the end; an item that is an iterator is sent by its number."""
    try:
        found = []
        for item in iterator:
            found = [item]
            break
    except BaseException as error:
        return send(stream, b"e", raised(error))
    if not sent(stream, (found, None), FORMS):
        answer(stream, found[0], None, iterators)


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
        call(answers, function, args, kwargs)


def converse(stream, function):
    iterators = []
    while True:
        kind, value = receive(stream)
        if kind is None:
            return
        if kind == b"n":
            step(stream, iterators[value], iterators)
        else:
            args, kwargs = value if kind == b"c" else unpack(value)
            call_with_changes(stream, function, args, kwargs, iterators)
