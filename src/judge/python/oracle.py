"""Reads what a check asks of a function, and runs checks that are more than a list of questions.

It never meets judged code: a check that runs here calls a proxy, whose calls go to the process that has the code and
whose results come back as plain data.
"""

import ast
import builtins
import copy
import marshal
import sys
import types

HEAD = 5
PROXY = "candidate"


def receive(stream):
    head = stream.recv(HEAD, 0x100)
    if len(head) < HEAD:
        raise EOFError
    n = int.from_bytes(head[:4], "little")
    return head[4:], marshal.loads(stream.recv(n, 0x100)) if n else None


def send(stream, kind, value):
    body = marshal.dumps(value, 2)
    stream.sendall(len(body).to_bytes(4, "little") + kind + body)


class NotData(Exception):
    """The check is more than a list of inputs and outputs."""


class Compiler:
    """Turns the statements of a check into questions, as far as that goes."""

    def __init__(self, names, space):
        self.names, self.space, self.questions = names, space, []

    def asks(self, node):
        return any(isinstance(part, ast.Name) and part.id in self.names for part in ast.walk(node))

    def value(self, node):
        if self.asks(node):
            raise NotData
        code = compile(ast.Expression(ast.fix_missing_locations(node)), "/in/check", "eval")
        value = eval(code, self.space)
        marshal.dumps(value, 2)
        return copy.deepcopy(value)

    def call(self, node):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.names):
            raise NotData
        args = self.value(ast.List(node.args, ast.Load()))
        if any(keyword.arg is None for keyword in node.keywords):
            raise NotData
        return args, {keyword.arg: self.value(keyword.value) for keyword in node.keywords}

    def ask(self, kind, call, expected=None, bound=0.0):
        args, kwargs = self.call(call)
        self.questions.append((kind, args, kwargs, expected, bound))

    def statement(self, node):
        if isinstance(node, ast.Assert):
            self.check(node.test)
        elif self.asks(node) or isinstance(node, (ast.Return, ast.Global)):
            raise NotData
        else:
            exec(compile(ast.Module([ast.fix_missing_locations(node)], []), "/in/check", "exec"), self.space)

    def check(self, test):
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for part in test.values:
                self.check(part)
        elif isinstance(test, ast.Compare) and len(test.ops) == 1:
            self.compare(test.left, test.ops[0], test.comparators[0])
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.ask("false", test.operand)
        elif isinstance(test, ast.Call):
            self.ask("true", test)
        elif self.asks(test) or not self.value(test):
            raise NotData

    def compare(self, left, op, right):
        if isinstance(op, ast.Eq):
            call, other = (left, right) if self.asks(left) else (right, left)
            if self.asks(call):
                return self.ask("equal", call, self.value(other))
        elif isinstance(op, ast.Is) and isinstance(right, ast.Constant) and right.value in (None, True, False):
            return self.ask("is", left, right.value)
        elif isinstance(op, ast.Lt) and isinstance(left, ast.Call) and len(left.args) == 1:
            if ast.unparse(left.func) in ("abs", "math.fabs") and isinstance(left.args[0], ast.BinOp):
                return self.near(left.args[0], float(self.value(right)))
        raise NotData

    def near(self, difference, bound):
        if not isinstance(difference.op, ast.Sub):
            raise NotData
        sides = difference.left, difference.right
        call, other = sides if self.asks(sides[0]) else sides[::-1]
        self.ask("near", call, float(self.value(other)), bound)


def statements(tree, entry):
    """The statements to carry out, and by which names they call the function."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "check" and len(node.args.args) == 1:
            outer = [part for part in tree.body if part is not node]
            outer = [part for part in outer if not (isinstance(part, ast.Expr) and "check(" in ast.unparse(part))]
            return outer, node.body, {node.args.args[0].arg, entry}
    return [], tree.body, {entry}


def questions(prelude, test, entry):
    space = {"__name__": "check"}
    exec(compile(prelude, "/in/check", "exec"), space)
    outer, body, names = statements(ast.parse(test), entry)
    compiler = Compiler(names, space)
    for node in outer + body:
        if not isinstance(node, ast.Assert) and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        compiler.statement(node)
    return compiler.questions


def error_of(name, message):
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = RuntimeError
    try:
        return kind(message)
    except TypeError:
        return RuntimeError(f"{name}: {message}")


def put_back(args, changed):
    """Makes the lists, dictionaries and sets of `args` what the call has made of its copies."""
    for old, new in zip(args, changed):
        if isinstance(old, list):
            old[:] = new
        elif isinstance(old, (dict, set)):
            old.clear()
            old.update(new)


def proxy(stream):
    def candidate(*args, **kwargs):
        send(stream, b"c", (list(args), kwargs))
        kind, value = receive(stream)
        if kind == b"e":
            raise error_of(value[0], value[1])
        value, changed = value
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
    except EOFError:
        pass
    except BaseException as error:
        line = error.__traceback__
        while line.tb_next is not None:
            line = line.tb_next
        send(stream, b"x", f"{type(error).__name__}: {error}"[:1000])
