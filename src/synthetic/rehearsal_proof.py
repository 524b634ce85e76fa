"""Reads rehearsal questions with their answers as JSON and prints each wrong answer on a line."""

import json
import re
import sys
import types

ITEMS = [3, -1, 3, 0, 8]


def code_of(answer):
    found = re.fullmatch(r"```python\n(.*)\n```", answer, re.DOTALL)
    return found and found[1]


def run(code, argument, modules):
    """Runs the answer with every name that it lacks as the argument, and returns its value."""
    names = {}
    for _ in range(3):
        try:
            for module in modules:
                module._calls.clear()
            exec(code, names)
            break
        except NameError as error:
            names[re.search(r"'(\w+)'", str(error))[1]] = argument
    functions = [name for name in names if re.fullmatch("[a-z]+_[a-z]+", name)]
    return names[functions[0]](argument) if functions else names["result"]


def check_document(task):
    module = types.ModuleType(task["library"])
    exec(task["source"], module.__dict__)
    sys.modules[task["library"]] = module
    code = code_of(task["answer"])
    if code is None:
        if task["functions"].get(task["answer"]) != task["subject"]:
            yield "is not the name"
        return
    value = run(code, list(ITEMS), [module])
    if not module._calls:
        yield "the library is not used"
    if task["reference"] is None:
        return
    wanted = eval("lambda v: " + task["reference"].replace("{v}", "v"))(list(ITEMS))
    limit = re.search(task["limit"] + r"=(\d+)", code)
    if limit and type(wanted) is not bool:
        limit = int(limit[1])
        wanted = min(wanted, limit) if type(wanted) is int else wanted[:limit]
    if repr(value) != repr(wanted):
        yield f"gives {value!r}, not {wanted!r}"


def check_standard(task):
    code = code_of(task["answer"])
    module, name = task["module"], task["name"]
    if code is None:
        if task["answer"] != name or not hasattr(__import__(module), name):
            yield "is not the name"
    elif module != "python" and not re.search(rf"\b{module}\.{name}\b", code):
        yield "does not use the function"
    elif task["example"]:
        argument, wanted = task["example"]
        value = run(code, eval(argument), [])
        if repr(value) != wanted:
            yield f"gives {value!r}, not {wanted}"
    else:
        run(code, None, [])


given = json.load(sys.stdin)
for kind, check in [("documents", check_document), ("standard", check_standard)]:
    for task in given[kind]:
        try:
            faults = list(check(task))
        except Exception as error:
            faults = [repr(error)]
        for fault in faults:
            print(fault, task["question"], task["answer"], sep="\n", end="\n\n")
