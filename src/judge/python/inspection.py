"""Inspects Python files without running them: interface, imports, and suspicious code."""

import ast
import builtins
import hashlib
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # Python is started without it
import rune_standard as standard  # noqa: E402
from rune_interface import FUNCTIONS, interface  # noqa: E402

SUSPICIOUS = ["sys._getframe", "gc.get_objects", "gc.get_referrers", "inspect.stack", "inspect.currentframe", "os._exit",
              "sys.modules", "sys.settrace", "sys.setprofile", "os.kill", "os.execv"]
SUSPICIOUS_MODULES = {"atexit", "unittest", "pytest", "_pytest", "ctypes", "gc"}
ELISIONS = re.compile(
    r"(rest of (the |your )?(code|implementation|function|class|file|methods?)|\.\.\. ?(existing|previous|other|remaining|same)|"
    r"(existing|previous|remaining) code|implementation (goes )?here|(your|add) (code|implementation|logic) here|"
    r"same as (before|above)|unchanged|omitted for brevity|^#\s*\.\.\.\s*$|todo:? implement)", re.IGNORECASE)


def imports(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return sorted(names)


def defined(tree):
    names = []
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return list(dict.fromkeys(names))


def suspicious(tree):
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            found |= {name for name in SUSPICIOUS if text == name}
            if node.attr in ("tb_frame", "f_back", "f_locals", "gi_frame", "__code__"):
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in SUSPICIOUS}
    return sorted(found | (set(imports(tree)) & SUSPICIOUS_MODULES))


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def normalised(tree):
    """Returns a digest that is independent of comments, formatting and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not is_docstring(part)]
            node.body = kept or ([ast.Pass()] if body else [])
    return hashlib.sha256(ast.dump(tree).encode("utf-8", "replace")).hexdigest()


def empty(statement):
    if isinstance(statement, ast.Pass) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
        return True
    if isinstance(statement, ast.Raise) and statement.exc is not None:
        exc = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(exc, ast.Name) and exc.id == "NotImplementedError"
    return False


def exempt(node, holder):
    """Whether an empty body is intended: abstract methods, overloads, protocols."""
    marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
    bases = " ".join(ast.unparse(base) for base in holder.bases) if isinstance(holder, ast.ClassDef) else ""
    return "abstractmethod" in marks or "overload" in marks or "Protocol" in bases


def stubs(tree):
    found = []

    def walk(holder, prefix):
        for node in getattr(holder, "body", []):
            if isinstance(node, FUNCTIONS):
                if all(empty(part) for part in node.body) and not exempt(node, holder):
                    found.append(prefix + node.name)
                walk(node, prefix + node.name + ".")
            elif isinstance(node, ast.ClassDef):
                walk(node, prefix + node.name + ".")

    walk(tree, "")
    return found


def elisions(text):
    return [line.strip()[:200] for line in text.splitlines() if "#" in line and ELISIONS.search(line[line.index("#"):])]


def needs(tree):
    """Lists modules outside the standard library and the names used from them, which a solution has to provide."""
    wanted = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                wanted.setdefault(alias.name, [])
                bound = alias.asname or alias.name
                uses = (use for use in ast.walk(tree) if isinstance(use, ast.Attribute) and ast.unparse(use.value) == bound)
                wanted[alias.name] += [use.attr for use in uses]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted.setdefault(node.module, [])
            wanted[node.module] += [alias.name for alias in node.names if alias.name != "*"]
    outside = {module: names for module, names in wanted.items() if module.split(".")[0] not in standard.NAMES}
    return [{"module": module, "names": list(dict.fromkeys(names))} for module, names in outside.items()]


def unbound(tree):
    """Lists names that are read but bound nowhere in the file: mostly forgotten imports."""
    bound, read = set(dir(builtins)) | {"__file__", "__name__", "__doc__"}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                read.append(node.id)
            else:
                bound.add(node.id)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            if any(alias.name == "*" for alias in node.names):
                return []
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            bound |= set(node.names)
        elif type(node).__name__ in ("MatchAs", "MatchStar") and node.name:  # Python 3.9 has no such nodes
            bound.add(node.name)
    return [name for name in dict.fromkeys(read) if name not in bound]


def is_main_guard(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).replace("\"", "'") == "__name__ == '__main__'"


def statements(tree, text):
    """Lists the top-level statements with the comments before them."""
    lines = text.splitlines()
    found, last = [], 0
    for node in tree.body:
        first = min([node.lineno] + [mark.lineno for mark in getattr(node, "decorator_list", [])])
        while first - 2 >= last and lines[first - 2].startswith("#"):
            first -= 1
        first = max(first, last + 1)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kind = "import"
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Assign, ast.AnnAssign)):
            kind = "definition"
        elif is_main_guard(node):
            kind = "main"
        else:
            kind = "other"
        names = defined(ast.Module(body=[node], type_ignores=[]))
        found.append({"kind": kind, "names": names, "text": "\n".join(lines[first - 1:node.end_lineno])})
        last = node.end_lineno
    return found


def inspect_file(path, text):
    result = {"path": path, "error": None, "interface": "", "imports": [], "needs": [], "unbound": [], "defines": [], "statements": [],
              "digest": None, "suspicious": [], "elisions": elisions(text), "stubs": []}
    try:
        tree = ast.parse(text, path)
        result.update(interface=interface(tree), imports=imports(tree), needs=needs(tree), unbound=unbound(tree), defines=defined(tree),
                      statements=statements(tree, text), suspicious=suspicious(tree), stubs=stubs(tree), digest=normalised(tree))
    except SyntaxError as error:
        lines = text.splitlines()
        line = error.lineno or 0
        result["error"] = {"line": line, "message": error.msg, "text": lines[line - 1] if 0 < line <= len(lines) else ""}
    except (ValueError, RecursionError, MemoryError) as error:
        result["error"] = {"line": 0, "message": str(error) or type(error).__name__, "text": ""}
    return result


def main():
    files = json.load(sys.stdin)
    results = [inspect_file(file["path"], file["text"]) for file in files]
    with os.fdopen(3, "w", encoding="ascii") as channel:
        json.dump(results, channel)


main()
