"""Makes the suite `newlib`: tasks with real packages of PyPI that are younger than the models measured.

    python3 benches/newlib.py --out newlib --rune target/release/rune
    rune eval --suite newlib/suite.jsonl --lib newlib/lib
    rune eval --suite newlib/suite-passage.jsonl --lib newlib/lib

Downloads pinned packages whose first upload was in 2025 or later, by pip, without running any code of theirs, and
reads their tests and documented examples: calls of a public function with literal arguments and a literal result. A
task shows one such call of a function whose name is masked, and asks for a function that passes the others.

Writes to --out: lib/, the packages' sources; suite.jsonl; suite-passage.jsonl, the same tasks, each after the
documentation of the function wanted and of two others; train.jsonl, records about functions that no task asks for;
train-same.jsonl, records about all functions, without the calls of the tasks; suite-records.jsonl and
suite-records-same.jsonl, the tasks after the eight nearest of these records; cards.json, the packages. The same
call always writes the same bytes. Packages run only in Rune's sandbox, which verifies each task: its reference
passes, and a stub does not. Wants Python 3.11 or newer, for the packages; Rune may use another one than the script.
"""

import argparse
import ast
import collections
import copy
import hashlib
import json
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree

# Name, version, sha256 of the sdist, license, first upload.
PACKAGES = [
    ("authchallenge", "1.0.0", "868af57a189c3b114ed645199567701ffab3d078a63553e2a693e14caae65777",
     "MIT", "2026-10-19"),
    ("bioseqkit", "0.2.0", "36a06cdbb5e5a910691bd8ff82382d051a12d263f51b33f86a85b5016f17e582",
     "MIT", "2026-07-05"),
    ("browser-download-filename", "0.2.1", "0389375bd48bd0f6283bcee5e87e0113a18fe3750eedd34396af7256d6da3dd1",
     "(MIT OR Apache-2.0) AND BSD-3-Clause AND Unicode-3.0", "2026-10-16"),
    ("ccdirectives", "1.0.0", "ef195e665dfda228bd07f697afdc0320210d2248eb30badb69ae9efd452ab69c",
     "MIT", "2026-10-17"),
    ("cocktailfyi", "0.1.4", "a822f0dc5908e3d3424fc8c04df47a5f403017fcbe7929a6c6b482ec1664fb04",
     "MIT", "2026-03-05"),
    ("codechu-fmt", "0.4.0", "2a789ef9b77ff1cd4f855723338bdaade2c18ce7cb2a4bd3961d8d99c77866f6",
     "MIT", "2026-05-20"),
    ("elemental-indium", "1.0.0", "c08b205bce3f8f2ee3bd2fa0b9c35bea954a45f4af965110ddcefce4fc306e58",
     "MIT", "2026-01-08"),
    ("emailsyntax", "0.2.0", "4d42cd6c69f124491f1fc11b019918db492c3513feaed1f311b8c1617706cee3",
     "MIT", "2026-10-23"),
    ("hebrewcal", "1.5.0", "36f2fe3b955f08239c23cb54e4c4b1279b9653a816fa55f73607739629c06086",
     "MIT", "2026-06-07"),
    ("idcheck", "0.2.0", "065e2b68b9d93eddf2a869a0428f6d88d0d01c7204af670330aac4f9779e5214",
     "MIT", "2026-10-23"),
    ("listunsub", "0.2.0", "0d08234e02c392b17fb68edfbf933c8f55f9cf8dac43417547923063fc5e77df",
     "MIT", "2026-10-22"),
    ("lyndon-words", "0.4.0", "b37d58aef4053ff0a18ae756624abff814fa95a1f4538b5148d181a8c67949e4",
     "MIT", "2026-06-23"),
    ("numthy", "0.2.1", "c2b4923c921f08c3ba22089e7b428d7370557acdbbb361e0e9fcb7df554bb74e",
     "MIT", "2025-12-27"),
    ("peasytext", "0.2.2", "1b81ff10b1618be9252aa66cc2e151dc9735d6f231299c97efb405228669b445",
     "MIT", "2026-03-10"),
    ("vn-text", "0.1.0", "52f2ccf938bde7e6f90ca546bae2c88c1f2395a4676099f646b8d213ff1c7781",
     "MIT", "2026-10-04"),
]

# Highest share of a package's documented functions that is asked for, of those with enough calls. Records teach the
# others.
ASKED = 0.6
MAX_KINDS = 5
MAX_TASKS = 48
MAX_ASSERTS = 8
MAX_PASSAGE = 2500

NO_PACKAGE = {"tests", "test", "testing", "docs", "doc", "examples", "benchmarks", "scripts", "tools", "demo", "setup",
              "conftest"}
WRAPPERS = {"len", "str", "list", "tuple", "sorted", "dict", "set", "int", "float", "bool", "repr", "round"}

# A backend that pip asks for an sdist's metadata, instead of the sdist's own, which would run code of the sdist.
BACKENDS = ["hatchling/build.py", "setuptools/build_meta.py", "flit_core/buildapi.py", "uv_build/__init__.py",
            "poetry/core/masonry/api.py", "pdm/backend/__init__.py"]
BACKEND = '''
import pathlib, sys

def prepare_metadata_for_build_wheel(folder, settings=None):
    lines = pathlib.Path("PKG-INFO").read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith(("Metadata-Version: ", "Name: ", "Version: "))][:3]
    name, version = (line.split(": ")[1] for line in head[1:])
    info = pathlib.Path(folder, name.replace("-", "_") + "-" + version + ".dist-info")
    info.mkdir()
    (info / "METADATA").write_text("\\n".join(head) + "\\n", encoding="utf-8")
    return info.name

__legacy__ = sys.modules[__name__]
'''

Site = collections.namedtuple("Site", "definition kind arguments expected tolerance names title documented narrow")
Definition = collections.namedtuple("Definition", "module qualname node owner")


def draw(*words):
    """A generator that depends on the words only."""
    return random.Random(hashlib.sha256("/".join(words).encode()).hexdigest())


def literal(node):
    """Whether the node is a literal value."""
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def squeeze(code):
    """Code without what may differ between two spellings of the same call."""
    return re.sub(r"\s|(?<=\d)_(?=\d)", "", code).replace("'", '"')


# Download.


def download(name, version, folder):
    """Lets pip fetch an sdist; no code of the sdist runs."""
    with tempfile.TemporaryDirectory() as backends:
        for path in BACKENDS:
            path = pathlib.Path(backends, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            for parent in path.relative_to(backends).parents:
                pathlib.Path(backends, parent, "__init__.py").touch()
            path.write_text(BACKEND, encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--use-pep517",
             "--no-build-isolation", "--dest", str(folder), f"{name}=={version}"],
            check=True, env={**os.environ, "PYTHONPATH": backends, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )


def sdist(name, version, digest, folder):
    """The text files of an sdist by path, from its root."""
    stem = re.sub(r"[-_.]+", "[-_.]+", name)

    def known():
        found = [path for path in folder.iterdir() if re.fullmatch(f"{stem}-{re.escape(version)}.tar.gz", path.name)]
        return found[0] if found else None

    if not known():
        download(name, version, folder)
    data = known().read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        sys.exit(f"{known().name}: the sha256 is not {digest}")
    files = {}
    with tarfile.open(known()) as archive:
        for member in archive:
            parts = pathlib.PurePosixPath(member.name).parts[1:]
            if member.isfile() and parts and ".." not in parts and parts[-1].endswith((".py", ".md", ".rst")):
                files["/".join(parts)] = archive.extractfile(member).read().decode("utf-8", "replace")
    return files


# What a package defines.


class Package:
    def __init__(self, name, version, license, first, files):
        self.name, self.version, self.license, self.first = name, version, license, first
        sources = {path[4:] if path.startswith("src/") else path: text for path, text in files.items()
                   if path.endswith(".py")}
        sizes = collections.Counter()
        for path, text in sources.items():
            top = path.split("/")[0].removesuffix(".py")
            is_module = top == path[:-3] or f"{top}/__init__.py" in sources
            if is_module and top not in NO_PACKAGE and not top.startswith("test_"):
                sizes[top] += len(text)
        self.module = max(sorted(sizes), key=sizes.get)
        self.sources = {path: text for path, text in sources.items()
                        if path.split("/")[0].removesuffix(".py") == self.module
                        and not re.search(r"(^|/)(tests?/|test_[^/]*$|conftest)", path)}
        self.tests = {path: text for path, text in files.items()
                      if re.fullmatch(r"(.*/)?(test_[^/]*|[^/]*_test)\.py", path)}
        readmes = [text for path, text in sorted(files.items()) if re.fullmatch(r"README\.(md|rst)", path)]
        self.readme = readmes[0] if readmes else ""
        self.trees, self.packages = {}, set()
        for path, text in sorted(self.sources.items()):
            dotted = path[:-3].replace("/", ".")
            if dotted.endswith(".__init__"):
                dotted = dotted.removesuffix(".__init__")
                self.packages.add(dotted)
            self.trees[dotted] = ast.parse(text)
        self.exports = {}
        for name in sorted(self.names(self.module)):
            found = None if name.startswith("_") else self.lookup(f"{self.module}.{name}")
            if found:
                self.exports.setdefault(found[:2], f"{self.module}.{name}")

    def names(self, module):
        """The names that a module binds by definitions and imports."""
        for node in self.trees[module].body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name != "*":
                        yield alias.asname or alias.name
                    elif self.origin(module, node) in self.trees:
                        yield from self.names(self.origin(module, node))

    def origin(self, module, node):
        """The module that an import statement imports from."""
        if not node.level:
            return node.module
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + (module in self.packages)]
        return ".".join(parts + ([node.module] if node.module else []))

    def member(self, module, name, depth=0):
        """The definition to which a name is bound in a module."""
        if depth > 8 or module not in self.trees:
            return None
        for node in reversed(self.trees[module].body):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
                return Definition(module, name, node, None)
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name == "*" or (alias.asname or alias.name) == name:
                        wanted = name if alias.name == "*" else alias.name
                        found = self.member(self.origin(module, node), wanted, depth + 1)
                        if found:
                            return found
        return None

    def find(self, dotted):
        """The module in which a dotted name is reached, and its definition or `None`."""
        module, *rest = dotted.split(".")
        for index, name in enumerate(rest):
            found = self.member(module, name)
            for inner in rest[index + 1 :] if found else ():
                found = found and self.attribute(found, inner)
            if found or f"{module}.{name}" not in self.trees:
                return module, found
            module += f".{name}"
        return module, None

    def lookup(self, dotted):
        return self.find(dotted)[1]

    def attribute(self, definition, name, depth=0):
        """The method or property of a class or of its bases."""
        if not isinstance(definition.node, ast.ClassDef) or depth > 5:
            return None
        for node in definition.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return Definition(definition.module, f"{definition.qualname}.{name}", node, definition)
        for base in definition.node.bases:
            found = isinstance(base, ast.Name) and self.member(definition.module, base.id)
            found = found and self.attribute(found, name, depth + 1)
            if found:
                return found
        return None

    def public(self, definition):
        """The dotted name by which users reach a definition; `None` if there is none without underscores."""
        root, _, rest = definition.qualname.partition(".")
        path = self.exports.get((definition.module, root), f"{definition.module}.{root}")
        path += f".{rest}" if rest else ""
        return None if any(part.startswith("_") for part in path.split(".")) else path

    def returned(self, definition):
        """The class of the package that a function's annotation promises."""
        node = definition.node
        if isinstance(node, ast.ClassDef):
            return definition
        annotation = node.returns
        name = getattr(annotation, "id", None) or getattr(annotation, "value", None)
        if name == "Self":
            return definition.owner
        found = self.member(definition.module, name) if isinstance(name, str) else None
        return found if found and isinstance(found.node, ast.ClassDef) else None

    def is_library(self, module):
        """Whether a module is neither a command line nor in need of another package."""
        needed = set()
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                needed |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                needed.add(node.module.split(".")[0])
        is_command = module.rpartition(".")[2].strip("_") in ("cli", "main")
        return not is_command and needed <= sys.stdlib_module_names | {self.module}

    def definitions(self):
        """All public functions, methods and properties that have a docstring."""
        found = {}
        for module in self.trees:
            for name in self.names(module) if self.is_library(module) else ():
                definition = self.member(module, name)
                if not definition or name.startswith("_"):
                    continue
                inner = [definition]
                if isinstance(definition.node, ast.ClassDef):
                    inner = [self.attribute(definition, node.name) for node in definition.node.body
                             if isinstance(node, ast.FunctionDef)]
                for one in inner:
                    if self.public(one) and sentence(one):
                        found.setdefault(self.public(one), one)
        return dict(sorted(found.items()))


def has_decorator(definition, *names):
    decorators = {ast.unparse(node).rpartition(".")[2] for node in definition.node.decorator_list}
    return bool(decorators & set(names))


def is_property(definition):
    return has_decorator(definition, "property", "cached_property")


def parameters(definition):
    """The names of a function's positional parameters, without `self`; a variadic one ends with `*`."""
    node = definition.node
    if isinstance(node, ast.ClassDef):
        inner = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
        if "__init__" not in inner and "__new__" not in inner:
            return [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
        node = inner.get("__init__") or inner["__new__"]
    arguments = node.args
    names = [item.arg for item in arguments.posonlyargs + arguments.args]
    bound = isinstance(definition.node, ast.ClassDef) or definition.owner
    if bound and not has_decorator(definition, "staticmethod"):
        names = names[1:]
    return names + ([arguments.vararg.arg + "*"] if arguments.vararg else [])


def sentence(definition):
    """The first sentence of a docstring, in one line."""
    text = ast.get_docstring(definition.node) or ""
    text = " ".join(re.split(r"\n\s*\n|::\s", text.strip())[0].split()).replace("``", "`")
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text)
    return re.split(r"(?<=[^.][.!])\s+(?=[A-Z])", text)[0].rstrip(":")


def signature(package, definition):
    """A function's signature in one line."""
    path = package.public(definition)
    if isinstance(definition.node, ast.ClassDef):
        return f"{path}({', '.join(name.rstrip('*') for name in parameters(definition))})"
    node = copy.deepcopy(definition.node)
    if definition.owner and not has_decorator(definition, "staticmethod"):
        node.args.args = node.args.args[1:]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{path}{'' if is_property(definition) else f'({ast.unparse(node.args)})'}{returned}"


# Calls with literal arguments.


class Caller:
    """Reads expressions that call the package."""

    def __init__(self, package, aliases):
        self.package, self.aliases = package, aliases

    def dotted(self, node):
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id)
        inner = self.dotted(node.value) if isinstance(node, ast.Attribute) else None
        return inner and f"{inner}.{node.attr}"

    def shape(self, node, leaves):
        """The expression with holes for the literals, the definition that it calls, and the class of its value."""
        if isinstance(node, ast.Attribute) and not node.attr.startswith("_"):
            inner = self.shape(node.value, leaves)
            return inner and self.attribute(inner, node.attr, None, leaves)
        if isinstance(node, ast.Subscript) and literal(node.slice):
            inner = self.shape(node.value, leaves)
            return inner and (f"{inner[0]}[{ast.unparse(node.slice)}]", inner[1], None)
        if not isinstance(node, ast.Call):
            return None
        path = self.dotted(node.func)
        definition = path and self.package.lookup(path)
        if definition:
            public = self.package.public(definition)
            if not public or definition.owner and not has_decorator(definition, "classmethod", "staticmethod"):
                return None
            arguments = self.arguments(node, definition, leaves)
            return arguments and (f"{public}{arguments}", definition, self.package.returned(definition))
        if isinstance(node.func, ast.Attribute) and not node.func.attr.startswith("_"):
            inner = self.shape(node.func.value, leaves)
            return inner and self.attribute(inner, node.func.attr, node, leaves)
        if isinstance(node.func, ast.Name) and node.func.id in WRAPPERS and len(node.args) == 1 and not node.keywords:
            inner = self.shape(node.args[0], leaves)
            return inner and (f"{node.func.id}({inner[0]})", inner[1], None)
        return None

    def attribute(self, inner, name, call, leaves):
        """An attribute of an object, or the call of its method."""
        text, definition, value = inner
        found = value and self.package.attribute(value, name)
        if call is None:
            target = found if found and sentence(found) and is_property(found) else definition
            return f"{text}.{name}", target, found and self.package.returned(found)
        if not found or is_property(found):
            return None
        arguments = self.arguments(call, found, leaves)
        target = found if sentence(found) else definition
        return arguments and (f"{text}.{name}{arguments}", target, self.package.returned(found))

    def arguments(self, call, definition, leaves):
        names = parameters(definition)
        parts = []
        for index, node in enumerate(call.args):
            name = names[min(index, len(names) - 1)] if names else "value"
            if index >= len(names) and not name.endswith("*"):
                return None
            part = self.argument(node, name.rstrip("*"), leaves)
            parts.append(part)
        for keyword in call.keywords:
            part = keyword.arg and self.argument(keyword.value, keyword.arg, leaves)
            parts.append(part and f"{keyword.arg}={part}")
        return None if None in parts else f"({', '.join(parts)})"

    def argument(self, node, name, leaves):
        if literal(node):
            name = "value" if name in {"solution", self.package.module, *WRAPPERS} else name
            taken = {known for known, _ in leaves}
            number = 2
            unique = name
            while unique in taken:
                unique, number = f"{name}{number}", number + 1
            leaves.append((unique, ast.unparse(node)))
            return unique
        inner = self.shape(node, leaves)
        return inner and inner[0]

    def site(self, node, expected, tolerance, title, documented):
        """The call site; `None` if the expression is none."""
        leaves = []
        found = self.shape(node, leaves)
        if not found or not leaves or not sentence(found[1]) or not self.package.public(found[1]):
            return None
        names, arguments = zip(*leaves)
        return Site(found[1], found[0], arguments, ast.unparse(expected), tolerance, names, title, documented, None)


class Substitute(ast.NodeTransformer):
    def __init__(self, known):
        self.known = known

    def visit_Name(self, node):
        return copy.deepcopy(self.known[node.id]) if node.id in self.known else node


class Tests:
    """Reads the call sites of a test file."""

    def __init__(self, package, text):
        self.package, self.sites, self.aliases, self.constants = package, [], {}, {}
        self.tree = ast.parse(text)
        for node in ast.walk(self.tree):
            self.imports(node)
        for node in self.tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
                self.constant(node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value)
        self.caller = Caller(package, self.aliases)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                for row in self.rows(node):
                    self.block(node.body, {**self.constants, **row}, node.name)

    def imports(self, node):
        module = self.package.module
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == module:
                    self.aliases[alias.asname or module] = alias.name if alias.asname else module
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] == module:
            for alias in node.names:
                self.aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def constant(self, target, value):
        """Keeps a literal, or a module that a helper of the tests loads."""
        if isinstance(target, ast.Name) and literal(value):
            self.constants[target.id] = value
        elif isinstance(target, ast.Name) and isinstance(value, ast.Call) and not value.args and not self.aliases:
            self.aliases[target.id] = self.package.module

    def rows(self, function):
        """The bindings of the parameters for each row of a table of `parametrize`."""
        rows = [{}]
        for node in function.decorator_list:
            if getattr(getattr(node, "func", None), "attr", "") != "parametrize" or len(node.args) < 2:
                continue
            names, table = node.args[0], node.args[1]
            if isinstance(table, ast.Name):
                table = self.constants.get(table.id, table)
            if not literal(names) or not isinstance(table, (ast.List, ast.Tuple)):
                return []
            names = ast.literal_eval(names)
            names = re.split(r"\s*,\s*", names.strip()) if isinstance(names, str) else list(names)
            rows = [{**row, **more} for row in rows for more in self.bindings(names, table)]
        return rows[:200]

    @staticmethod
    def bindings(names, table):
        for row in table.elts:
            values = [row]
            if isinstance(row, ast.Call) and ast.unparse(row.func) == "pytest.param":
                values = row.args
            elif len(names) > 1:
                values = getattr(row, "elts", [])
            if len(values) == len(names):
                yield dict(zip(names, values))

    def block(self, body, known, title):
        for node in body:
            if isinstance(node, (ast.With, ast.If, ast.Try)):
                # What stands in a block may be bound to fail.
                if isinstance(node, ast.With) and "subTest" in ast.unparse(node.items[0]):
                    self.block(node.body, known, title)
            elif isinstance(node, ast.For):
                self.loop(node, known, title)
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                known[node.targets[0].id] = Substitute(known).visit(copy.deepcopy(node.value))
            elif isinstance(node, ast.Assert):
                self.claim(Substitute(known).visit(copy.deepcopy(node.test)), title)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self.unittest(Substitute(known).visit(copy.deepcopy(node.value)), title)

    def loop(self, node, known, title):
        table = Substitute(known).visit(copy.deepcopy(node.iter))
        if isinstance(table, ast.Call) and isinstance(table.func, ast.Attribute) and table.func.attr == "items":
            pairs = table.func.value
            rows = [ast.Tuple(list(pair), ast.Load()) for pair in zip(pairs.keys, pairs.values)] \
                if isinstance(pairs, ast.Dict) else []
        else:
            rows = table.elts if isinstance(table, (ast.List, ast.Tuple)) else []
        names = [item.id for item in getattr(node.target, "elts", [node.target]) if isinstance(item, ast.Name)]
        for row in self.bindings(names, ast.List(rows[:200], ast.Load())) if names else []:
            self.block(node.body, {**known, **row}, title)

    def unittest(self, call, title):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name in ("assertEqual", "assertListEqual", "assertTupleEqual", "assertDictEqual", "assertIs"):
            self.pair(call.args[0], call.args[1], title)
        elif name in ("assertTrue", "assertFalse", "assertIsNone"):
            value = {"assertTrue": True, "assertFalse": False, "assertIsNone": None}[name]
            self.pair(call.args[0], ast.Constant(value), title)

    def claim(self, node, title):
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for value in node.values:
                self.claim(value, title)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], (ast.Eq, ast.Is)):
            self.pair(node.left, node.comparators[0], title)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.pair(node.operand, ast.Constant(False), title)
        elif isinstance(node, ast.Call):
            self.pair(node, ast.Constant(True), title)

    def pair(self, one, other, title):
        for node, expected in ((one, other), (other, one)):
            value, tolerance = approximate(expected)
            if literal(value) and not literal(node):
                site = self.caller.site(node, value, tolerance, title, False)
                if site:
                    self.sites.append(site)
                    return


def approximate(node):
    """The number of `pytest.approx` and its tolerance; of any other value the value and `None`."""
    function = getattr(node, "func", None)
    if getattr(function, "attr", getattr(function, "id", "")) != "approx" or not node.args:
        return node, None
    limits = {item.arg: item.value for item in node.keywords}
    if not literal(node.args[0]) or not all(map(literal, limits.values())):
        return node, None
    value = ast.literal_eval(node.args[0])
    if not isinstance(value, (int, float)):
        return node, None
    limits = {name: ast.literal_eval(limit) for name, limit in limits.items()}
    return node.args[0], limits.get("abs") or abs(value) * limits.get("rel", 1e-6) or 1e-12


def documented(package):
    """The call sites of doctests and of lines `call  # result` in docstrings and the README."""
    aliases = {path.rpartition(".")[2]: path for path in package.exports.values()}
    aliases[package.module] = package.module
    texts = [(aliases, package.readme)]
    for definition in package.definitions().values():
        own = {**aliases, definition.qualname.split(".")[0]: f"{definition.module}.{definition.qualname.split('.')[0]}"}
        texts.append((own, ast.get_docstring(definition.node)))
    for known, text in texts:
        caller = Caller(package, known)
        for code, want in examples(text):
            try:
                call, value = ast.parse(code.strip(), mode="eval").body, ast.parse(want.strip(), mode="eval").body
            except (SyntaxError, ValueError):
                continue
            site = literal(value) and caller.site(call, value, None, "", True)
            if site:
                yield site


DOCTEST = re.compile(r"^[ \t]*>>> (?P<code>.*(?:\n[ \t]*\.\.\. .*)*)\n(?P<want>(?:[ \t]*(?!>>>)\S.*\n?)+)", re.M)
REMARK = re.compile(r"^[ \t]*(?P<code>\w[\w.]*\(.*\S)[ \t]+#[ \t]*(?:->|=>|==>|→)?[ \t]*(?P<want>\S.*)$", re.M)


def examples(text):
    """The code and the result of each example."""
    for found in DOCTEST.finditer(text):
        yield re.sub(r"\n[ \t]*\.\.\. ", "\n", found["code"]), " ".join(found["want"].split("```")[0].split())
    for found in REMARK.finditer(text):
        yield found["code"], re.split(r"\s{2,}", found["want"])[0]


# Code and its verification.


def solution(package, site, name="solution"):
    """The source of the function that makes the call."""
    return f"def {name}({', '.join(site.names)}):\n    return {site.kind}\n"


def imports(package, kind):
    """The modules that an expression needs, each in a line."""
    found = set()
    for path in re.findall(rf"\b{package.module}(?:\.\w+)+", kind):
        found.add(f"import {package.find(path)[0]}\n")
    return "".join(sorted(found))


def reference(package, site):
    return f"```python\n{imports(package, site.kind)}\n\n{solution(package, site)}```"


def assertion(site, name="solution"):
    call = f"{name}({', '.join(site.arguments)})"
    if site.tolerance is not None:
        return f"assert abs({call} - {site.expected}) <= {site.tolerance!r}"
    return f"assert {call} == {site.expected}"


class Judge:
    """Rune's sandbox, with the package in memory as in an evaluation."""

    def __init__(self, rune, home, package):
        modules = pathlib.Path(__file__).resolve().parent.parent / "src/evaluation/modules.py"
        sources = {}
        for path, text in package.sources.items():
            dotted = path[:-3].replace("/", ".")
            is_package = dotted.endswith(".__init__")
            sources[dotted.removesuffix(".__init__")] = [int(is_package), text]
        sources = json.dumps(sources, ensure_ascii=False)
        self.head = f"{modules.read_text(encoding='utf-8')}\n_rune_install({sources})\n\n"
        self.command = [str(rune), "--home", str(home), "judge"]

    def run(self, code, tests):
        """Whether all tests passed and can be trusted, and the failed ones with their messages."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "solution.py").write_text(self.head + code, encoding="utf-8")
            (folder / "test_solution.py").write_text(
                "import solution as module\n\n\n" + "\n".join(
                    f"def test_{name}():\n" + "".join(f"    {line}\n" for line in lines) + "\n"
                    for name, lines in tests.items()
                ), encoding="utf-8")
            report = folder / "report.xml"
            done = subprocess.run(
                [*self.command, str(folder / "solution.py"), "--tests", str(folder / "test_solution.py"), "--junit",
                 str(report)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if not report.exists():
                sys.exit(f"rune judge: {done.stderr or done.stdout}")
            passed, failed = set(), {}
            for case in xml.etree.ElementTree.parse(report).iter("testcase"):
                name = case.get("name").removeprefix("test_")
                if len(case):
                    failed[name] = case[0].get("message") or case[0].tag
                else:
                    passed.add(name)
            for name in tests:
                if name not in passed:
                    failed.setdefault(name, "it did not run")
            return done.returncode == 0, failed, done.stdout

    def verify(self, code, tests):
        """The tests that do not pass with trust, with the reasons."""
        dropped = {}
        for _ in range(20):
            rest = {name: lines for name, lines in tests.items() if name not in dropped}
            if not rest:
                break
            trusted, failed, output = self.run(code, rest)
            if trusted:
                break
            dropped.update(failed or {name: "it cannot be trusted: " + output.strip()[-200:] for name in rest})
        return dropped


def reason(message):
    """The kind of a failure."""
    found = re.match(r"(\w+(?:Error|Exception|Warning))\b", message)
    return found[1] if found else "another value" if message.startswith("assert") else message[:60]


def parameters_of(package, site):
    """The arguments of a plain call by parameter; `None` for any other expression."""
    call = ast.parse(site.kind, mode="eval").body
    path = package.public(site.definition)
    is_plain = isinstance(call, ast.Call) and ast.unparse(call.func) == path
    if not is_plain or isinstance(site.definition.node, ast.ClassDef):
        return None
    nodes = list(zip(parameters(site.definition), call.args)) + [(item.arg, item.value) for item in call.keywords]
    known = dict(zip(site.names, site.arguments))
    return {name: known.get(ast.unparse(node)) for name, node in nodes}


def defaults(definition):
    """The literal defaults of a function's parameters."""
    arguments = definition.node.args
    plain = arguments.posonlyargs + arguments.args
    pairs = list(zip(plain[len(plain) - len(arguments.defaults) :], arguments.defaults))
    pairs += [pair for pair in zip(arguments.kwonlyargs, arguments.kw_defaults) if pair[1]]
    return {item.arg: ast.unparse(node) for item, node in pairs if literal(node)}


def widened(package, sites):
    """Calls of few arguments, as calls of a kind with more: the others have their defaults."""
    plain = [(site, parameters_of(package, site)) for site in sites]
    plain = [(site, given) for site, given in plain if given and None not in given.values()]
    shapes = {(site.definition.node, site.kind): (site, given) for site, given in plain}
    for shape, wide in shapes.values():
        known = defaults(shape.definition)
        for site, given in plain:
            missing = wide.keys() - given.keys()
            if site.definition.node is shape.definition.node and missing and given.keys() < wide.keys() \
                    and missing <= known.keys():
                arguments = tuple(given.get(name) or known[name] for name in wide)
                yield site._replace(kind=shape.kind, names=shape.names, arguments=arguments, narrow=site)


def call_sites(package, judge):
    """The call sites that pass, by name of the function and by kind, and why the others do not."""
    found = [site for path, text in sorted(package.tests.items()) for site in Tests(package, text).sites]
    found += documented(package)
    own = {(site.kind, site.arguments) for site in found}
    found += [site for site in widened(package, found) if (site.kind, site.arguments) not in own]
    unique, clash = {}, set()
    for site in found:
        known = unique.setdefault((package.public(site.definition), site.kind, site.arguments), site)
        if known.expected != site.expected:
            clash.add((package.public(site.definition), site.kind, site.arguments))
    unique = [(key, site) for key, site in unique.items() if key not in clash]
    kinds = {key[:2]: site for key, site in reversed(unique)}
    numbers = {key: number for number, key in enumerate(kinds)}
    code = "".join(imports(package, site.kind) + solution(package, site, f"solution_{numbers[key]}") + "\n\n"
                   for key, site in kinds.items())
    tests = {f"{number}_{numbers[key[:2]]}": [assertion(site, f"module.solution_{numbers[key[:2]]}")]
             for number, (key, site) in enumerate(unique)}
    dropped = {}
    names = list(tests)
    for start in range(0, len(names), 60):
        dropped.update(judge.verify(code, {name: tests[name] for name in names[start : start + 60]}))
    sites = collections.defaultdict(list)
    for name, (key, site) in zip(names, unique):
        if name not in dropped:
            sites[key[:2]].append(site)
    reasons = collections.Counter(map(reason, dropped.values()))
    reasons["two results for one call"] += len(clash)
    return sites, +reasons


# Tasks.


def masked(text, name):
    """The text with the name masked, also where it is spelled as words."""
    words = r"[ _-]".join(map(re.escape, name.strip("_").split("_")))
    return re.sub(rf"(?<![A-Za-z0-9]){words}(?![A-Za-z0-9])", "___", text, flags=re.IGNORECASE)


def rest_of(package, site):
    """What a solution does with the result of the function wanted, as an expression of `result`."""
    path = package.public(site.definition)
    last = path.rpartition(".")[2]

    class Hole(ast.NodeTransformer):
        def visit_Call(self, node):
            is_method = site.definition.owner and getattr(node.func, "attr", "") == last
            if is_method or ast.unparse(node.func) == path:
                return ast.Name("result", ast.Load())
            return self.generic_visit(node)

        def visit_Attribute(self, node):
            if site.definition.owner and node.attr == last:
                return ast.Name("result", ast.Load())
            return self.generic_visit(node)

    return ast.unparse(Hole().visit(ast.parse(site.kind, mode="eval")))


def titles(site_list, name):
    """What the tests are about, by their names."""
    found = []
    for site in site_list:
        words = re.sub(r"^test_*", "", site.title).replace("_", " ")
        words = " ".join(masked(words, name).replace("___", " ").split())
        if words not in found and len(words) > 2:
            found.append(words)
    return found[:3]


def question(package, shown, asserted):
    name = package.public(shown.definition).rpartition(".")[2]
    lines = [masked(sentence(shown.definition), name)]
    lines += [f"On the way: {line}" for line in inner_calls(package, shown)]
    about = titles([shown, *asserted], name)
    if about:
        lines.append(f"Covered by the tests: {'; '.join(about)}.")
    rest = rest_of(package, shown)
    if rest != "result":
        lines.append(f"Of what the library gives, return: {rest}")
    lines.append(f"Example: {assertion(shown).removeprefix('assert ')}")
    comment = "".join(f"    # {line}\n" for line in lines)
    return (
        f"The Python package {package.name} is installed. Complete this function with it: the package does what is "
        f"wanted, so call it rather than compute the result yourself.\n\n```python\n{imports(package, shown.kind)}\n\n"
        f"def solution({', '.join(shown.names)}):\n{comment}```\n\nAnswer with the complete function and its import in "
        "one code block."
    )


def inner_calls(package, site):
    """What the calls do that make the arguments of the function wanted."""
    for path, definition in inner_definitions(package, site.kind):
        inside = definition.node is not site.definition.node and definition is not site.definition.owner
        if inside and sentence(definition):
            yield masked(sentence(definition), path.rpartition(".")[2])


def value(site):
    return ast.unparse(ast.parse(site.expected))


def is_echo(site):
    """Whether the result is one of the arguments."""
    return squeeze(site.expected) in map(squeeze, site.arguments)


def choose(package, key, found):
    """A call site to show and those to assert; `None` if there are too few."""
    generator = draw("sites", package.name, *key)
    tested = [site for site in found if not site.documented]
    pool = tested if len(tested) >= 3 and len(set(map(value, tested))) > 1 else found
    pool = pool[:]
    generator.shuffle(pool)
    pool.sort(key=lambda site: site.narrow is not None)
    results = collections.Counter(map(value, pool))
    if len(results) < 2:
        return None
    # Different results first.
    seen = collections.Counter()
    ranked = []
    for site in pool:
        ranked.append((seen[value(site)], site.narrow is not None, is_echo(site), len(ranked), site))
        seen[value(site)] += 1
    pool = [item[-1] for item in sorted(ranked, key=lambda item: item[:4])][: MAX_ASSERTS + 1]
    by_length = sorted(pool, key=lambda site: (is_echo(site), len(assertion(site))))
    for shown in by_length:
        others = [site for site in pool if site is not shown]
        if len(set(map(value, others))) > 1 and len(others) > 1:
            return shown, others
    return by_length[0], pool


def make_tasks(package, judge):
    """The tasks of a package, and reasons for call sites and tasks that were dropped."""
    sites, reasons = call_sites(package, judge)
    ready = collections.defaultdict(list)
    for key in sorted(sites, key=lambda key: (-len(sites[key]), key)):
        chosen = choose(package, key, sites[key])
        if chosen and len(ready[key[0]]) < MAX_KINDS:
            ready[key[0]].append((key[1], *chosen))
    ready = {path: kinds for path, kinds in ready.items() if kinds}
    known = package.definitions()
    order = sorted(ready, key=lambda path: draw("split", package.name, path).random())
    asked = sorted(order[: round(ASKED * len(known))])
    tasks = []
    for path in asked:
        for number, (kind, shown, others) in enumerate(ready[path], 1):
            function = path.removeprefix(package.module + ".")
            tasks.append({
                "id": f"newlib/{package.name}/{function}/{number}",
                "group": package.name,
                "family": f"{package.name}/{function}",
                "shown": shown,
                "asserted": others,
            })
    if len(tasks) > MAX_TASKS:
        kept = draw("kept", package.name).sample(range(len(tasks)), MAX_TASKS)
        tasks = [tasks[index] for index in sorted(kept)]
    return tasks, reasons


def prove(package, judge, tasks):
    """The tasks whose reference passes and whose stub does not, and why the others were dropped."""
    code, stubs, tests = "", "", {}
    for number, task in enumerate(tasks):
        code += imports(package, task["shown"].kind) + solution(package, task["shown"], f"solution_{number}") + "\n\n"
        stubs += f"def solution_{number}(*_, **__):\n    pass\n\n\n"
        tests[str(number)] = [assertion(site, f"module.solution_{number}") for site in task["asserted"]]
    dropped = judge.verify(code, tests)
    failed = judge.run(stubs, tests)[1]
    dropped.update({name: "it passes on a stub" for name in tests if name not in failed})
    for number, task in enumerate(tasks):
        if is_identity(task):
            dropped[str(number)] = "an argument returned passes"
    kept = [task for number, task in enumerate(tasks) if str(number) not in dropped]
    return kept, collections.Counter(map(reason, dropped.values()))


def is_identity(task):
    """Whether a function that returns one of its arguments, or all of them, passes."""
    def passes(answer):
        return all(squeeze(answer(site.arguments)) == squeeze(site.expected) for site in task["asserted"])

    picks = [lambda arguments, index=index: arguments[index] for index in range(len(task["shown"].names))]
    return any(map(passes, [*picks, lambda arguments: f"({','.join(arguments)})"]))


def is_constant(task):
    return len({value(site) for site in task["asserted"]}) < 2


# Documentation.


def calls(package, site):
    """How documentation may write the call of a site."""
    if site.narrow:
        yield from calls(package, site.narrow)
    inner = squeeze(spelled(site)).replace(package.module + ".", "")
    last = package.public(site.definition).rpartition(".")[2]
    yield inner
    start = inner.find(last + "(")
    if start >= 0:
        yield inner[start : inner.find(")", start) + 1]


def spellings(line):
    """A line of documentation as it is, and its code as Python writes it back."""
    yield squeeze(line)
    code = re.split(r"\s(?:#|→|->|=>)\s", line.replace(">>>", "").strip())[0]
    try:
        yield squeeze(ast.unparse(ast.parse(code)))
    except (SyntaxError, ValueError):
        pass


def is_hidden(line, hidden):
    """Whether a line of documentation has one of the calls, or the arguments and the result of one in a table."""
    calls, pairs = hidden
    if any(call in spelling for spelling in spellings(line) for call in calls):
        return True
    return any(given in squeeze(line) and result in squeeze(line) for given, result in pairs)


def without(text, hidden):
    """A text without the examples whose calls are hidden."""
    kept, skip = [], False
    for line in text.splitlines():
        prompt = line.lstrip().startswith(">>>")
        if is_hidden(line, hidden):
            skip = prompt
            continue
        if skip and line.strip() and not prompt:
            continue
        skip = False
        kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def entry(package, definition, hidden, limit):
    """The signature of a function, and its documentation without the hidden calls."""
    lines = [signature(package, definition)]
    if definition.owner and not has_decorator(definition, "classmethod", "staticmethod"):
        lines.insert(0, signature(package, definition.owner))
    text = without(ast.get_docstring(definition.node), hidden)
    if len(text) < 300:
        text = "\n\n".join(filter(None, [text, without(section(package, definition), hidden)]))
    if len(text) > limit:
        text = text[:limit].rpartition("\n")[0] or text[:limit].rpartition(" ")[0]
    return "\n".join(lines) + "\n" + "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


def section(package, definition):
    """The section of the README whose heading names the function."""
    last = definition.qualname.rpartition(".")[2]
    found = re.search(rf"^#+ [^\n]*\b{re.escape(last)}\b[^\n]*\n(.*?)(?=^#|\Z)", package.readme, re.M | re.S)
    text = found[1].strip() if found else ""
    return "" if text.startswith("#") else text


def passage(package, task):
    definition = task["shown"].definition
    path = package.public(definition)
    known = package.definitions()
    generator = draw("passage", task["id"])
    needed = {other: one for other, one in inner_definitions(package, task["shown"].kind)
              if one.node is not definition.node and one is not definition.owner}
    # Another definition of the same name would document the same call.
    others = [other for other, one in known.items() if one.node is not definition.node
              and other not in needed and other.rpartition(".")[2] != path.rpartition(".")[2]]
    generator.shuffle(others)
    hidden = {call for site in task["asserted"] for call in calls(package, site) if len(call) > 4}
    pairs = {(squeeze(",".join((site.narrow or site).arguments)), squeeze(site.expected)) for site in task["asserted"]}
    hidden = hidden, {pair for pair in pairs if len(pair[1]) > 3 and pair[1] not in ("True", "False", "None")}
    needs = "".join(f"{signature(package, one)}\n" for one in needed.values())
    chosen = [(definition, 2, needs), *((known[other], 1, "") for other in others[:2])]
    generator.shuffle(chosen)
    for limit in range(MAX_PASSAGE // 4, 100, -20):
        entries = [entry(package, one, hidden, limit * share) + more for one, share, more in chosen]
        text = f"Documentation of {package.name}:\n\n" + "\n".join(entries) + "\n"
        if len(text) <= MAX_PASSAGE:
            return text
    sys.exit(f"{task['id']}: the passage is too long")


def inner_definitions(package, kind):
    """What else of the package an expression calls."""
    for path in sorted(set(re.findall(rf"\b{package.module}(?:\.\w+)+(?=\()", kind))):
        definition = package.lookup(path)
        if definition:
            yield path, definition


# Records.


def call_of(package, definition, only_required):
    """The parameters of a function for a helper, and the call of the function with them."""
    node = definition.node
    if isinstance(node, ast.ClassDef) or node.args.vararg or node.args.kwarg:
        return None
    bound = definition.owner and not has_decorator(definition, "staticmethod")
    plain = node.args.posonlyargs + node.args.args
    required = len(plain) - len(node.args.defaults)
    if only_required:
        plain = plain[:required]
    names = [item.arg for item in plain][1 if bound else 0 :]
    keywords = [item.arg for item, default in zip(node.args.kwonlyargs, node.args.kw_defaults)
                if not only_required or default is None]
    path = package.public(definition)
    heads = []
    if bound and not has_decorator(definition, "classmethod"):
        heads = [name.rstrip("*") for name in parameters(definition.owner)]
        owner, _, last = path.rpartition(".")
        heads = [name for name in heads if name not in names and name not in keywords]
        path = f"{owner}({', '.join(heads)}).{last}"
    inner = "" if is_property(definition) else f"({', '.join(names + [f'{name}={name}' for name in keywords])})"
    return tuple(heads + names + keywords), path + inner


def record(package, path, user, assistant):
    return {
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
        "family": f"{package.name}/{path.removeprefix(package.module + '.')}",
    }


def block(package, code):
    return f"```python\n{imports(package, code)}\n{code}\n```"


def function_records(package, path, definition, shown):
    """Records that teach a function: its signature, its call, and the given examples."""
    what = sentence(definition)
    one_line = signature(package, definition)
    yield record(package, path, f"{package.name} (Python): what is the signature of `{path}`?", f"`{one_line}`")
    yield record(package, path, f"Which name in the Python library {package.name} is documented like this? \"{what}\"",
                 f"`{one_line}`")
    variants = dict.fromkeys(filter(None, [call_of(package, definition, True), call_of(package, definition, False)]))
    for names, call in variants:
        code = f"def helper({', '.join(names)}):\n    return {call}"
        yield record(package, path, f"I use {package.name}. Write helper({', '.join(names)}) for this job: {what}",
                     block(package, "\n" + code))
        yield record(package, path, f"Fill in the right-hand side with one call of {package.name}: `result = ...` "
                     f"(in scope: {', '.join(names) or 'nothing'}). Purpose: {what}",
                     block(package, f"result = {call}"))
    for site in shown:
        code = spelled(site)
        yield record(package, path, f"With {package.name} in an interactive session, which expression evaluates to "
                     f"{site.expected}? Its inputs: {', '.join(site.arguments)}. About it: {what}",
                     block(package, code))


def spelled(site):
    """The call with its literals."""
    known = {name: ast.parse(argument, mode="eval").body for name, argument in zip(site.names, site.arguments)}
    return ast.unparse(Substitute(known).visit(ast.parse(site.kind, mode="eval")))


def records(package, tasks, everything):
    """Records about functions that no task asks for; with `everything` about all, without the calls of tasks."""
    asked = {package.public(task["shown"].definition) for task in tasks}
    nodes = {id(task["shown"].definition.node) for task in tasks}
    used = {call for task in tasks for site in (task["shown"], *task["asserted"]) for call in calls(package, site)}
    shown = collections.defaultdict(dict)
    for site in documented(package):
        if not used & set(calls(package, site)):
            shown[package.public(site.definition)].setdefault(spelled(site), site)
    lasts = {path.rpartition(".")[2] for path in asked}
    names = re.compile("|".join(rf"\b{re.escape(last)}\b" + ("" if "_" in last else r"(?=\()")
                                for last in sorted(lasts)) or r"(?!)")
    for path, definition in package.definitions().items():
        if everything or path not in asked and id(definition.node) not in nodes:
            examples_of = sorted(shown[path].items())[:6]
            for one in function_records(package, path, definition, [site for _, site in examples_of]):
                # What another function is asked for stays unknown.
                if everything or not names.search(json.dumps(one["messages"])):
                    yield one


# Records in the prompt.


N_RECORDS = 8
K1, B = 1.2, 0.75


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


class Index:
    """Records by Okapi BM25 of their questions (Robertson and Zaragoza 2009)."""

    def __init__(self, lines):
        self.lines = lines
        self.counts = [collections.Counter(words(line["messages"][0]["content"])) for line in lines]
        self.having = collections.Counter(word for counts in self.counts for word in counts)
        self.mean = sum(sum(counts.values()) for counts in self.counts) / len(lines)

    def score(self, counts, question):
        length = K1 * (1 - B + B * sum(counts.values()) / self.mean)
        total = 0.0
        for word in question:
            rarity = math.log1p((len(self.lines) - self.having[word] + 0.5) / (self.having[word] + 0.5))
            total += rarity * counts[word] * (K1 + 1) / (counts[word] + length)
        return total

    def before(self, task):
        """The task after the nearest records as earlier turns, the nearest one last."""
        question = words(task["messages"][0]["content"])
        ranked = sorted(zip(self.counts, self.lines), key=lambda pair: -self.score(pair[0], question))[:N_RECORDS]
        turns = [message for _, line in reversed(ranked) for message in line["messages"]]
        return {**task, "messages": turns + task["messages"]}


# Output.


def task_line(package, task):
    return {
        "id": task["id"],
        "group": task["group"],
        "family": task["family"],
        "messages": [{"role": "user", "content": question(package, task["shown"], task["asserted"])}],
        "check": {
            "kind": "function",
            "entry_point": "solution",
            "prompt": "",
            "prelude": "",
            "test": "".join(assertion(site) + "\n" for site in task["asserted"]),
        },
        "answer": reference(package, task["shown"]),
    }


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def write_library(package, folder):
    for path, text in package.sources.items():
        path = folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--rune", default=pathlib.Path("target/release/rune"), type=pathlib.Path)
    args = parser.parse_args()
    downloads = args.out / "sdists"
    downloads.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(args.out / "lib", ignore_errors=True)
    suite, with_passage, train, same, cards = [], [], [], [], []
    trivial = collections.Counter()
    for name, version, digest, license, first in PACKAGES:
        package = Package(name, version, license, first, sdist(name, version, digest, downloads))
        write_library(package, args.out / "lib")
        judge = Judge(args.rune.resolve(), (args.out / "home").resolve(), package)
        tasks, dropped_sites = make_tasks(package, judge)
        tasks, dropped_tasks = prove(package, judge, tasks)
        lines = [task_line(package, task) for task in tasks]
        suite += lines
        for task, line in zip(tasks, lines):
            content = passage(package, task) + "\n" + line["messages"][0]["content"]
            with_passage.append({**line, "messages": [{"role": "user", "content": content}]})
        train += records(package, tasks, False)
        same += records(package, tasks, True)
        trivial.update(identity=sum(map(is_identity, tasks)), constant=sum(map(is_constant, tasks)))
        functions = len({task["family"] for task in tasks})
        cards.append({"name": name, "version": version, "license": license, "first_upload": first,
                      "tasks": len(tasks), "functions": functions, "summary": sentence_of(package)})
        print(f"{name} {version} ({license}, {first}): {len(tasks)} tasks of {functions} functions; call sites "
              f"dropped: {dict(dropped_sites)}; tasks dropped: {dict(dropped_tasks)}", flush=True)
    write_lines(args.out / "suite.jsonl", suite)
    write_lines(args.out / "suite-passage.jsonl", with_passage)
    write_lines(args.out / "train.jsonl", train)
    write_lines(args.out / "train-same.jsonl", same)
    write_lines(args.out / "suite-records.jsonl", map(Index(train).before, suite))
    write_lines(args.out / "suite-records-same.jsonl", map(Index(same).before, suite))
    (args.out / "cards.json").write_text(json.dumps(cards, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(suite)} tasks of {len({line['family'] for line in suite})} functions; {trivial['constant']} pass with "
          f"a constant, {trivial['identity']} with an argument returned; {len(train)} records about other functions, "
          f"{len(same)} about all")


def sentence_of(package):
    """What a package says of itself in one sentence."""
    text = ast.get_docstring(package.trees[package.module]) or ""
    return " ".join(re.split(r"\n\s*\n", text.strip())[0].split())


if __name__ == "__main__":
    main()
