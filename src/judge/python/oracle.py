"""Turns a check of a function into questions, and runs checks that are more than a list of questions.

It never meets judged code: a check that runs here calls a proxy, whose calls go to the process that has the code and
whose results come back as plain data.
"""

import ast
import builtins
import marshal
import types

from rune_frames import pack, put_back, receive, send, unpack

ASK, INPUTS = "@ask", "@inputs"
# The judge ends a check that causes these; here they would only end the loop that made the call.
ENDINGS = (StopIteration, StopAsyncIteration)


class NotData(Exception):
    """The check is more than a list of inputs and outputs."""


class Questions(ast.NodeTransformer):
    """Replaces asserts about the function by statements that record questions."""

    def __init__(self, names):
        self.names = names

    def asks(self, node):
        return any(isinstance(part, ast.Name) and part.id in self.names for part in ast.walk(node))

    def visit_Assert(self, node):
        if not self.asks(node):
            return node
        questions = [ast.Expr(question) for question in self.of(node.test)]
        return [ast.copy_location(question, node) for question in questions]

    def of(self, test):
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            return [question for part in test.values for question in self.of(part)]
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return [self.comparison(test.left, test.ops[0], test.comparators[0])]
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return [self.question("false", test.operand)]
        return [self.question("true", test)]

    def comparison(self, left, op, right):
        if isinstance(op, ast.Eq):
            call, other = (left, right) if self.asks(left) else (right, left)
            return self.question("equal", call, other)
        if isinstance(op, ast.Is) and isinstance(right, ast.Constant) and right.value in (None, True, False):
            return self.question("is", left, right)
        if isinstance(op, ast.Lt) and isinstance(left, ast.Call) and ast.unparse(left.func) in ("abs", "math.fabs"):
            difference = left.args[0]
            if isinstance(difference, ast.BinOp) and isinstance(difference.op, ast.Sub):
                call, other = difference.left, difference.right
                if self.asks(other):
                    call, other = other, call
                return self.question("near", call, other, right)
        raise NotData

    def question(self, kind, call, expected=ast.Constant(None), bound=ast.Constant(0.0)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in self.names):
            raise NotData
        inputs = ast.Call(ast.Name(INPUTS, ast.Load()), call.args, call.keywords)
        return ast.Call(ast.Name(ASK, ast.Load()), [ast.Constant(kind), inputs, expected, bound], [])


def questions(prelude, test, entry):
    tree = ast.parse(test)
    checks = [part for part in tree.body if isinstance(part, ast.FunctionDef) and part.name == "check"]
    if checks:
        tree.body = [part for part in tree.body if not (isinstance(part, ast.Expr) and "check(" in ast.unparse(part))]
    rewriter = Questions({entry} | {argument.arg for check in checks for argument in check.args.args})
    tree = ast.fix_missing_locations(rewriter.visit(tree))
    if rewriter.asks(tree):
        raise NotData
    asked = []

    def ask(kind, inputs, expected, bound):
        if kind == "near":
            expected, bound = float(expected), float(bound)
        # A copy, which later statements of the check cannot change.
        asked.append(marshal.loads(marshal.dumps((kind, *inputs, expected, bound), 2)))

    space = {"__name__": "check"}
    exec(compile(prelude, "/in/check", "exec"), space)
    space[ASK], space[INPUTS] = ask, lambda *args, **kwargs: (list(args), kwargs)
    try:
        exec(compile(tree, "/in/check", "exec"), space)
        if checks:
            space["check"](None)
    except ValueError as error:
        if "unmarshallable" in str(error):
            raise NotData from None
        raise
    return asked


class Gone(BaseException):
    """The judge has ended the conversation. Unlike an `EOFError`, no check catches it by accident."""


def error_of(name, message):
    """Recreates the exception of the judged code, except those that would silently end a loop of the check."""
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, ENDINGS):
        kind, message = RuntimeError, f"{name}: {message}"
    try:
        return kind(message)
    except TypeError:
        return RuntimeError(f"{name}: {message}")


def ask(stream, kind, value):
    """Forwards a call to the judged code; returns the decoded answer and the changed arguments."""
    try:
        send(stream, kind, value)
    except ValueError:
        try:
            send(stream, b"k", pack(value))
        except ValueError:
            raise TypeError("the check gives the function an argument that is no plain data") from None
    kind, value = receive(stream)
    if kind is None:
        raise Gone
    if kind == b"e":
        raise error_of(*value)
    if kind == b"i":
        number, changed = value
        return items(stream, number), changed
    return value if kind == b"v" else unpack(value)


def items(stream, number):
    """Stands for an iterator of the judged code: each item is requested when it is needed."""
    while True:
        found, _ = ask(stream, b"n", number)
        if not isinstance(found, list):
            yield found  # an iterator itself
        elif found:
            yield found[0]
        else:
            return


def proxy(stream):
    def candidate(*args, **kwargs):
        value, changed = ask(stream, b"c", (list(args), kwargs))
        if changed is not None:
            put_back(args, changed)
        return value

    return candidate


def run_check(stream, prelude, test, entry):
    space = {"__name__": "check"}
    exec(compile(prelude, "/in/check", "exec"), space)
    call = space[entry] = proxy(stream)
    exec(compile(test, "/in/check", "exec"), space)
    if isinstance(space.get("check"), types.FunctionType):
        space["check"](call)


def main(stream):
    kind, (prelude, test, entry, nonce) = receive(stream)
    try:
        if kind == b"q":
            send(stream, b"q", questions(prelude, test, entry))
        else:
            run_check(stream, prelude, test, entry)
            send(stream, b"d", nonce)
    except NotData:
        send(stream, b"n", None)
    except AssertionError as error:
        send(stream, b"f", str(error)[:1000])
    except Gone:
        pass
    except BaseException as error:
        send(stream, b"x", f"{type(error).__name__}: {error}"[:1000])
