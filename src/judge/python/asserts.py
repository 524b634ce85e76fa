"""Compiles test sources so that a failing `assert` says what it compared."""

import ast

EXPLAIN, COUNT = "@explain", "@count"


def shown(value):
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__}: repr raised {type(error).__name__}>"
    return text if len(text) <= 400 else text[:200] + "..." + text[-200:]


def explain(source, operands, *message):
    """Builds the message of a failing assert: its source, the operands' values, the author's message."""
    lines = [f"assert {source}"]
    for text, value in operands:
        if shown(value) != text:
            lines.append(f"  {text} = {shown(value)}")
    if message:
        lines.append(f"  message: {message[0]}")
    return "\n".join(lines)


class Rewriter(ast.NodeTransformer):
    """Makes each assert report the values of its operands."""

    def __init__(self, source, is_counted):
        self.lines, self.is_counted = source.split("\n"), is_counted

    def text(self, node):
        """Returns the source of a node, whose columns count bytes."""
        lines = [line.encode() for line in self.lines[node.lineno - 1 : node.end_lineno]]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"\n".join(lines).decode()

    def visit_Assert(self, node):
        before, test, operands = [], node.test, []
        if self.is_counted:
            before.append(ast.Expr(ast.Call(ast.Name(COUNT, ast.Load()), [], [])))
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            sides = []
            for name, side in (("@left", test.left), ("@right", test.comparators[0])):
                before.append(ast.Assign(targets=[ast.Name(name, ast.Store())], value=side))
                sides.append(ast.Name(name, ast.Load()))
                operands.append((self.text(side), sides[-1]))
            test = ast.Compare(sides[0], test.ops, [sides[1]])
        pairs = [ast.Tuple([ast.Constant(text), value], ast.Load()) for text, value in operands]
        arguments = [ast.Constant(self.text(node.test)), ast.List(pairs, ast.Load())]
        arguments += [node.msg] if node.msg is not None else []
        statements = [*before, ast.Assert(test, ast.Call(ast.Name(EXPLAIN, ast.Load()), arguments, []))]
        for statement in statements:
            for part in ast.walk(statement):
                if not hasattr(part, "lineno"):
                    ast.copy_location(part, node)
        return statements


def compiled(source, data, path, is_counted=False):
    """Compiles a test file; if its asserts cannot be rewritten, unchanged."""
    try:
        tree = ast.fix_missing_locations(Rewriter(source, is_counted).visit(ast.parse(data, path)))
        return compile(tree, path, "exec", dont_inherit=True)
    except (RecursionError, ValueError):
        return compile(data, path, "exec", dont_inherit=True)
