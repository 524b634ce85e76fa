"""Formats errors for people and models: the message, and the frames of the solution's and the tests' code."""

import os
import sys
import traceback

ROOTS = ["/box/"]


def passing():
    """Exceptions that end a test run and are not the result of a test."""
    remote = sys.modules.get("rune_remote")
    return remote.GiveUp if remote is not None else ()


def message(error):
    """Returns the last lines of a traceback; for a syntax error with the line and the caret."""
    try:
        if isinstance(error, AssertionError):
            text = str(error) or "AssertionError"
        else:
            text = "".join(traceback.format_exception_only(type(error), error)).strip()
        return text
    except Exception:
        return type(error).__name__


def frames(error):
    """Returns at most 30 lines, innermost frame last."""
    lines = []
    try:
        for frame in traceback.extract_tb(error.__traceback__, limit=-200):
            name = os.path.join(ROOTS[0], frame.filename)
            root = next((root for root in ROOTS if name.startswith(root)), None)
            if root is not None:
                lines.append(f"{name[len(root):]}:{frame.lineno} in {frame.name}")
                if frame.line:
                    lines.append(f"    {frame.line[:200]}")
    except Exception:
        pass
    return "\n".join(lines if len(lines) <= 30 else lines[:6] + ["..."] + lines[-23:])
