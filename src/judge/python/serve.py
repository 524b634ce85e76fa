"""Runs the solution in /box for tests that run in another process: imports, calls and iteration, over descriptor 3."""

import importlib
import json
import marshal
import os
import socket
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).rstrip("/")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from rune_candidate import plain, text
from rune_frames import receive, send

things = []


def keep(value):
    """Keeps what can't be sent, and gives what stands for it."""
    things.append(value)
    return len(things) - 1, text(type(value).__name__, 100)


def names(name):
    """`(name, kind, value)` of what a module of the solution has."""
    found = []
    for attribute, value in vars(importlib.import_module(name)).items():
        if attribute.startswith("__"):
            continue
        if callable(value):
            found.append((attribute, "function", None))
        else:
            try:
                marshal.dumps(value, 2)
                found.append((attribute, "data", value))
            except ValueError:
                pass
    return found


def call(owner, name, args, kwargs, kept):
    for place, number in kept:
        (args if isinstance(place, int) else kwargs)[place] = things[number]
    owner = things[owner] if isinstance(owner, int) else sys.modules[owner]
    called = owner if name is None else getattr(owner, name)
    if kept:
        return called(*args, **kwargs), None
    before = marshal.dumps((args, kwargs), 2)
    value = called(*args, **kwargs)
    return value, (args, kwargs) if marshal.dumps((args, kwargs), 2) != before else None


def simple(value):
    """As plain as it gets: named tuples and the like are sent as what they are made of, views as sets."""
    if isinstance(value, (type({}.keys()), type({}.items()))):
        return set(value)
    for kind in (bool, int, float, str, bytes, tuple):
        if isinstance(value, kind) and type(value) is not kind and type(value).__eq__ is kind.__eq__:
            return kind(value)
    return plain(value)


def answer(stream, kind, value):
    if kind == b"i":
        send(stream, b"v", names(value))
    elif kind == b"n":
        if not hasattr(things[value], "__next__"):
            things[value] = iter(things[value])
        send(stream, b"v", next_of(things[value]))
    elif kind == b"b":
        send(stream, b"v", bool(things[value]))
    elif kind == b"a":
        number, name = value
        sent(stream, getattr(things[number], name), lambda found: found)
    else:
        found, changed = call(*value)
        sent(stream, found, lambda found: (found, changed))


def sent(stream, found, form):
    """Sends what was found as plain data if that can be, else what stands for it."""
    for make in (lambda value: value, simple):
        try:
            return send(stream, b"v", form(make(found)))
        except ValueError:
            pass
    send(stream, b"t", keep(found))


def next_of(iterator):
    """The next value in a list, an empty list at the end."""
    for value in iterator:
        return [value]
    return []


def main():
    stream = socket.socket(fileno=3)
    os.chdir(ROOT + "/box")
    sys.path[:1] = [ROOT + "/box"]
    sys.path += json.load(sys.stdin)["libs"]
    while True:
        kind, value = receive(stream)
        if kind is None:
            return
        try:
            answer(stream, kind, value)
        except BaseException as error:
            kinds = [text(kind.__name__, 100) for kind in type(error).__mro__]
            send(stream, b"e", (kinds, text(error, 1000)))


main()
