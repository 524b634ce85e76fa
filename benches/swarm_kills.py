#!/usr/bin/env python3
"""Kills `rune swarm` with SIGKILL at random moments, resumes it, and checks that nothing is lost and nothing done twice.

The model is a script, so a swarm of a dozen tasks takes seconds. After every kill, and after every swarm that has ended,
the registry is read: its file is whole, events are numbered without gaps, no job has two sessions, and a swarm that has
ended has an outcome for every task, the same as without kills.

    python3 benches/swarm_kills.py --rune target/release/rune --kills 200 --seed 1
"""

import argparse
import hashlib
import json
import pathlib
import random
import signal
import sqlite3
import subprocess
import tempfile
import time

EASY = [f"easy{number}" for number in range(8)]
HARD = [f"hard{number}" for number in range(4)]
CONFIG = """[run]
provider = "scripted"
scripted = "script.jsonl"
project = "p"
repairs = 0
candidates = 1
[memory]
kind = "none"
"""


def split(family):
    """The split of a family, as `src/families.rs` has it."""
    number = int(hashlib.sha256(f"split {family}".encode()).hexdigest()[:8], 16) % 100
    return "train" if number < 60 else "dev" if number < 80 else "gate" if number < 95 else "vault"


def families(wanted):
    number = 0
    while True:
        if split(f"family {number}") == wanted:
            yield f"family {number}"
        number += 1


def write_bench(folder):
    """Writes tasks, their script and the settings of a home."""
    (folder / "home").mkdir()
    (folder / "home/config.toml").write_text(CONFIG)
    tasks, script = [], []
    names = list(zip(EASY + HARD, families("train"))) + [("held", next(families("gate")))]
    for name, family in names:
        tasks.append({
            "id": name,
            "task": f"Write {name}.py with {name}(), which returns a secret number.",
            "tests": f"from {name} import {name}\nassert {name}() == 1\n",
            "task_type": "function",
            "family": family,
        })
        answer = f"```python\ndef {name}():\n    return {0 if name in HARD else 1}\n```"
        script.append({"when": [f"{name}.py"], "text": answer, "repeat": True, "delay_ms": 30})
    for name, lines in [("tasks.jsonl", tasks), ("script.jsonl", script)]:
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def begun(home, child):
    """Waits until a new swarm has checked its tasks and is in the registry. Returns its id."""
    while child.poll() is None:
        if (home / "rune.db").exists():
            db = sqlite3.connect(home / "rune.db", timeout=10)
            has_table = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'swarm_run'").fetchone()
            row = has_table and db.execute("SELECT id FROM swarm_run WHERE status <> 'completed'").fetchone()
            db.close()
            if row:
                return row[0]
        time.sleep(0.02)
    raise AssertionError(child.communicate()[1].decode())


def check(home, swarm_id):
    """Checks what always holds. Returns the status of the swarm."""
    db = sqlite3.connect(f"file:{home / 'rune.db'}?mode=ro", uri=True)
    assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
    n_events, last = db.execute("SELECT count(*), coalesce(max(seq), 0) FROM event").fetchone()
    assert n_events == last, f"{n_events} events, the last has number {last}"
    twice = db.execute("SELECT job_id FROM session WHERE job_id IS NOT NULL GROUP BY job_id HAVING count(*) > 1").fetchall()
    assert not twice, twice
    row = db.execute("SELECT status FROM swarm_run WHERE id = ?", [swarm_id]).fetchone()
    if row != ("completed",):
        return row and row[0]
    jobs = db.execute("SELECT id, kind, state, generation, payload_json, result_json FROM job WHERE swarm_id = ?", [swarm_id]).fetchall()
    assert all(state == "done" for _, _, state, *_ in jobs), [job[:4] for job in jobs if job[2] != "done"]
    solved, tried = set(), []
    for job_id, kind, _, generation, payload, result in jobs:
        if kind == "solve":
            task = json.loads(payload)["task"]["id"]
            tried.append((generation, task))
            if json.loads(result)["is_solved"]:
                solved.add((generation, task))
    assert solved == {(1, name) for name in EASY}, solved
    expected = [(1, name) for name in EASY + HARD] + [(2, name) for name in HARD]
    assert sorted(tried) == sorted(expected), tried
    return row[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rune", type=pathlib.Path, default=pathlib.Path("target/release/rune"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0, help="longest time until a kill")
    parser.add_argument("--train-every", default="0", help="as for `rune swarm`; with a number above 0 the default model is trained")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rune = options.rune.resolve()
    n_kills = n_swarms = n_ended = 0
    moments = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_bench(folder)
        home = folder / "home"
        swarm_id = None
        while n_kills < options.kills:
            command = [rune, "--home", home, "swarm", "--quiet"]
            command += ["--resume", swarm_id] if swarm_id else ["--tasks", "tasks.jsonl", "--agents", "2", "--train-every", options.train_every]
            child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            n_swarms += swarm_id is None
            swarm_id = swarm_id or begun(home, child)
            pause = rng.uniform(0.05, options.seconds)
            try:
                child.wait(timeout=pause)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
            error = child.communicate()[1].decode()
            killed = child.returncode == -signal.SIGKILL
            n_kills += killed
            moments += [pause] * killed
            assert killed or child.returncode == 0, error
            if check(home, swarm_id) == "completed":
                n_ended += 1
                swarm_id = None
        # Every swarm that was killed ends as one that was not.
        while swarm_id:
            subprocess.run([rune, "--home", home, "swarm", "--quiet", "--resume", swarm_id], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            assert check(home, swarm_id) == "completed"
            n_ended, swarm_id = n_ended + 1, None
        verify = subprocess.run([rune, "--home", home, "adapters", "verify"], cwd=folder, capture_output=True, text=True, check=True)
        time.sleep(1)
        left = subprocess.run(["pgrep", "-f", str(home)], capture_output=True, text=True).stdout.split()
        assert not left, f"processes are left: {left}"
    print(f"{n_kills} kills after {min(moments):.2f} to {max(moments):.2f} s, {n_swarms} swarms begun, {n_ended} ended as without kills; {verify.stdout.strip() or 'adapters verified'}")


if __name__ == "__main__":
    main()
