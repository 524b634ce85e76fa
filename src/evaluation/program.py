# A program as a function: what it is given to read goes in, the words that it writes come out.
import io, re, sys


def words(text):
    """The words of an output. Numbers are compared by their value: `1.0` is `1`."""
    def value(word):
        if re.fullmatch(r"[-+]?[0-9]{1,4000}", word):
            return int(word)
        if re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?", word):
            return float(word)
        return word
    return [value(word) for word in text.split()]


def rune_program(text):
    before = sys.stdin, sys.stdout
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    sys.stdout = written = io.TextIOWrapper(io.BytesIO(), write_through=True)
    try:
        exec(compile(SOURCE, "solution.py", "exec"), {"__name__": "__main__"})
    except SystemExit:
        pass
    finally:
        sys.stdin, sys.stdout = before
    return words(written.buffer.getvalue().decode(errors="replace"))
