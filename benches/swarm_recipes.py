#!/usr/bin/env python3
"""Writes training records from the solved sessions of a swarm, for recipes beside its own.

    python3 benches/swarm_recipes.py --home HOME --project KEY --records corrections --out FILE

Each record is the first question of a session, without plans, repairs and the records that were
shown, answered with the code that passed in the end. `--records corrections` keeps the sessions
whose first answer failed; `--records answers` keeps all. Train on the file with `rune train
--dataset FILE`, and measure with `rune eval --suite mbpp --split dev --limit 40 --adapter ID`.
"""

import argparse
import json
import pathlib
import sqlite3

QUESTION = """
SELECT prompt, verdict = 'passed' FROM attempt
WHERE session_id = ? AND phase = 'code' ORDER BY seq LIMIT 1
"""
SESSIONS = """
SELECT session.id, family FROM session JOIN session_family ON session_family.session_id = session.id
WHERE status = 'solved' AND verified_by = 'user_tests' AND project = ? AND family IS NOT NULL
ORDER BY session.id
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=pathlib.Path, required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--records", choices=["corrections", "answers"], required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    database = sqlite3.connect(f"file:{options.home / 'rune.db'}?mode=ro", uri=True)
    records = []
    for session, family in database.execute(SESSIONS, [options.project]):
        prompt, passed_at_once = database.execute(QUESTION, [session]).fetchone()
        if passed_at_once and options.records == "corrections":
            continue
        code = (options.home / "sessions" / session / "solution.py").read_text()
        records.append({"messages": chat(json.loads(prompt), code), "family": family})
    options.out.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{len(records)} records")


def chat(prompt: list[dict], code: str) -> list[dict]:
    """The system message and the last question of `prompt`, answered with `code`."""
    system = [message for message in prompt if message["role"] == "system"]
    answer = {"role": "assistant", "content": f"```python\n{code.rstrip()}\n```"}
    return [*system, prompt[-1], answer]


if __name__ == "__main__":
    main()
