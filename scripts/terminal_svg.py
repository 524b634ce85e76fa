#!/usr/bin/env python3
"""Draws the output of a command as an SVG picture of a terminal, for light and dark pages.

    python3 scripts/terminal_svg.py --out docs/images/terminal.svg \\
        -- rune run "Write primes.py ..." --tests test_primes.py

The command runs once, with its standard error and output in one pipe, so that it prints plain lines
without progress bars. Colors (SGR sequences) are kept; `--color REGEX=CLASS` colors lines where the
command does not. `--skip REGEX` leaves out lines, such as those with a path of this machine. Long
lines are wrapped. `--raw FILE` also writes the bytes that the command printed; `--from FILE` draws
such a file again instead of running the command. Python's standard library only.
"""

import argparse
import html
import re
import shlex
import subprocess
import sys

SGR = re.compile(r"\x1b\[([0-9;]*)m")
OTHER_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9])")

FONT_SIZE = 14
CHARACTER_WIDTH = 8.43
LINE_HEIGHT = 20
MARGIN = 20
BAR_HEIGHT = 36

# Class of an SGR code: foreground colors of the two palettes below.
COLORS = {31: "red", 32: "green", 33: "yellow", 34: "blue", 35: "magenta", 36: "cyan", 90: "dim"}
LIGHT = {
    "page": "#ffffff", "frame": "#d0d7de", "bar": "#f6f8fa", "text": "#1f2328", "dim": "#656d76",
    "red": "#b3261e", "green": "#1a7f37", "yellow": "#8a5a00", "blue": "#0550ae",
    "magenta": "#8250df", "cyan": "#0a6e78",
}
DARK = {
    "page": "#0d1117", "frame": "#30363d", "bar": "#161b22", "text": "#e6edf3", "dim": "#8b949e",
    "red": "#ff7b72", "green": "#56d364", "yellow": "#e3b341", "blue": "#79c0ff",
    "magenta": "#d2a8ff", "cyan": "#56d4dd",
}


def run(command):
    """Returns what `command` prints, standard error and output together."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout


def styled_lines(text):
    """Splits `text` into lines of (character, classes) pairs."""
    lines, classes = [[]], ()
    position = 0
    while position < len(text):
        match = SGR.match(text, position)
        if match:
            classes = next_classes(classes, match.group(1))
            position = match.end()
            continue
        match = OTHER_ESCAPES.match(text, position)
        if match:
            if match.group() == "\x1b[2K":  # erases the line
                lines[-1] = []
            position = match.end()
            continue
        character = text[position]
        position += 1
        if character == "\n":
            lines.append([])
        elif character == "\r":
            # A progress bar redraws its line: only the last state stays.
            if text[position:position + 1] != "\n":
                lines[-1] = []
        elif character >= " ":
            lines[-1].append((character, classes))
    while lines and not lines[-1]:
        lines.pop()
    return lines


def next_classes(classes, codes):
    for code in (int(code or 0) for code in codes.split(";")):
        if code == 0:
            classes = ()
        elif code == 1:
            classes = tuple(dict.fromkeys((*classes, "bold")))
        elif code == 2:
            classes = tuple(dict.fromkeys((*classes, "dim")))
        elif code in COLORS:
            others = tuple(name for name in classes if name not in COLORS.values())
            classes = (*others, COLORS[code])
    return classes


def wrapped(line, width):
    """Cuts a line at blanks into rows of at most `width` characters; further rows are indented."""
    rows, rest = [], line
    while len(rest) > width:
        blanks = [at for at in range(width // 2, width + 1) if rest[at][0] == " "]
        cut = blanks[-1] if blanks else width
        rows.append(rest[:cut])
        rest = [(" ", ())] * 4 + rest[cut + 1 if blanks else cut:]
    return [*rows, rest]


def spans(row):
    """The row as SVG text: neighbors of one style share a `tspan`."""
    parts, start = [], 0
    for at in range(1, len(row) + 1):
        if at == len(row) or row[at][1] != row[start][1]:
            text = html.escape("".join(character for character, _ in row[start:at]), quote=False)
            classes = " ".join(row[start][1])
            parts.append(f'<tspan class="{classes}">{text}</tspan>' if classes else text)
            start = at
    return "".join(parts)


def palette(colors):
    text = "".join(
        f".{name}{{fill:{color}}}" for name, color in colors.items()
        if name not in ("page", "frame", "bar")
    )
    shapes = f".page{{fill:{colors['page']};stroke:{colors['frame']}}}.bar{{fill:{colors['bar']}}}"
    return text + shapes


def draw(rows, columns, title, description):
    width = round(2 * MARGIN + columns * CHARACTER_WIDTH)
    height = BAR_HEIGHT + 2 * MARGIN + len(rows) * LINE_HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{html.escape(title)}</title>',
        f'<desc id="desc">{html.escape(description)}</desc>',
        "<style>",
        "text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        f"font-size:{FONT_SIZE}px;white-space:pre}}",
        ".bold{font-weight:bold}",
        palette(LIGHT),
        f"@media (prefers-color-scheme:dark){{{palette(DARK)}}}",
        "</style>",
        f'<rect class="page" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        f'<path class="bar" d="M1 {BAR_HEIGHT}V8a7 7 0 0 1 7-7h{width - 16}a7 7 0 0 1 7 7'
        f'v{BAR_HEIGHT - 8}z"/>',
    ]
    for at, color in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        x, y = MARGIN + 20 * at, BAR_HEIGHT / 2
        lines.append(f'<circle cx="{x}" cy="{y:g}" r="6" fill="{color}"/>')
    for at, row in enumerate(rows):
        y = BAR_HEIGHT + MARGIN + at * LINE_HEIGHT + FONT_SIZE
        head = f'<text class="text" x="{MARGIN}" y="{y}" xml:space="preserve">'
        lines.append(f"{head}{spans(row)}</text>")
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def quoted(word):
    return f'"{word}"' if " " in word and '"' not in word else shlex.quote(word)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="the SVG file")
    parser.add_argument("--raw", help="also write what the command printed to this file")
    parser.add_argument("--from", dest="recorded", help="draw this file, as --raw writes it")
    parser.add_argument("--columns", type=int, default=100, help="characters in a row")
    many = {"action": "append", "default": []}
    parser.add_argument("--skip", **many, metavar="REGEX", help="leave out lines")
    parser.add_argument("--color", **many, metavar="REGEX=CLASS", help="color lines: green, ...")
    parser.add_argument("--title", default="A run of rune in a terminal")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="behind `--`: what to run")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command: name it behind `--`")
    if arguments.recorded:
        with open(arguments.recorded, "rb") as file:
            printed = file.read()
    else:
        printed = run(command)
    if arguments.raw:
        with open(arguments.raw, "wb") as file:
            file.write(printed)
    shown = " ".join(map(quoted, command))
    prompt = [("$", ("dim",)), (" ", ())] + [(character, ("bold",)) for character in shown]
    rows = wrapped(prompt, arguments.columns)
    rules = [rule.rpartition("=") for rule in arguments.color]
    for line in styled_lines(printed.decode("utf-8", "replace")):
        text = "".join(character for character, _ in line)
        if any(re.search(pattern, text) for pattern in arguments.skip):
            continue
        for pattern, _, name in rules:
            if re.search(pattern, text):
                line = [(character, (*classes, name)) for character, classes in line]
        rows.extend(wrapped(line, arguments.columns))
    plain = "\n".join("".join(character for character, _ in row) for row in rows)
    with open(arguments.out, "w", encoding="utf-8") as file:
        file.write(draw(rows, arguments.columns, arguments.title, plain))
    return 0


if __name__ == "__main__":
    sys.exit(main())
