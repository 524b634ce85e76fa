"""The top-level modules of the standard library, by name."""

import os
import sys


def listed():
    """What `sys.stdlib_module_names` has from Python 3.10 on, as far as it lies on this machine."""
    library = os.path.dirname(os.__file__)
    files = os.listdir(library) + os.listdir(os.path.join(library, "lib-dynload"))
    return frozenset(sys.builtin_module_names) | {name.split(".")[0] for name in files}


NAMES = getattr(sys, "stdlib_module_names", None) or listed()
