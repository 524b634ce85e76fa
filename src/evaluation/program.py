# A program as a function: what it is given to read goes in, the words that it writes come out.
import os, re, sys, threading


def words(text):
    """The words of an output. Numbers are compared by their value: `1.0` is `1`."""
    def value(word):
        if re.fullmatch(r"[-+]?[0-9]+", word):
            # Python reads no longer number by itself; two of them are equal when their digits are.
            return int(word) if len(word) <= 4000 else word.lstrip("+")
        if re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?", word):
            return float(word)
        return word
    return [value(word) for word in text.split()]


def feed(fd, data):
    """Writes all of `data`, as far as the program reads it."""
    try:
        while data:
            data = data[os.write(fd, data):]
    except OSError:
        pass
    os.close(fd)


def drain(fd, parts):
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    os.close(fd)


def open_as_program(file, *args, **kwargs):
    """`open`, with the devices that a jail does not have."""
    return open({"/dev/stdin": 0, "/dev/stdout": 1}.get(file, file), *args, **kwargs)


def run_program(source):
    """Runs a program on the descriptors 0 and 1 as they are."""
    before = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    written = sys.stdout
    space = {"__name__": "__main__", "exit": sys.exit, "quit": sys.exit, "open": open_as_program}
    try:
        exec(compile(source, "solution.py", "exec"), space)
    except SystemExit:
        pass
    finally:
        for stream in (sys.stdout, written):
            try:
                stream.flush()
            except (AttributeError, ValueError):
                pass  # the program has put something else there, or closed it
        sys.stdin, sys.stdout = before


def rune_program(text):
    threading.stack_size(0)  # the last run may have made it large
    parts, kept = [], [os.dup(0), os.dup(1)]
    (source, feeding), (draining, sink) = os.pipe(), os.pipe()
    os.dup2(source, 0)
    os.dup2(sink, 1)
    os.close(source)
    os.close(sink)
    threads = [threading.Thread(target=feed, args=(feeding, text.encode()), daemon=True)]
    threads.append(threading.Thread(target=drain, args=(draining, parts), daemon=True))
    for thread in threads:
        thread.start()
    try:
        run_program(SOURCE)
    finally:
        for number, fd in enumerate(kept):
            os.dup2(fd, number)
            os.close(fd)
        for thread in threads:
            thread.join()
    return words(b"".join(parts).decode(errors="replace"))
