"""Judges a solution by a suite: forks one process for both together, then one for the tests and one for the solution.

Runs as the first process of a jail; each child enters a jail of its own within it. Standard input is a plan, descriptor 3
the pipe to the judge. No code of the solution runs here, and the reports of children are only data.

    coordinator --+-- collector   the tests, with stand-ins for the solution
                  +-- same        tests and solution, as the user runs them; may report anything
                  +-- tester      the tests, and remote objects  <- decides
                  +-- worker      the solution                   <- asked by the tester
                  +-- screen      inspects the solution's syntax
"""

import gc
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import types

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).rstrip("/")
TESTS, SOLUTION, RUNNER = ROOT + "/in/tests", ROOT + "/in/solution", ROOT + "/in/rune"
PERIOD = 0.02
LARGEST_LINE = 1 << 20


# Kinds of records that each child may report.
TESTS_ONLY = {"collected", "begin", "test", "end"}
ALLOWED = {
    "same": TESTS_ONLY, "tester": TESTS_ONLY | {"given_up", "lie"}, "collector": TESTS_ONLY | {"framework", "collected_whole"},
    "screen": {"screen"}, "worker": set(),
}


class View:
    """The files that a child sees: its work directory with files laid over it, and its temporary folder."""

    def __init__(self, name, shared=None):
        base = ROOT + "/tmp/" + (shared or name)
        self.box, self.tmp, self.laid = base + "/box", base + "/tmp", []
        os.makedirs(self.box, exist_ok=True)
        os.makedirs(self.tmp, exist_ok=True)

    def fill(self, source):
        copy(source, self.box)

    def lay(self, source):
        """Lays the files of `source` over the work directory, for this child alone."""
        self.lay_at(source, "")

    def show(self, limits, shown):
        """Mounts the view for this process and hides all other files of the coordinator."""
        from jail import bind, mount_empty

        bind(self.box, "/box")
        for source, path in self.laid:
            bind(source, "/box/" + path)
        for path in shown:  # an interpreter or packages that lie below /tmp
            if path.startswith("/tmp/"):
                inside = self.tmp + path.removeprefix("/tmp")
                if os.path.isdir(path):
                    os.makedirs(inside, exist_ok=True)
                elif not os.path.exists(inside):
                    os.makedirs(os.path.dirname(inside), exist_ok=True)
                    open(inside, "wb").close()
                bind(path, inside)
        bind(self.tmp, "/tmp")
        mount_empty("/dev/shm", limits["disk_bytes"])
        mount_empty("/in", 4096)

    def lay_at(self, source, path):
        for entry in sorted(os.listdir(os.path.join(source, path))):
            inner = os.path.join(path, entry)
            here, there = os.path.join(source, inner), os.path.join(self.box, inner)
            if os.path.isdir(here) and os.path.isdir(there):
                self.lay_at(source, inner)
                continue
            if os.path.isdir(here):
                os.makedirs(there)
            elif not os.path.exists(there):
                with open(there, "wb"):
                    pass
            self.laid.append((here, inner))


def copy(source, target):
    if os.path.isdir(source):
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)


class Child:
    """A forked process with its pipes and time limits."""

    def __init__(self, name, pid, pipes, limits):
        self.name, self.pid, self.pidfd = name, pid, os.pidfd_open(pid)
        self.pipes, self.limits, self.why = pipes, limits, None
        self.started = time.monotonic()
        self.lines, self.rest = [], b""
        self.output = {1: Tail(limits["output_bytes"]), 2: Tail(limits["output_bytes"])}
        self.clock = ~pid << 3 | 2

    def watch(self):
        if self.why is None and time.monotonic() > self.started + self.limits["wall"]:
            self.kill("wall")
        try:
            if self.why is None and time.clock_gettime(self.clock) > self.limits["cpu"]:
                self.kill("cpu")
        except OSError:
            pass  # it has just ended

    def kill(self, why):
        self.why = self.why or why
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def take(self, what, data):
        if what != "report":
            if not self.output[what].take(data):
                self.kill("output")
            return
        self.rest += data
        *lines, self.rest = self.rest.split(b"\n")
        self.lines += lines
        if len(self.rest) > LARGEST_LINE:
            self.kill("report")

    def ended(self):
        _, status, usage = os.wait4(self.pid, 0)
        os.close(self.pidfd)
        self.cpu = usage.ru_utime + usage.ru_stime
        self.status = status
        self.wall = time.monotonic() - self.started

    def summary(self):
        signalled = self.status & 0x7F
        why = self.why or ("cpu" if signalled == signal.SIGXCPU else "")
        return {
            "kind": "ended", "who": self.name, "why": why, "signal": signalled, "code": self.status >> 8 & 0xFF, "cpu": self.cpu,
            "wall": self.wall, "stdout": self.output[1].text(), "stderr": self.output[2].text(),
        }


class Tail:
    """Keeps the end of a stream, and limits its total length."""

    def __init__(self, limit):
        self.limit, self.kept, self.total = limit, b"", 0

    def take(self, data):
        self.total += len(data)
        self.kept = (self.kept + data)[-4000:]
        return self.total <= 64 * self.limit

    def text(self):
        return self.kept.decode("utf-8", "replace")


class Coordinator:
    def __init__(self, plan, jail):
        self.plan, self.jail, self.children = plan, jail, []
        self.said = os.fdopen(3, "wb", buffering=0)

    def say(self, **fields):
        self.said.write(json.dumps(fields).encode() + b"\n")

    def fork(self, name, view, main, *streams, limits=None):
        """Starts `main(report, *streams)` in its own nested jail, with the plan's limits unless overridden."""
        limits = {**self.plan["limits"], **(limits or {})}
        ends = {what: os.pipe() for what in ("report", 1, 2)}
        pid = self.jail.fork()
        if pid == 0:
            self.plan["limits"] = limits
            if "core" in limits:
                stay_on(limits["core"])
            self.become(view, main, ends, streams, name)
        for _, write in ends.values():
            os.close(write)
        child = Child(name, pid, {read: what for what, (read, _) in ends.items()}, limits)
        self.children.append(child)
        return child

    def become(self, view, main, ends, streams, name):
        status = 127
        try:
            os.dup2(ends[1][1], 1)
            os.dup2(ends[2][1], 2)
            # Above the descriptor numbers that programs use.
            report = os.dup(ends["report"][1]) if name != "worker" else None
            kept = [0, 1, 2, *([report] if report is not None else []), *(stream.fileno() for stream in streams)]
            close_others(kept)
            self.enter(view)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            gc.enable()
            random_seed()
            status = main(report, *streams) or 0
            flush()
        except BaseException as error:
            import traceback

            os.write(2, ("".join(traceback.format_exception(error))[-3000:]).encode("utf-8", "replace"))
            status = 126
        finally:
            os._exit(status)

    def enter(self, view):
        plan, jail = self.plan, self.jail
        if jail.has_namespaces:
            plan["box"], plan["tmp"] = "/box", "/tmp"
            jail.enter(plan["limits"], lambda: view.show(plan["limits"], plan["shown"]))
        else:
            plan["box"], plan["tmp"] = view.box, view.tmp
            jail.writable = [view.box, view.tmp]
            jail.readable = [*jail.readable, view.box, view.tmp]
            os.environ["TMPDIR"] = view.tmp
            jail.enter(plan["limits"])

    def wait(self, main, *others):
        """Waits until `main` ends, then kills the others."""
        children = (main, *others)
        poll = select.poll()
        open_pipes = {}
        for child in children:
            for fd, what in child.pipes.items():
                poll.register(fd, select.POLLIN)
                open_pipes[fd] = child, what
            poll.register(child.pidfd, select.POLLIN)
        running = {child.pidfd: child for child in children}
        while running:
            for fd, _ in poll.poll(PERIOD * 1000):
                if fd in open_pipes:
                    read(poll, open_pipes, fd)
                elif fd in running:
                    child = running.pop(fd)
                    poll.unregister(fd)
                    child.ended()
                    for other in running.values() if child is main else ():
                        other.kill("over")
            for child in running.values():
                child.watch()
        deadline = time.monotonic() + 0.5  # what is in the pipes; a process left behind may hold them
        while open_pipes and time.monotonic() < deadline:
            for fd, _ in poll.poll(0):
                read(poll, open_pipes, fd)
            if not poll.poll(0):
                break
        for fd in [fd for child in children for fd in child.pipes]:
            os.close(fd)
        for child in children:
            if child.rest:
                child.lines.append(child.rest)

    def pass_on(self, child):
        """Passes the records of a child on to the judge, each signed with the child's name."""
        for line in child.lines:
            try:
                fields = json.loads(line)
                if type(fields) is not dict or fields.get("kind") not in ALLOWED[child.name]:
                    raise ValueError
            except (ValueError, RecursionError):
                self.say(kind="garbled", who=child.name)
                continue
            self.say(**{**fields, "who": child.name})
        self.say(**child.summary())


def read(poll, pipes, fd):
    child, what = pipes[fd]
    data = os.read(fd, 1 << 16)
    if not data:
        poll.unregister(fd)
        del pipes[fd]
    else:
        child.take(what, data)


def close_others(kept):
    """Closes every descriptor except `kept`."""
    last = 3
    for fd in sorted(fd for fd in kept if fd > 2):
        os.closerange(last, fd)
        last = fd + 1
    os.closerange(last, 1 << 16)


def random_seed():
    random = sys.modules.get("random")
    if random is not None:
        random.seed()


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def writer(fd):
    def write(data):
        while data:
            data = data[os.write(fd, data) :]

    return write


def outside(plan):
    """The parts of the search path that a user's interpreter has in the work directory."""
    site = [entry for entry in sys.path if "site-packages" in entry or "dist-packages" in entry]
    own = [entry for entry in sys.path if entry not in site and entry != RUNNER]
    return own, list(plan["libs"]), site


def settle_in(plan, with_box):
    own, libs, site = outside(plan)
    sys.path[:] = ([plan["box"]] if with_box else []) + own + libs + site
    sys.argv[:] = ["test"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.chdir(plan["box"])


def forget():
    """Makes the runner's modules unreachable by `import`."""
    for name in [name for name in sys.modules if name.startswith("rune_")]:
        del sys.modules[name]


def drop_squatted(plan):
    """Unloads modules that share a name with the solution, which are imported from the solution from now on.

    Modules that Python itself loads at its start and the frameworks are not replaced.
    """
    for top in set(plan["solution"]) - BASELINE - {"pytest", "_pytest"}:
        for name in [name for name in sys.modules if name == top or name.startswith(top + ".")]:
            del sys.modules[name]


# What a bare `python -m unittest` has loaded before the user's files.
BASELINE = {
    "sys", "builtins", "os", "io", "abc", "site", "codecs", "stat", "posixpath", "genericpath", "types", "collections", "functools",
    "re", "enum", "warnings", "traceback", "unittest", "time", "signal", "argparse", "contextlib", "weakref", "difflib", "logging",
    "pprint", "string", "linecache", "tokenize", "token", "keyword", "operator", "reprlib", "copyreg", "importlib", "runpy", "pkgutil",
    "fnmatch", "ntpath", "errno", "urllib", "dataclasses", "inspect", "ast", "dis", "opcode", "itertools", "threading", "encodings",
}


def same_process(plan, report):
    import rune_runner

    reporter = rune_runner.Reporter(writer(report), plan["box"])
    rune_runner.trace.ROOTS[:] = [plan["box"] + "/"]
    settle_in(plan, True)
    drop_squatted(plan)
    forget()
    rune_runner.run(plan["framework"], plan["box"], plan["targets"], reporter)
    reporter.say("end")


def tester(plan, report, stream):
    import rune_remote
    import rune_runner
    import rune_tester

    reporter = rune_runner.Reporter(writer(report), plan["box"])
    rune_runner.trace.ROOTS[:] = [plan["box"] + "/"]
    settle_in(plan, True)
    drop_squatted(plan)
    refuse_written_code(plan)
    data = [name for name in plan["files"] if name not in SECTIONS and not name.endswith(".py")]
    link = rune_tester.install(stream, {**plan, "folder": plan["box"], "data": data})
    reporter.after = lambda: after(link, rune_remote)
    try:
        rune_runner.run(plan["framework"], plan["box"], plan["targets"], reporter, extra=configuration(plan))
    except rune_remote.GiveUp as error:
        reporter.say("given_up", reason=str(error))
    for reason in link.lies:
        reporter.say("lie", reason=reason)
    reporter.say("end")


# pytest's configuration files, in the order in which it looks for them, and what one of them has that concerns pytest.
SECTIONS = {"pytest.ini": b"", "pyproject.toml": b"[tool.pytest", "tox.ini": b"[pytest]", "setup.cfg": b"[tool:pytest]"}


def configuration(plan):
    """Makes pytest read the tests' own configuration, and none that is among the solution's files."""
    for name in [name for name in SECTIONS if name in plan["files"]]:
        with open(os.path.join(plan["box"], name), "rb") as file:
            if SECTIONS[name] in file.read():
                return ["-c", os.path.join(plan["box"], name)]
    return ["-c", os.devnull] if plan["framework"] == "pytest" else []


def after(link, remote):
    """Returns the reason why a test that passed in the tester does not count, or `None`."""
    found = None
    if link.lies:
        found = "the solution deceives its tests: " + link.lies[-1]
    elif remote.GIVEN_UP:
        found = remote.GIVEN_UP[0]
    elif link.failed_checks:
        found = "the solution swallowed a check that failed"
    remote.GIVEN_UP.clear()
    link.spaces.clear()
    link.failed_checks = []
    return found


def refuse_written_code(plan):
    """Makes the tester load code only from the tests' own files, never files that the worker may have written."""
    import importlib.machinery as machinery

    box, tmp = plan["box"] + "/", plan["tmp"] + "/"
    tests = {os.path.join(plan["box"], path) for path in plan["files"]}
    shown = tuple(path + "/" for path in plan["shown"])
    remote = sys.modules["rune_remote"]
    sys.dont_write_bytecode = True

    class FromSource(machinery.SourceFileLoader):
        def get_code(self, fullname):
            path = self.get_filename(fullname)
            return self.source_to_code(self.get_data(path), path)

    source = machinery.FileFinder.path_hook((FromSource, [".py"]))

    def hook(path):
        if path != plan["box"] and (not path.startswith((box, tmp)) or (path + "/").startswith(shown)):
            raise ImportError
        return source(path)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()

    def audit(event, args):
        if event == "exec" or event == "import":
            name = getattr(args[0], "co_filename", None) if event == "exec" else args[1]
            if isinstance(name, str) and name.startswith((box, tmp)) and name not in tests and not name.startswith(shown):
                raise remote.GiveUp(f"the tests load {name}, which is none of their files")

    sys.addaudithook(audit)


def worker(plan, report, stream):
    import rune_worker

    settle_in(plan, True)
    drop_squatted(plan)
    rune_worker.main(stream, plan)


def collector(plan, report):
    import rune_collector
    import rune_runner

    reporter = rune_runner.Reporter(writer(report), plan["box"])
    rune_runner.trace.ROOTS[:] = [plan["box"] + "/"]
    settle_in(plan, True)
    rune_collector.run(plan, reporter, rune_runner)
    reporter.say("end")


def screen(plan, report):
    import rune_screen

    found = rune_screen.findings(plan["box"], plan["constructs"])
    writer(report)(json.dumps({"kind": "screen", "findings": found}).encode() + b"\n")


def preload(plan):
    """Loads the modules that children need, because they cannot see our files later."""
    import rune_collector
    import rune_remote
    import rune_runner
    import rune_screen
    import rune_tester
    import rune_worker

    if plan["framework"] == "pytest":
        sys.path += plan["libs"]
        try:
            import pytest
            import _pytest.assertion.rewrite
            import _pytest.monkeypatch
            import _pytest.python
            import _pytest.unittest
        except ImportError:
            return False
        finally:
            del sys.path[len(sys.path) - len(plan["libs"]) :]
    sys.path.remove(RUNNER)
    return True


def passed(child):
    """Whether a process reports only passed tests. Whether that can be trusted is decided elsewhere."""
    statuses = []
    for line in child.lines:
        try:
            fields = json.loads(line)
            statuses += [fields["status"]] if fields.get("kind") == "test" else []
        except (ValueError, KeyError, AttributeError, TypeError):
            return False
    good = {"passed", "skipped", "expected_failure"}
    ended = bool(child.lines) and b'"end"' in child.lines[-1]
    return ended and "passed" in statuses and set(statuses) <= good


def main():
    plan = json.load(sys.stdin)
    sys.path.insert(0, RUNNER)
    from jail import Jail

    jail = Jail(plan["jail"])
    jail.settle()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    coordinator = Coordinator(plan, jail)
    if not preload(plan):
        coordinator.say(kind="pytest_missing")
        return
    if plan["framework"] == "pytest" and plan["mode"] != "collect":
        compile_once(plan["files"])
    jail.hold()
    gc.collect()
    gc.freeze()
    if plan["mode"] == "collect":
        collect(coordinator, plan)
    else:
        judge(coordinator, plan)


def compile_once(files):
    """Compiles the tests' files once for both runs, with asserts rewritten as by pytest, without running them."""
    import ast

    from _pytest.assertion import rewrite

    rewrite_test = getattr(rewrite, "_rewrite_test", None)
    if rewrite_test is None:
        return  # another pytest, which compiles them itself
    compiled = {}
    for path in files:
        name = os.path.basename(path)
        if not (name == "conftest.py" or name.startswith("test_") and name.endswith(".py") or name.endswith("_test.py")):
            continue
        try:
            with open(os.path.join(TESTS, path), "rb") as file:
                source = file.read()
            tree = ast.parse(source, filename="/box/" + path)
            rewrite.rewrite_asserts(tree, source, "/box/" + path)
            compiled["/box/" + path] = source, compile(tree, "/box/" + path, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError, RecursionError, TypeError, AttributeError):
            continue  # pytest itself will say what is wrong with it

    def from_here(path, config):
        source, code = compiled.get(str(path), (None, None))
        if code is None or config.getini("enable_assertion_pass_hook") or path.read_bytes() != source:
            return rewrite_test(path, config)
        return os.stat(path), code

    rewrite._rewrite_test = from_here


def collect(coordinator, plan):
    view = View("collect")
    view.fill(TESTS)
    child = coordinator.fork("collector", view, lambda report: collector(plan, report))
    coordinator.wait(child)
    coordinator.pass_on(child)


def tests_view(jail, pair):
    """The view of the tester: files written by the worker, with the tests' files laid over them."""
    if not jail.has_namespaces:
        view = View("tester")
        view.tmp = pair.tmp
        view.fill(TESTS)
        return view
    view = View("tester", "pair")
    copy(TESTS, ROOT + "/tmp/tests")
    view.lay(ROOT + "/tmp/tests")
    return view


def current_core():
    import ctypes

    return ctypes.CDLL(None).sched_getcpu()


def stay_on(core):
    """Pins a process to a core: two processes that always wait for each other are a quarter slower on two cores."""
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        pass  # forbidden, or no such core


def limits_apart(limits, together):
    """Every call goes from process to process there: more time than together, by how long that took; and one core for
    both, unless the solution has use for more."""
    core = {} if together.cpu > 1.2 * together.wall else {"core": current_core()}
    return {
        "wall": min(limits["apart"] * limits["wall"], 20 + 10 * together.wall),
        "cpu": min(limits["apart"] * limits["cpu"], 20 + 10 * together.cpu),
        **core,
    }


def judge(coordinator, plan):
    view = View("same")
    view.fill(SOLUTION)
    view.fill(TESTS)
    together = coordinator.fork("same", view, lambda report: same_process(plan, report))
    coordinator.wait(together)
    coordinator.pass_on(together)
    if not passed(together):
        return
    limits = limits_apart(plan["limits"], together)
    view = View("screen")
    view.fill(SOLUTION)
    reader = coordinator.fork("screen", view, lambda report: screen(plan, report))
    pair = View("pair")
    pair.fill(SOLUTION)
    mine, theirs = socket.socketpair()
    with_solution = coordinator.fork("worker", pair, lambda report, stream: worker(plan, report, stream), theirs, limits=limits)
    tests = tests_view(coordinator.jail, pair)
    with_tests = coordinator.fork("tester", tests, lambda report, stream: tester(plan, report, stream), mine, limits=limits)
    mine.close()
    theirs.close()
    coordinator.wait(with_tests, with_solution)
    coordinator.pass_on(with_tests)
    coordinator.say(**with_solution.summary())
    coordinator.wait(reader)
    coordinator.pass_on(reader)


if __name__ == "__main__":
    main()
