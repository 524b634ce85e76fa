"""Builds a nested jail for a process that is forked from this one, which is itself in a jail."""

import ctypes
import os
import resource
import signal
import struct

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC = 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER, BIND = 1, 22, 38, 2, 0x5000
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


def mount_empty(folder, size):
    mount(b"tmpfs", folder, NOSUID | NODEV, f"size={size},nr_inodes=2048,mode=0700")


def bind(source, target):
    """Bind-mounts a file or folder at another path."""
    checked(libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(BIND), None), f"show {target}")


class Jail:
    """The steps of a forked process before it runs judged code."""

    def __init__(self, plan):
        self.numbers = plan["numbers"]
        self.filters = [Filter(code) for code in plan["filters"]]
        self.landlock = plan["landlock"]
        self.devices = plan["devices"]
        self.readable = plan["readable"] or ["/"]
        self.has_namespaces = plan["has_namespaces"]
        self.writable = plan["writable"]
        self.files = plan["files"]
        self.has_loopback = plan["has_loopback"]
        self.own_filters = [Filter(code) for code in plan["own_filters"]]
        self.namespace = None

    def settle(self):
        """Prepares this process to fork children into jails."""
        if self.has_namespaces:
            become_first()
            self.namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def hold(self):
        """Installs the filters that parent and children share here, once, so that a fork has less to do."""
        checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "refuse new privileges")
        for each in self.own_filters:
            each.install()

    def fork(self):
        """Forks a process that is the first of a new pid namespace."""
        if self.has_namespaces:
            # Only the next child is affected: it becomes the first process of a new namespace.
            checked(libc.setns(self.namespace, NEWPID), "go back to the own namespace")
            checked(libc.unshare(NEWPID), "make a process namespace")
        pid = os.fork()
        if pid == 0:
            checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "bind the process to its parent")
        return pid

    def enter(self, limits, lay_out=None):
        """Enters the jail. `lay_out()` builds the file system; by default it has empty writable folders."""
        if self.has_namespaces:
            self.make_namespaces(limits, lay_out)
        self.limit(limits)
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        checked(call(self.numbers["capset"], header, none), "drop the capabilities")
        if self.landlock["fs"]:
            self.restrict()
        for each in self.filters:
            each.install()

    def make_namespaces(self, limits, lay_out):
        # The outer jail's network is only a loopback interface, which processes that may use it share.
        checked(libc.unshare(NEWNS | NEWIPC | (0 if self.has_loopback else NEWNET)), "make namespaces")
        if lay_out:
            lay_out()
        else:
            for folder in self.writable:
                mount_empty(folder, limits["disk_bytes"])
        mount(b"proc", "/proc", NOSUID | NODEV | NOEXEC, "hidepid=2,subset=pid")
        new_user()
        os.chdir("/box")

    def limit(self, limits):
        cpu = int(limits["cpu"]) + 2
        table = (
            (resource.RLIMIT_AS, limits["address_bytes"]),
            (resource.RLIMIT_CPU, cpu),
            (resource.RLIMIT_FSIZE, limits["file_bytes"]),
            (resource.RLIMIT_NOFILE, self.files),
            (resource.RLIMIT_CORE, 0),
        )
        if self.has_namespaces:  # else it may start threads alone, which are as many as the zygote may
            table += ((resource.RLIMIT_NPROC, limits["processes"]),)
        for what, most in table:
            resource.setrlimit(what, (most, most))

    def restrict(self):
        rights = struct.pack("QQQ", self.landlock["fs"], 0 if self.has_loopback else self.landlock["net"], self.landlock["scope"])
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


def become_first():
    """Continues as the first process of a new pid namespace."""
    new_user()
    checked(libc.unshare(NEWNS | NEWPID), "make namespaces")
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "bind the process to its parent")
    mount(b"proc", "/proc", NOSUID | NODEV | NOEXEC, "hidepid=2,subset=pid")
