"""Reads what a library promises as JSON and prints each broken promise on a line."""

import importlib
import json
import sys

LISTS = [[], [5], [-4], [0], [3, -1, 3, 0, 8], [2, 2], [1, 2, 5], [9, 7, -7, -7, 0, 4, 1]]


def check_function(module, function):
    call = getattr(module, function["name"])
    reference = eval("lambda v: " + function["reference"].replace("{v}", "v"))
    if not call.__doc__:
        yield "no docstring"
    for items in LISTS:
        argument = list(items)
        module._calls.clear()
        value = call(argument)
        wanted = reference(list(items)) if items else eval(function["empty"])
        if repr(value) != repr(wanted):
            yield f"{items} gives {value!r}, not {wanted!r}"
        if argument != items or value is argument:
            yield f"{items} is changed or handed back"
        if module._calls != [function["name"]]:
            yield f"calls are {module._calls}"
    for refused in (None, 3.5, (1, 2)):
        try:
            call(refused)
            yield f"{refused} is taken"
        except Exception as error:
            if type(error).__name__ != given["error"]:
                yield f"{refused} raises {error!r}"


def check_task(module, task):
    check = task["check"]
    reference = eval("lambda v: " + check["reference"].replace("{v}", "v"))
    for items in check["inputs"]:
        module._calls.clear()
        form, names = check["form"], {}
        if form["kind"] == "result":
            names[form["variable"]] = list(items)
        if form["kind"] == "name":
            value = [name for name in form["all"] if name == task["answer"]]
        else:
            exec(task["answer"], names)
            value = names["result"] if form["kind"] == "result" else names[form["name"]](list(items))
        if repr(value) != repr(reference(list(items))):
            yield f"{items} gives {value!r}"
        required = check["required"]
        if set(module._calls) != set(required["names"] if required else []):
            yield f"calls are {module._calls}"


given = json.load(sys.stdin)
sys.path.insert(0, sys.argv[1])
module = importlib.import_module(given["library"])
for function in given["functions"]:
    for fault in check_function(module, function):
        print(function["name"], fault)
for task in given["tasks"]:
    for fault in check_task(module, task):
        print(task["id"], fault)
