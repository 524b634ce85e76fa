#!/usr/bin/env python3
"""Measures names, comments, functions and README sentences: `python3 scripts/style.py [--check]`.

With --check the exit code is 1 when a figure is outside its bound.
"""

import collections
import pathlib
import re
import sys

# The modules whose code is hardest to follow, where reasons have to stand beside it.
HARD = ["model/kernels", "model/tune", "judge", "registry", "sandbox", "training"]
WIDTH = 100


def sources():
    for path in sorted(pathlib.Path("src").rglob("*.rs")):
        if path.name != "tests.rs":
            text = path.read_text()
            yield path, re.split(r"^#\[cfg\(test\)\]\nmod tests \{", text, flags=re.M)[0]


def type_names():
    """Files by the name of each type that they define; associated types are none."""
    names = collections.defaultdict(set)
    outer = r"^(?:pub(?:\([^)]*\))? )?(?:unsafe )?(?:struct|enum|trait|type|union) (\w+)"
    inner = r"^[ \t]+(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union) (\w+)"
    for path, text in sources():
        for name in re.findall(outer, text, re.M) + re.findall(inner, text, re.M):
            names[name].add(str(path))
    return names


def is_one_word(name):
    return len(re.findall(r"[A-Z][a-z0-9]*", name)) == 1


def comment_rate(module):
    """Comment lines per 100 lines of code, doc comments left out."""
    comments = code = 0
    for path, text in sources():
        if not str(path).startswith((f"src/{module}/", f"src/{module}.rs")):
            continue
        for line in map(str.strip, text.splitlines()):
            if line.startswith("//"):
                comments += not line.startswith(("///", "//!"))
            elif line:
                code += 1
                comments += bool(re.search(r"[;{},] // ", line))
    return 100 * comments / max(code, 1)


def wide_comments():
    for path in sorted(pathlib.Path(".").rglob("*.rs")):
        if path.parts[0] in ("src", "tests"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if line.lstrip().startswith("//") and len(line) > WIDTH and "http" not in line:
                    yield f"{path}:{number}"


def short_docs():
    """Doc comments of three words or fewer. Help texts of the command line may be that short."""
    for path, text in sources():
        if path.parts[1] == "cli":
            continue
        for block in re.findall(r"(?:^[ \t]*///.*\n)+", text, re.M):
            if len(re.findall(r"\w+", block.replace("///", ""))) <= 3:
                yield str(path)


def function_lengths():
    """Lines of each function, comments left out."""
    for _, text in sources():
        lines = text.splitlines()
        for start, line in enumerate(lines):
            match = re.match(r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?(?:unsafe )?fn \w", line)
            if match:
                end = start
                while end < len(lines) and not (
                    lines[end].startswith(match[1] + "}") or lines[end].rstrip().endswith((";", "}"))
                    and end == start
                ):
                    end += 1
                body = [line.strip() for line in lines[start : end + 1]]
                yield sum(not line.startswith("//") for line in body)


def readme_sentences():
    text = re.sub(r"```.*?```", "", pathlib.Path("README.md").read_text(), flags=re.S)
    text = re.sub(r"<!--.*?-->|!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    paragraphs = [p for p in text.split("\n\n") if not p.lstrip().startswith(("|", "[", "#"))]
    for paragraph in paragraphs:
        for item in re.split(r"\n(?=- |\d+\. )", paragraph):
            for sentence in re.split(r"(?<=[.!?:])\s+", item.replace("\n", " ")):
                words = len(re.findall(r"[\w`'/-]+", sentence))
                if words:
                    yield words


def quantile(values, share):
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)]


def main():
    names = type_names()
    one_word = [name for name in names if is_one_word(name)]
    doubled = sorted(name for name, files in names.items() if len(files) > 1)
    lengths = list(function_lengths())
    rows = [
        ("one-word type names, %", 100 * len(one_word) / len(names), 15),
        ("type names with two meanings, %", 100 * len(doubled) / len(names), 3),
        (f"comment lines over {WIDTH} columns", len(list(wide_comments())), 0),
        ("doc comments of three words or fewer", len(list(short_docs())), 0),
        ("README sentence, words, 90th percentile", quantile(list(readme_sentences()), 0.9), 28),
        ("functions: median lines", quantile(lengths, 0.5), 9),
        ("functions: 99th percentile", quantile(lengths, 0.99), 53),
        ("functions over 60 lines, %", 100 * sum(n > 60 for n in lengths) / len(lengths), 0.5),
    ]
    is_bad = False
    for label, value, most in rows:
        is_bad |= value > most
        print(f"{label:45} {value:8.2f}  at most {most}{'  <--' * (value > most)}")
    for module in HARD:
        rate = comment_rate(module)
        is_bad |= rate < 3
        print(f"{'comments per 100 lines, ' + module:45} {rate:8.2f}  at least 3{'  <--' * (rate < 3)}")
    if doubled:
        print("two meanings:", ", ".join(doubled))
    return int(is_bad and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
