"""Reads test files without running them: which tests there are, and what it takes to run them."""

import ast
import json
import os
import sys

TESTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
CASES = {"TestCase", "IsolatedAsyncioTestCase"}
SKIPS = {"skip", "skipIf", "skipUnless", "skipif", "xfail", "expectedFailure"}
XUNIT = {"setup_module", "teardown_module", "setup_function", "teardown_function", "setup_class", "teardown_class"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
STDLIB = getattr(sys, "stdlib_module_names", ())
# What tests may use when the solution runs in another process: no files, streams, patches, or types with values of their own.
HARMLESS = {"bisect", "cmath", "collections", "copy", "functools", "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "textwrap", "typing", "unittest"}
STRONG = {"open", "input", "exec", "eval", "compile", "globals", "locals", "vars", "setattr", "delattr", "patch", "mock", "capsys", "capfd", "caplog", "capsysbinary", "monkeypatch", "tmp_path", "tmpdir", "tmp_path_factory", "mocker", "recwarn", "assertLogs", "assertWarns", "warns", "reload", "id", "hasattr", "getattr", "callable", "dir", "bytearray", "memoryview", "slice", "assertIs", "assertIsNot"}
KINDS = {"isinstance", "issubclass", "assertIsInstance", "assertNotIsInstance"}
PLAIN = {"bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset"}
VALUES = {name for kind in (str, int, float, complex, list, dict, set, frozenset, tuple, bytes) for name in dir(kind) if name[0] != "_"}
VALUES |= {"args", "exception", "value", "match"}
TOOLS = {"TestCase", "Counter", "OrderedDict", "Random", "Pattern", "Match"}


def last_name(node):
    """`b` of `a.b`, `a.b(...)` or `b`."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


class Classes:
    """The classes of all files by name, to find inherited tests."""

    def __init__(self, trees):
        self.by_name = {}
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self.by_name.setdefault(node.name, node)

    def lineage(self, node, seen=()):
        yield node
        for base in node.bases:
            parent = self.by_name.get(last_name(base))
            if parent is not None and parent.name not in seen:
                yield from self.lineage(parent, (*seen, node.name))

    def is_case(self, node):
        return any(last_name(base) in CASES for cls in self.lineage(node) for base in cls.bases)

    def methods(self, node):
        found = {}
        for cls in self.lineage(node):
            for part in cls.body:
                if isinstance(part, FUNCTIONS) and part.name.startswith("test"):
                    found.setdefault(part.name, part)
        return found.values()


def skipped(*nodes):
    return any(last_name(mark) in SKIPS for node in nodes for mark in node.decorator_list)


def is_check(node):
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and last_name(node).startswith(("assert", "raises", "fail", "check")))


def idle(node):
    """Whether an expression depends on nothing but constants."""
    return not any(isinstance(part, (ast.Name, ast.Call, ast.Attribute)) for part in ast.walk(node))


def vacuous(body):
    """Whether a test checks nothing: no call but checks, and these of constants only."""
    parts = [part for statement in body for part in ast.walk(statement)]
    for part in parts:
        if isinstance(part, ast.Assert) and not idle(part.test):
            return False
        if isinstance(part, ast.Call):
            if not is_check(part) or not all(idle(argument) for argument in part.args):
                return False
    return not any(isinstance(part, (ast.With, ast.AsyncWith, ast.Raise)) for part in parts)


def entry(name, body, *decorated):
    return {"id": name, "optional": skipped(*decorated), "vacuous": vacuous(body)}


def tests_of(path, tree, classes):
    """Expected tests of a file, and which kinds they are."""
    tests, kinds = [], set()
    gone = {target.id for node in tree.body if isinstance(node, ast.Delete) for target in node.targets if isinstance(target, ast.Name)}
    for node in flat(tree.body):
        if getattr(node, "name", None) in gone:
            continue
        if isinstance(node, FUNCTIONS) and node.name.startswith("test"):
            tests.append(entry(f"{path}::{node.name}", node.body, node))
            kinds.add("functions")
        elif isinstance(node, ast.ClassDef) and (classes.is_case(node) or node.name.startswith("Test")):
            kind = "unittest" if classes.is_case(node) else "functions"
            for method in classes.methods(node):
                tests.append(entry(f"{path}::{node.name}::{method.name}", method.body, node, method))
                kinds.add(kind)
    unique = {test["id"]: test for test in tests}
    return list(unique.values()), kinds


def flat(body):
    """Top-level statements, those of `try` and `if` included, but not of the main guard."""
    for node in body:
        if isinstance(node, ast.Try):
            yield from flat(node.body + node.orelse)
        elif isinstance(node, ast.If) and "__name__" not in ast.dump(node.test):
            yield from flat(node.body)
        else:
            yield node


def imports(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return sorted(names)


def takes_fixtures(tree, classes):
    """Whether a plain test function or method has parameters only pytest could fill."""
    for node in flat(tree.body):
        if isinstance(node, FUNCTIONS) and node.name in XUNIT:
            return True
        functions, own = [], 0
        if isinstance(node, FUNCTIONS) and node.name.startswith("test"):
            functions = [node]
        elif isinstance(node, ast.ClassDef) and not classes.is_case(node) and node.name.startswith("Test"):
            functions, own = [part for part in node.body if isinstance(part, FUNCTIONS)], 1
        for function in functions:
            needed = len(function.args.posonlyargs) + len(function.args.args) - len(function.args.defaults)
            if function.name in XUNIT or (function.name.startswith("test") and needed > own):
                return True
    return False


def describe(path, tree, classes, conftests):
    tests, kinds = tests_of(path, tree, classes)
    used = imports(tree)
    covered = any(folder == "" or path.startswith(folder + "/") for folder in conftests)
    if tests and ("pytest" in used or takes_fixtures(tree, classes) or (covered and kinds != {"unittest"})):
        kind = "pytest"
    elif tests:
        kind = "unittest" if "unittest" in kinds else "functions"
    elif any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        kind, tests = "asserts", [entry(path, tree.body)]
    else:
        kind = "none"
    return {"path": path, "kind": kind, "tests": tests, "imports": used}


class Needs(ast.NodeVisitor):
    """Finds out whether tests can do with calls of the solution's functions, plain values in and out."""

    def __init__(self):
        self.own, self.separable = {"self", "cls"}, True

    def no(self):
        self.separable = False

    def module(self, name):
        root = name.split(".")[0]
        if root in STDLIB and root not in HARMLESS:
            self.no()
        return root in STDLIB or root == "pytest"

    def visit_Import(self, node):
        for alias in node.names:
            self.module(alias.name)
            self.own.add((alias.asname or alias.name).split(".")[0])

    def visit_ImportFrom(self, node):
        is_tool = self.module(node.module or "")
        for alias in node.names:
            if is_tool:
                self.own.add(alias.asname or alias.name)
            elif alias.name == "*" or node.level or not plain_name(alias.name):
                self.no()

    def visit_Name(self, node):
        if node.id in STRONG:
            self.no()

    def visit_arg(self, node):
        self.visit_Name(ast.Name(node.arg))

    def visit_Compare(self, node):
        compared = zip(node.ops, node.comparators)
        if any(isinstance(op, (ast.Is, ast.IsNot)) and not isinstance(value, ast.Constant) for op, value in compared):
            self.no()  # what comes from another process is never the same object
        self.generic_visit(node)

    def visit_Call(self, node):
        if last_name(node) in KINDS and not plain_kinds(node.args[1:2]):
            self.no()
        self.generic_visit(node)

    def visit_Attribute(self, node):
        owner = node.value
        is_own = isinstance(owner, ast.Name) and owner.id in self.own
        if isinstance(node.ctx, ast.Load):
            if not (is_own or node.attr in VALUES) or node.attr in STRONG:
                self.no()
            if is_own and owner.id not in ("self", "cls") and not plain_name(node.attr) and node.attr not in TOOLS:
                self.no()
        elif not (is_own and owner.id in ("self", "cls")):
            self.no()
        self.generic_visit(node)


def plain_kinds(nodes):
    """Whether these are names of built-in types of plain data."""
    parts = [part for node in nodes for part in (node.elts if isinstance(node, ast.Tuple) else [node])]
    return all(isinstance(part, ast.Name) and part.id in PLAIN for part in parts)


def plain_name(name):
    """Whether a name is one of a function or a constant by convention, not one of a class."""
    return name.islower() or name.isupper()


def is_separable(trees):
    needs = Needs()
    for tree in trees:
        needs.visit(tree)
    return needs.separable and len(trees) == 1


def main():
    plan = json.load(sys.stdin)
    trees, faults = {}, []
    for path in plan["sources"]:
        try:
            with open(f"{TESTS}/{path}", encoding="utf-8") as file:
                trees[path] = ast.parse(file.read(), path)
        except (SyntaxError, ValueError, RecursionError) as error:
            faults.append({"path": path, "line": getattr(error, "lineno", 0) or 0, "message": getattr(error, "msg", "") or str(error)})
    classes = Classes(trees.values())
    conftests = [os.path.dirname(path) for path in trees if os.path.basename(path) == "conftest.py"]
    files = [describe(path, trees[path], classes, conftests) for path in plan["tests"] if path in trees]
    with os.fdopen(3, "w") as channel:
        json.dump({"files": files, "faults": faults, "separable": is_separable(trees.values())}, channel)


main()
