# What a check of MBPP+ needs: the reference in a space of its own, and inputs with the types of the base asserts, since
# the file has lists for tuples and sets, and texts for complex numbers.
import ast, copy, json, math, sys
def the_reference(code, space):
    exec(code, space)
    return space['ENTRY']
def calls(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'ENTRY':
            try: yield [ast.literal_eval(part) for part in node.args]
            except ValueError: yield [eval(ast.unparse(part)) for part in node.args]
def cast(like, value):
    if isinstance(value, list) and isinstance(like, (list, tuple, set, frozenset)):
        likes = list(like)
        if isinstance(like, (set, frozenset)) or len(likes) != len(value):
            likes = likes[:1] * len(value)
        return type(like)(cast(*pair) for pair in zip(likes, value)) if likes else type(like)(value)
    if isinstance(value, dict) and isinstance(like, dict) and like:
        key, item = next(iter(like.items()))
        return {cast(key, k): cast(item, v) for k, v in value.items()}
    return value
def argument(like, value):
    if isinstance(value, str) and isinstance(like, (int, float, complex)):
        try: return complex(value)
        except ValueError: pass
    return cast(like, value)
def inputs(assertion, row):
    like = next(calls(assertion))
    return [[argument(*pair) for pair in zip(like, args)] for args in json.loads(row)['plus_input']]
