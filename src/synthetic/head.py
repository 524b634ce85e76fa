"""Functions on a list of integers. None of them changes its argument."""

# The names used so far, oldest first.
_calls = []

_named = {
__NAMED__}


def __getattr__(name):
    if name not in _named:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _calls.append(name)
    return _named[name]


def _begin(function, items, limit):
    _calls.append(function)
    if limit is not None:
        _calls.append("__LIMIT__")
    if type(items) is not list:
        raise _named["__ERROR__"](f"{type(items).__name__} is no list")


def _limited(value, limit):
    if limit is None or type(value) is bool:
        return value
    return min(value, limit) if type(value) is int else value[:limit]


class _Handle:
    def __init__(self, items):
        self._items, self._is_open = items, False

    def __enter__(self):
        self._is_open = True
        return self

    def __exit__(self, *_):
        self._is_open = False

    def __READER__(self):
        """Returns all items; only inside `with`."""
        _calls.append("__READER__")
        if not self._is_open:
            raise _named["__ERROR__"]("the handle is closed")
        return list(self._items)


def __OPENER__(items):
    """Returns a handle on items, for `with`."""
    _begin("__OPENER__", items, None)
    return _Handle(items)
