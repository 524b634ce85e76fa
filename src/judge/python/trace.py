"""Errors as the model shall read them: the message, and the frames of its own and the tests' code."""

import os
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).rstrip("/")
ROOTS = (ROOT + "/box/", ROOT + "/in/tests/")


def message(error):
    """The last lines of a traceback: for a syntax error with the line and the caret."""
    try:
        if isinstance(error, AssertionError):
            text = str(error) or "AssertionError"
        else:
            text = "".join(traceback.format_exception_only(type(error), error)).strip()
        return text.replace(ROOT + "/", "/")  # where there is no file system of the jail's own
    except BaseException:
        return type(error).__name__


def frames(error):
    """At most 30 lines, innermost last."""
    lines, seen = [], 0
    try:
        for frame in traceback.extract_tb(error.__traceback__, limit=-200):
            name = os.path.join(ROOTS[0], frame.filename)
            root = next((root for root in ROOTS if name.startswith(root)), None)
            if root is not None:
                lines.append(f"{name[len(root):]}:{frame.lineno} in {frame.name}")
                if frame.line:
                    lines.append(f"    {frame.line[:200]}")
    except BaseException:
        pass
    return "\n".join(lines if len(lines) <= 30 else lines[:6] + ["..."] + lines[-23:])


def status(error):
    return "failed" if isinstance(error, AssertionError) else "error"
