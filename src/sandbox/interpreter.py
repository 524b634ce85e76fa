"""Prints a JSON description of this Python as its last line: what it is, what it can import, and from where."""

import json
import os
import sys

MOST_SHOWN = 64


def children(folder):
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def modules(folder):
    """Yields name and path of each module and package directly in `folder`."""
    for entry in children(folder):
        name, _, suffix = entry.name.partition(".")
        is_file = suffix in ("py", "pyc") or suffix.endswith("so")
        is_package = not suffix and name != "__pycache__" and entry.is_dir()
        if name.isidentifier() and (is_file or is_package):
            yield name, entry.path


def holds_code(path):
    """Whether `path` is a module, or a folder with modules in it or one level below."""
    if not os.path.isdir(path):
        return True
    entries = children(path)
    if any(entry.name.endswith((".py", ".so")) for entry in entries):
        return True
    return any(os.path.isfile(os.path.join(entry.path, "__init__.py")) for entry in entries)


def is_below(path, folders):
    path = os.path.realpath(path)
    return any((path + os.sep).startswith(os.path.realpath(folder).rstrip(os.sep) + os.sep) for folder in folders)


def linked():
    """Yields the sources of editable installs that have no folder on the search path."""
    for name, module in list(sys.modules.items()):
        places = getattr(module, "MAPPING", None)
        if name.startswith("__editable__") and isinstance(places, dict):
            for name, place in places.items():
                place = os.path.abspath(str(place))
                found = [path for path in (place, place + ".py") if os.path.exists(path)]
                yield from ((name.partition(".")[0], path) for path in found[:1])


def installed(folders, own):
    """Returns the names of all modules outside of the standard library, and the paths of those outside of `own`."""
    names, elsewhere = set(), []
    for folder in folders:
        is_own = is_below(folder, own)
        for name, path in modules(folder):
            # The sources of a project contain more than its packages, above all its tests.
            if not is_own and (name.startswith(("test", "conftest", "setup")) or not holds_code(path)):
                continue
            names.add(name)
            if not is_own:
                elsewhere.append(path)
            elif not is_below(path, own):
                elsewhere.append(os.path.realpath(path))
    for name, path in linked():
        names.add(name)
        if not is_below(path, own):
            elsewhere.append(path)
    return names, elsewhere


def main():
    library = os.path.dirname(os.path.abspath(os.__file__))
    standard_folders = [library, os.path.join(library, "lib-dynload")]
    standard = set(getattr(sys, "stdlib_module_names", ())) or {
        name for folder in standard_folders for name, _ in modules(folder)
    }
    skipped = [os.path.realpath(folder) for folder in standard_folders]
    folders = [path for path in sys.path if os.path.isdir(path) and os.path.realpath(path) not in skipped]
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, "/usr"]
    names, elsewhere = installed(folders, own)
    records = [entry.name for folder in folders for entry in children(folder)]
    is_environment = sys.prefix != sys.base_prefix
    answer = {
        "executable": os.path.abspath(sys.executable) if is_environment else os.path.realpath(sys.executable),
        "environment": sys.prefix if is_environment else None,
        "prefixes": sorted({sys.base_prefix, sys.base_exec_prefix}),
        "version": ".".join(map(str, sys.version_info[:3])),
        "site_packages": folders,
        "elsewhere": elsewhere[:MOST_SHOWN],
        "left_out": elsewhere[MOST_SHOWN:],
        "modules": sorted(names | standard | set(sys.builtin_module_names)),
        "n_packages": sum(name.endswith((".dist-info", ".egg-info")) for name in records),
    }
    print()
    print(json.dumps(answer))


main()
