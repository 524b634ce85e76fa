"""The top-level modules of the standard library, by name."""

import os
import sys


def listed():
    """Returns `sys.stdlib_module_names`; before Python 3.10, the modules found on this machine."""
    library = os.path.dirname(os.__file__)
    files = os.listdir(library) + os.listdir(os.path.join(library, "lib-dynload"))
    return frozenset(sys.builtin_module_names) | {name.split(".")[0] for name in files}


NAMES = getattr(sys, "stdlib_module_names", None) or listed()
