"""Searches the syntax of a solution for constructs that could deceive tests in the same process. Runs nothing."""

import ast
import importlib.machinery
import os
import unicodedata

import rune_standard as standard


def is_installed(name):
    return importlib.machinery.PathFinder.find_spec(name) is not None


class Screen(ast.NodeVisitor):
    """Collects `(line, construct)` for the constructs of `screen.json`."""

    def __init__(self, constructs, own):
        self.own = own
        self.constructs, self.found, self.generators, self.modules = constructs, [], [], set()

    def note(self, node, what):
        self.found.append((getattr(node, "lineno", 0), what))

    def visit_Import(self, node):
        for alias in node.names:
            self.module(node, alias.name)
            self.modules.add((alias.asname or alias.name).split(".")[0])
        self.generic_visit(node)

    def visit_ImportFrom(self, node):
        name = node.module or ""
        if not node.level:
            for alias in node.names:
                if f"{name}.{alias.name}" in self.constructs["allowed_names"]:
                    continue
                self.module(node, name)
                self.dotted(node, f"{name}.{alias.name}")
        self.generic_visit(node)

    def module(self, node, name):
        top = name.split(".")[0]
        if top not in self.own and top not in standard.NAMES and not is_installed(top):
            self.note(node, f"imports {name}, which is none of its files")
        if name.split(".")[0] in self.constructs["modules"] or name in self.constructs["modules"]:
            if name != "sys":
                self.note(node, f"imports {name}")

    def visit_Attribute(self, node):
        name = unicodedata.normalize("NFKC", node.attr)
        if name in self.constructs["attributes"]:
            self.note(node, f"uses {name}")
        if isinstance(node.value, ast.Name):
            self.dotted(node, f"{node.value.id}.{name}")
            if node.value.id == "sys" and name not in self.constructs["sys"]:
                self.note(node, f"uses sys.{name}")
        if isinstance(node.ctx, (ast.Store, ast.Del)):
            if name in self.constructs["assigned"]:
                self.note(node, f"assigns {name}")
            if isinstance(node.value, ast.Name) and node.value.id in self.modules:
                self.note(node, f"changes {node.value.id}.{name}")
        self.generic_visit(node)

    def dotted(self, node, name):
        if name in self.constructs["dotted"]:
            self.note(node, f"uses {name}")

    def visit_Name(self, node):
        name = unicodedata.normalize("NFKC", node.id)
        if name in self.constructs["names"]:
            self.note(node, f"uses {name}")
        self.generic_visit(node)

    def visit_FunctionDef(self, node):
        name = unicodedata.normalize("NFKC", node.name)
        if name in self.constructs["definitions"]:
            self.note(node, f"defines {name}")
        self.generators.append(any(isinstance(part, (ast.Yield, ast.YieldFrom)) for part in ast.walk(node)))
        self.generic_visit(node)
        self.generators.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Assign(self, node):
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id in self.constructs["definitions"]:
                self.note(node, f"defines {target.id}")
        self.generic_visit(node)

    def visit_Raise(self, node):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(raised, ast.Name) and raised.id in self.constructs["raised"]:
            self.note(node, f"raises {raised.id}")
        self.generic_visit(node)

    def visit_Call(self, node):
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if name == "open" and node.args:
                self.note(node, "opens a file")
            if name == "next" and len(node.args) == 1 and not (self.generators and self.generators[-1]):
                self.note(node, "calls next without a default")
            if name in ("getattr", "setattr", "delattr") and len(node.args) > 1 and not isinstance(node.args[1], ast.Constant):
                if name != "getattr" or isinstance(node.args[0], ast.Name) and node.args[0].id in self.modules:
                    self.note(node, f"calls {name} with a computed name")
            if name in ("getattr", "setattr", "delattr") and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                if node.args[1].value in self.constructs["attributes"]:
                    self.note(node, f"uses {node.args[1].value}")
                if isinstance(node.args[0], ast.Name) and node.args[0].id in self.modules and name != "getattr":
                    self.note(node, f"changes {node.args[0].id}")
            if name == "open" and node.args and isinstance(node.args[0], ast.Constant) and type(node.args[0].value) is int:
                self.note(node, "opens a descriptor by its number")
            if name == "type" and len(node.args) == 3:
                self.note(node, "makes a class by type()")
        elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "sys.path":
            self.note(node, "changes sys.path")
        self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, str):
            for part in self.constructs["texts"]:
                if part in node.value:
                    self.note(node, f"names {part}")


def findings(root, constructs):
    """Returns `[path, line, construct]` for all files, at most 20."""
    found, own = [], {os.path.splitext(name)[0] for name in os.listdir(root)}
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, root)
            if name in constructs["files"] or name.endswith(tuple(constructs["endings"])):
                found.append([shown, 0, f"is a file named {name}"])
            if name.endswith(".py"):
                found += [[shown, line, what] for line, what in screened(path, constructs, own)]
    return found[:20]


def screened(path, constructs, own):
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
        screen = Screen(constructs, own)
        screen.visit(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [(getattr(error, "lineno", 0) or 0, f"cannot be read: {error}")]
    return screen.found
