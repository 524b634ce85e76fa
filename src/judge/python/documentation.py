"""Lists what the public functions and classes of packages say about themselves, without running the packages.

Each stands under the shortest module that offers it: many packages keep their code in private modules, and a package's
`__init__.py` imports from them what is public.
"""

import ast
import copy
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # Python is started without it
from rune_interface import FUNCTIONS, class_interface, public, signature  # noqa: E402

DOCUMENTED_LINES = 24  # of a docstring, beside its first


class Module:
    """A parsed file: its name, the functions and classes that it defines, and what it imports by name."""

    def __init__(self, path, tree):
        parts = path[:-len(".py")].split("/")
        self.is_package = parts[-1] == "__init__"
        self.parts = parts[:-1] if self.is_package else parts
        self.name = ".".join(self.parts)
        self.names = {}  # in the order of the file: a definition, or the module and the name that are imported
        self.starred = []
        for node in tree.body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                self.names[node.name] = node
            elif isinstance(node, ast.ImportFrom):
                self.add_import(node)
        self.all = listed(tree)

    def add_import(self, node):
        source = self.source(node)
        for alias in node.names:
            if alias.name == "*":
                self.starred.append(source)
            else:
                self.names[alias.asname or alias.name] = (source, alias.name)

    def source(self, node):
        """The absolute name of the module that a statement imports from."""
        if not node.level:
            return node.module
        package = self.parts if self.is_package else self.parts[:-1]
        above = package[:len(package) - node.level + 1]
        return ".".join(above + ([node.module] if node.module else []))

    def is_public(self):
        return all(public(part) for part in self.parts)

    def offers(self, name):
        return public(name) if self.all is None else name in self.all


def listed(tree):
    """The names of `__all__`; `None` without one that can be read."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            try:
                return set(ast.literal_eval(node.value))
            except (ValueError, TypeError):
                return None
    return None


def parsed(files):
    modules = {}
    for file in files:
        try:
            module = Module(file["path"], ast.parse(file["text"], file["path"]))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        modules[module.name] = module
    return modules


def definition(modules, source, name, seen):
    """The function or class behind a name, through the modules that pass it on; `None` if there is none."""
    module = modules.get(source)
    if module is None or (source, name) in seen:
        return None
    seen.add((source, name))
    found = module.names.get(name)
    if isinstance(found, tuple):
        return definition(modules, *found, seen)
    if found is None:
        starred = (definition(modules, other, name, seen) for other in module.starred if offered(modules, other, name))
        found = next((node for node in starred if node), None)
    return found


def offered(modules, source, name):
    return source in modules and modules[source].offers(name)


def names_of(modules, module, passes_on, seen):
    """The names that a module offers: those that it defines, and if it passes them on, those that it imports."""
    seen.add(module.name)
    names = [name for name, found in module.names.items() if passes_on or not isinstance(found, tuple)]
    for source in module.starred if passes_on else []:
        if source in modules and source not in seen:
            names += names_of(modules, modules[source], True, seen)
    return [name for name in dict.fromkeys(names) if module.offers(name)]


def text_of(node, name):
    """Signatures of a function or class under the name that it is offered by, then its docstring as comments."""
    node = copy.copy(node)
    node.name = name
    lines = class_interface(node) if isinstance(node, ast.ClassDef) else signature(node, "")
    rest = (ast.get_docstring(node) or "").strip().splitlines()[1:]
    return "\n".join(lines + [f"# {line}".rstrip() for line in rest if line.strip()][:DOCUMENTED_LINES])


def documented(files):
    modules = parsed(files)
    known, entries = set(), []
    for module in sorted(modules.values(), key=lambda module: len(module.parts)):
        for name in names_of(modules, module, module.is_package, set()) if module.is_public() else []:
            node = definition(modules, module.name, name, set())
            if node is not None and id(node) not in known:
                known.add(id(node))
                entries.append({"module": module.name, "text": text_of(node, name)})
    return entries


def main():
    entries = documented(json.load(sys.stdin))
    with os.fdopen(3, "w", encoding="ascii") as channel:
        json.dump(entries, channel)


main()
