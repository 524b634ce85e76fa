"""Forks programs that are already loaded, each into its own jail inside the jail of this process.

Standard input is a JSON plan, descriptor 3 a datagram socket: requests come with a descriptor for the new process's
conversation, answers report how processes ended. Conversations do not pass through this process.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from jail import Jail, call, checked

del sys.path[0]

PERIOD = 0.02


class Child:
    def __init__(self, number, pid, limits):
        self.number, self.pid, self.why = number, pid, None
        self.pidfd = os.pidfd_open(pid)
        self.clock = ~pid << 3 | 2
        self.cpu = limits["cpu"]
        self.deadline = time.monotonic() + limits["wall"]

    def watch(self):
        """Kills the process when it exceeds a time limit."""
        if self.why is None and time.monotonic() > self.deadline:
            self.kill("wall")
        try:
            if self.why is None and time.clock_gettime(self.clock) > self.cpu:
                self.kill("cpu")
        except OSError:
            pass  # the process has just ended

    def kill(self, why):
        self.why = why
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def bury(self):
        _, status, usage = os.wait4(self.pid, 0)
        os.close(self.pidfd)
        return {
            "id": self.number,
            "status": status,
            "why": self.why,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss": usage.ru_maxrss << 10,
        }


class Zygote:
    def __init__(self, control, plan, jail):
        self.control = control
        self.jail = jail
        self.programs = {name: load(name, text) for name, text in plan["programs"]}
        self.children = {}
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)

    def serve(self):
        while True:
            events = self.poll.poll(PERIOD * 1000 if self.children else None)
            for fd, _ in events:
                if fd == self.control.fileno():
                    self.request()
                else:
                    self.end(fd)
            for child in self.children.values():
                child.watch()

    def request(self):
        data, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 2)
        request = json.loads(data)
        if "kill" in request:
            for child in self.children.values():
                if child.number == request["kill"]:
                    child.kill("dropped")
            return
        pid = self.jail.fork()
        if pid == 0:
            self.become(request, fds)
        for fd in fds:
            os.close(fd)
        child = Child(request["id"], pid, request["limits"])
        self.children[child.pidfd] = child
        self.poll.register(child.pidfd, select.POLLIN)

    def become(self, request, fds):
        status = 127
        try:
            for number, fd in enumerate(fds, 3):
                os.dup2(fd, number)
            others = ctypes.c_uint(3 + len(fds)), ctypes.c_uint(0xFFFFFFFF)
            checked(call(self.jail.numbers["close_range"], *others, 0), "close what is not its own")
            self.jail.enter(request["limits"])
            stream = socket.socket(fileno=3)
            stream.sendall(b"j")  # the jail stands: from here on it is the program that fails
            # The program must not reach the state of other processes.
            main, self.children, self.poll = self.programs[request["program"]], None, None
            status = main(stream) or 0
        except OSError as error:
            os.write(2, f"zygote: {error}\n".encode())
        finally:
            os._exit(status)

    def end(self, pidfd):
        child = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        self.control.send(json.dumps(child.bury()).encode())


def load(name, text):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, f"/in/rune/{name}.py", "exec"), vars(module))
    return getattr(module, "main", None)


def main():
    plan = json.load(sys.stdin)
    control = socket.socket(fileno=3)
    for name in plan["imports"]:
        __import__(name)
    jail = Jail(plan["jail"])
    jail.settle()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    zygote = Zygote(control, plan, jail)
    jail.hold()
    gc.collect()
    gc.freeze()
    control.send(b'{"id":0}')
    zygote.serve()


main()
