"""Replaces every function body by a stub: the negative control of a suite."""

import ast
import json
import os
import sys


class Stub(ast.NodeTransformer):
    """Keeps signatures and classes, and replaces the bodies of functions."""

    def __init__(self, body):
        self.body = body

    def visit_FunctionDef(self, node):
        if node.name != "__init__" and not any("overload" in ast.unparse(mark) for mark in node.decorator_list):
            node.body = ast.parse(self.body).body
        return node

    visit_AsyncFunctionDef = visit_FunctionDef


def stub(text, body):
    try:
        return ast.unparse(ast.fix_missing_locations(Stub(body).visit(ast.parse(text)))) + "\n"
    except (SyntaxError, ValueError, RecursionError):
        return text


def main():
    plan = json.load(sys.stdin)
    files = [{"path": file["path"], "text": stub(file["text"], plan["body"]) if file["path"].endswith(".py") else file["text"]} for file in plan["files"]]
    with os.fdopen(3, "w", encoding="ascii") as channel:
        json.dump(files, channel)


main()
