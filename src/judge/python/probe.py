"""Reports the version of pytest that can be imported, if any."""

import json
import os
import sys

sys.path += json.load(sys.stdin)
try:
    import pytest

    version = pytest.__version__
except Exception:
    version = ""
with os.fdopen(3, "w", encoding="ascii") as channel:
    json.dump(version, channel)
