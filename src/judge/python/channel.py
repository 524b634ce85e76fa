"""The result channel: records that only the holder of the key can write.

Each line is `<mac> <number> <json>`; the mac is HMAC-SHA256 over `<number> <json>`. The key itself
is gone once the two hash states are made, so a replaced descriptor yields nothing to forge with.
"""

import fcntl
import hashlib
import json.encoder
import os

RESULT_FD = 3
BUDGET = 2 << 20


def plain(value, limit):
    """Text that any JSON reader takes, cut in the middle."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    half = limit // 2
    return text[:half] + "\n[...]\n" + text[-half:]


def open_channel(key):
    """Takes the descriptor out of sight and returns `report(**fields)`."""
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key.ljust(64, b"\0")))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key.ljust(64, b"\0")))
    fd = fcntl.fcntl(RESULT_FD, fcntl.F_DUPFD_CLOEXEC, 90)
    os.close(RESULT_FD)
    os.register_at_fork(after_in_child=lambda close=os.close: close(fd))
    quote, write, stop = json.encoder.encode_basestring_ascii, os.write, os._exit
    number = 0
    left = BUDGET

    def send(data):
        while data:
            try:
                data = data[write(fd, data) :]
            except OSError:
                stop(1)

    def report(kind, **fields):
        nonlocal number, left
        parts = ['"kind":' + quote(kind)]
        for name, value in fields.items():
            text = plain(value, 4000 if left > 0 else 200)
            left -= len(text)
            parts.append(quote(name) + ":" + quote(text))
        body = (str(number) + " {" + ",".join(parts) + "}").encode()
        number += 1
        first, second = inner.copy(), outer.copy()
        first.update(body)
        second.update(first.digest())
        send(second.hexdigest().encode() + b" " + body + b"\n")

    return report
