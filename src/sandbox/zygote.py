"""Forks programs that are loaded already, each into a jail of its own within the jail that this process is in.

Standard input is a JSON plan, descriptor 3 a datagram socket: requests come with a descriptor for the new process's
conversation, answers tell how processes ended. Nothing of what a process says passes through here.
"""

import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import types

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC = 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 1, 22, 38, 2
PERIOD = 0.02
libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def call(number, *args):
    return libc.syscall(ctypes.c_long(number), *args)


def mount(kind, target, flags, options):
    checked(libc.mount(b"jail", target.encode(), kind, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def new_user():
    """Enters a user namespace in which this user has the same number, and all capabilities."""
    uid, gid = os.getuid(), os.getgid()
    checked(libc.unshare(NEWUSER), "make a user namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, text.encode())
        os.close(fd)


class Filter:
    def __init__(self, code):
        self.instructions = ctypes.create_string_buffer(bytes.fromhex(code), len(code) // 2)
        program = struct.pack("HxxxxxxQ", len(code) // 16, ctypes.addressof(self.instructions))
        self.program = ctypes.create_string_buffer(program, len(program))

    def install(self):
        checked(libc.prctl(PR_SET_SECCOMP, FILTER, self.program, 0, 0), "filter system calls")


class Jail:
    """What a forked process does before it meets judged code."""

    def __init__(self, plan):
        self.numbers = plan["numbers"]
        self.filters = [Filter(code) for code in plan["filters"]]
        self.landlock = plan["landlock"]
        self.devices = plan["devices"]
        self.readable = plan["readable"] or ["/"]
        self.has_namespaces = plan["has_namespaces"]
        self.writable = plan["writable"]

    def enter(self, limits):
        if self.has_namespaces:
            self.make_namespaces(limits)
        self.limit(limits)
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        checked(call(self.numbers["capset"], header, none), "drop the capabilities")
        if self.landlock["fs"]:
            self.restrict()
        for each in self.filters:
            each.install()

    def make_namespaces(self, limits):
        checked(libc.unshare(NEWNS | NEWIPC | NEWNET), "make namespaces")
        for folder in self.writable:
            mount(b"tmpfs", folder, NOSUID | NODEV, f"size={limits['disk_bytes']},nr_inodes=2048,mode=0700")
        mount(b"proc", "/proc", NOSUID | NODEV | NOEXEC, "hidepid=2,subset=pid")
        new_user()
        os.chdir("/box")

    def limit(self, limits):
        cpu = int(limits["cpu"]) + 2
        table = (
            (resource.RLIMIT_AS, limits["address_bytes"]),
            (resource.RLIMIT_CPU, cpu),
            (resource.RLIMIT_FSIZE, limits["file_bytes"]),
            (resource.RLIMIT_NOFILE, 64),
            (resource.RLIMIT_CORE, 0),
        )
        if self.has_namespaces:  # else it may start threads alone, which are as many as the zygote may
            table += ((resource.RLIMIT_NPROC, limits["processes"]),)
        for what, most in table:
            resource.setrlimit(what, (most, most))

    def restrict(self):
        rights = struct.pack("QQQ", self.landlock["fs"], self.landlock["net"], self.landlock["scope"])
        size = self.landlock["size"]
        ruleset = checked(call(self.numbers["create_ruleset"], rights[:size], ctypes.c_size_t(size), 0), "Landlock")
        read, of_files = self.landlock["read"], self.landlock["read"] & self.landlock["device"]
        places = [(path, read if os.path.isdir(path) else of_files) for path in self.readable if os.path.exists(path)]
        places += [(folder, self.landlock["write"]) for folder in self.writable]
        places += [(device, self.landlock["device"]) for device in self.devices]
        for path, allowed in places:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", allowed, fd)
            checked(call(self.numbers["add_rule"], ruleset, 1, rule, 0), f"Landlock: {path}")
            os.close(fd)
        checked(call(self.numbers["restrict_self"], ruleset, 0), "Landlock")
        os.close(ruleset)


class Child:
    def __init__(self, number, pid, limits):
        self.number, self.pid, self.why = number, pid, None
        self.pidfd = os.pidfd_open(pid)
        self.clock = ~pid << 3 | 2
        self.cpu = limits["cpu"]
        self.deadline = time.monotonic() + limits["wall"]

    def watch(self):
        """Ends the process when it has used up its time."""
        if self.why is None and time.monotonic() > self.deadline:
            self.kill("wall")
        try:
            if self.why is None and time.clock_gettime(self.clock) > self.cpu:
                self.kill("cpu")
        except OSError:
            pass  # it has just ended

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
    def __init__(self, control, plan):
        self.control = control
        self.jail = Jail(plan)
        self.programs = {name: load(name, text) for name, text in plan["programs"]}
        self.namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
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
        if self.jail.has_namespaces:
            # The next child is the first process of a namespace; ours is the same as ever.
            checked(libc.setns(self.namespace, NEWPID), "go back to the own namespace")
            checked(libc.unshare(NEWPID), "make a process namespace")
        pid = os.fork()
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
            checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "bind the process to its parent")
            self.jail.enter(request["limits"])
            stream = socket.socket(fileno=3)
            stream.sendall(b"j")  # the jail stands: from here on it is the program that fails
            # Nothing of other processes stays within reach.
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


def become_first():
    """Goes on as the first process of a namespace."""
    new_user()
    checked(libc.unshare(NEWNS | NEWPID), "make namespaces")
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "bind the process to its parent")
    mount(b"proc", "/proc", NOSUID | NODEV | NOEXEC, "hidepid=2,subset=pid")


def main():
    plan = json.load(sys.stdin)
    control = socket.socket(fileno=3)
    for name in plan["imports"]:
        __import__(name)
    if plan["has_namespaces"]:
        become_first()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    zygote = Zygote(control, plan)
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "refuse new privileges")
    for code in plan["own_filters"]:  # for the children, which then have fewer to install
        Filter(code).install()
    gc.collect()
    gc.freeze()
    control.send(b'{"id":0}')
    zygote.serve()


main()
