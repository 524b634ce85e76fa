"""Formats what Python code offers to others: signatures of functions and classes, and constants."""

import ast

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def first_line(node):
    text = ast.get_docstring(node)
    return text.strip().splitlines()[0] if text and text.strip() else ""


def signature(node, indent):
    """Formats a signature: decorators, async, parameters with annotations, return type, docstring."""
    lines = [f"{indent}@{ast.unparse(mark)}" for mark in node.decorator_list]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    lines.append(f"{indent}{word} {node.name}({ast.unparse(node.args)}){returns}: ...")
    if first_line(node):
        lines[-1] += f"  # {first_line(node)}"
    return lines


def public(name):
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def assigned(node):
    """`NAME = literal` and `name: type = literal` of a module or class body."""
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
    if not isinstance(target, ast.Name) or not public(target.id):
        return None
    text = ast.unparse(node)
    return text if len(text) <= 200 else text[:197] + "..."


def literal(node):
    try:
        ast.literal_eval(node.value)
        return True
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def interface(tree):
    lines = []
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and public(node.name):
            lines += signature(node, "")
        elif isinstance(node, ast.ClassDef) and public(node.name):
            lines += class_interface(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and literal(node):
            text = assigned(node)
            lines += [text] if text else []
    return "\n".join(lines)


def class_interface(node):
    lines = [f"@{ast.unparse(mark)}" for mark in node.decorator_list]
    bases = ", ".join([ast.unparse(base) for base in node.bases] + [ast.unparse(word) for word in node.keywords])
    lines.append(f"class {node.name}" + (f"({bases}):" if bases else ":"))
    if first_line(node):
        lines[-1] += f"  # {first_line(node)}"
    inner = []
    for part in node.body:
        if isinstance(part, FUNCTIONS) and public(part.name):
            inner += signature(part, "    ")
        elif isinstance(part, (ast.Assign, ast.AnnAssign)):
            text = assigned(part)
            inner += ["    " + text] if text else []
    return lines + (inner or ["    ..."])
